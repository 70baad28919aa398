"""Draw, propagate and correct the masks of a video in the browser.

python annotate.py clip.mp4 --model saves/stcn_small.pth
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from annotator.options import AnnotateOptions, parse

if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()
    print("Loading PyTorch and the video…", flush=True)

from annotator.clip import Clip
from annotator.demo_clip import DemoClip
from annotator.exchange import import_masks
from annotator.store import Store
from annotator.video_clip import open_clip
from annotator.workspace import Workspace
from inference.predictor import Predictor
from model.checkpoint import read_weights
from util.devices import pick_device
from util.files import lock_folder


def main(argv: list[str] | None = None) -> int:
    """Open clip and session and serve until Ctrl-C or SIGTERM; return the exit status."""
    options = parse(argv)
    try:
        from annotator.serve import serve  # needs starlette and uvicorn
    except ImportError as error:
        print(
            f"annotate.py: error: {error.name} is not installed: pip install -r "
            "requirements-annotator.txt",
            file=sys.stderr,
        )
        return 2
    try:
        clip = open_clip(Path(options.video)) if options.video else DemoClip()
        folder = Path(options.session or f"out/annotations/{clip.name}")
        with lock_folder(folder):
            serve(open_workspace(options, clip, folder), options)
    except (ValueError, OSError) as error:
        print(f"annotate.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def open_workspace(options: AnnotateOptions, clip: Clip, folder: Path) -> Workspace:
    """Read what the weights are, open the session of a clip, and import --mask."""
    settings = options.settings
    spec, _ = read_weights(settings.model)
    device = pick_device(settings.device)
    model = {"name": Path(settings.model).name, "method": spec.method, "device": str(device)}
    store = Store(folder, len(clip), clip.size, clip.path)
    if options.mask:
        num_masks = import_masks(clip, store, Path(options.mask))
        print(f"Imported masks of {num_masks} frames.")
    is_demo = not options.video
    return Workspace(clip, store, lambda: Predictor(settings), store.scratch, model, is_demo)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # A thread can still be loading weights or segmenting a frame. Python aborts if it ends before
    # them, and all files are closed by now.
    os._exit(status)
