"""Entry points of torch.hub: the Python API from another project, without installation.

    tracker = torch.hub.load(FOLDER, "tracker", source="local", weights="stcn.pth", size=480)

The file is called `weights` here, since `model` is a parameter of torch.hub.load itself. See
docs/python.md.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from inference.clip_session import ClipSession
    from inference.predictor import Predictor
    from inference.tracker import Tracker

dependencies = ["torch", "numpy", "cv2", "PIL"]

_FOLDER = Path(__file__).resolve().parent
# Names that the Python API imports; modules of another project must not hide them.
_NAMES = (
    "inference", "inference_core", "inference_core_yv", "inference_memory_bank", "model", "util",
)  # fmt: skip


def predictor(weights: str = "", **options: object) -> Predictor:
    """Load weights and return a predictor.

    Args:
        weights: file of weights, our own or published; by default the demo weights of this folder.
        options: options of the eval scripts by name, such as size=480 or amp=True.

    Raises:
        ImportError: the other project has imported modules with the same names.
        ValueError: the weights cannot be loaded, or there is no such option.
    """
    return _load(weights, options)


def tracker(weights: str = "", **options: object) -> Tracker:
    """Return a tracker for frames that arrive one by one; see `predictor` for the arguments."""
    loaded = _load(weights, options)
    from inference.tracker import Tracker

    return Tracker(loaded)


def clip_session(frames: Sequence[np.ndarray], weights: str = "", **options: object) -> ClipSession:
    """Return a session for a clip at random access; see `predictor` for the other arguments.

    Args:
        frames: (H, W, 3) uint8 RGB each.
    """
    loaded = _load(weights, options)
    from inference.clip_session import ClipSession

    return ClipSession(loaded, frames)


def _load(weights: str, options: Mapping[str, object]) -> Predictor:
    _check_names()
    # All of the API is imported here, while torch.hub has this folder on sys.path.
    import inference.clip_session  # noqa: F401
    from inference.predictor import Predictor

    return Predictor.load(weights or str(_FOLDER / "saves" / "stcn_small.pth"), **options)


def _check_names() -> None:
    """Raise ImportError if the process has imported other modules under our names."""
    foreign = [name for name in _NAMES if name in sys.modules and not _is_ours(name)]
    if foreign:
        raise ImportError(
            f"This process has imported other modules named {', '.join(foreign)}, which hide those "
            f"of {_FOLDER}: load the predictor in a process of its own (docs/python.md)."
        )


def _is_ours(name: str) -> bool:
    module = sys.modules[name]
    paths = [module.__file__] if module.__file__ else [*module.__path__]
    return any(Path(path).resolve().is_relative_to(_FOLDER) for path in paths)
