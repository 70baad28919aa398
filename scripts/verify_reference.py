"""Compare probabilities of this code with those of the published code.

    python scripts/verify_reference.py [DIR] [--device cuda] [--tolerance 1e-4]

DIR contains *.npz files: `prob` (O+1, T, h, w), every `stride`-th pixel of the padded
probabilities, and `config`, a JSON text. The folder above DIR contains
`<system>_state_dict.json`, the names and shapes of the published tensors.

Exit status: 0 if all files pass, 1 if one fails, 2 if a file cannot be compared.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.command_line import script_parser

_FILES = Path(__file__).resolve().parents[1] / "tests/reference/inference"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument(
        "dir",
        type=Path,
        nargs="?",
        default=_FILES,
        help="folder of *.npz files (default: tests/reference/inference)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 or mps (default: cpu)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        help="largest allowed difference (default: %(default)s)",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import numpy as np
import torch

from inference.predictor import make_policy
from inference_core import InferenceCore
from inference_core_yv import InferenceCoreYV
from model.checkpoint import convert_published
from model.methods import build_network
from model.network import Network
from model.reference import fill_weights, reference_clip, reference_masks
from util.devices import pick_device, tune
from util.hyper_para import EvalSettings
from util.padding import pad, padding_of
from util.parse_settings import of_method

_GAINS = {"imsfr": 1.2}  # see fill_weights; 1.5 for all other systems


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line per file; return the exit status."""
    arguments = parse(argv)
    files = sorted(arguments.dir.glob("*.npz"))
    if not files:
        print(
            f"error: there are no .npz files in {arguments.dir}: give the folder of these files.",
            file=sys.stderr,
        )
        return 2
    try:
        device = pick_device(arguments.device)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    tune(device, exact=True)
    networks: dict[str, Network] = {}
    num_failed = 0
    for path in files:
        try:
            with np.load(path) as content:
                config = json.loads(str(content["config"]))
                expected = torch.from_numpy(content["prob"])
            system = config["system"]
            if system not in networks:
                networks[system] = reference_network(arguments.dir.parent, system, device)
            difference = compare(networks[system], config, expected)
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            print(f"error: {path} cannot be compared: {error}", file=sys.stderr)
            return 2
        has_passed = difference <= arguments.tolerance
        num_failed += not has_passed
        print(f"{path.name}: {difference:.2e} {'pass' if has_passed else 'FAIL'}")
    print(f"{len(files) - num_failed} passed, {num_failed} failed")
    return 1 if num_failed else 0


def reference_network(folder: Path, system: str, device: str | torch.device = "cpu") -> Network:
    """Build the network of a published system with reproducible weights, for inference.

    Args:
        folder: contains `<system>_state_dict.json`.
        system: name of the method.
        device: device of the network.
    """
    shapes = json.loads((folder / f"{system}_state_dict.json").read_text())["eval"]
    filled = fill_weights(shapes, _GAINS.get(system, 1.5))
    spec, weights = convert_published(filled, f"{system}_state_dict.json")
    network = build_network(spec)
    network.load_state_dict(dict(weights))
    return network.for_inference(torch.device(device), torch.float32)


def compare(network: Network, config: dict[str, Any], expected: torch.Tensor) -> float:
    """Segment the clip of a file, and compare with its probabilities.

    Args:
        network: from `reference_network`.
        config: configuration of the clip and the session.
        expected: (O+1, T, h, w), probabilities of the published code.

    Returns:
        The largest absolute difference inside the unpadded image; NaN if there is any.

    Raises:
        ValueError: `expected` does not have the shape that the configuration describes.
    """
    height, width, num_frames = config["height"], config["width"], config["num_frames"]
    settings, stride = config["settings"], config["stride"]
    device = next(network.parameters()).device
    frames = reference_clip(num_frames, height, width, config["seed"]).to(device)
    masks = reference_masks(num_frames, config["num_objects"], height, width).to(device)
    starts = dict.fromkeys(range(1, config["num_objects"] + 1), 0)
    if config["core"] == "youtube":
        starts[config["late_object"]] = config["late_frame"]
    core_type = {"davis": InferenceCore, "youtube": InferenceCoreYV}[config["core"]]
    names = ("mem_every", "include_last", "mode")
    options = EvalSettings(**{name: settings[name] for name in names if name in settings})
    options.dataset = config["core"]
    policy = make_policy(network, of_method(options, network.spec.method))
    core = core_type(
        network, policy, settings["top_k"], num_frames, settings.get("km"), config["num_objects"]
    )

    padding = padding_of(height, width)
    is_inside = pad(torch.ones(height, width), padding)[::stride, ::stride] > 0
    shape = (config["num_objects"] + 1, num_frames, *is_inside.shape)
    if expected.shape != shape:
        raise ValueError(f"prob is {tuple(expected.shape)} instead of {shape}")
    largest = []
    for t in range(num_frames):
        new = {o: masks[o - 1, t] for o, start in starts.items() if start == t}
        prob = core.step(frames[t], new or None, is_last=t == num_frames - 1)
        sampled = pad(prob.cpu(), padding)[:, ::stride, ::stride]  # (O+1, h, w)
        channels = [0, *core.labels]  # channels of `expected` in the order of `prob`
        assert len(channels) == sampled.shape[0]
        largest.append((sampled - expected[channels, t])[:, is_inside].abs().max())
    return torch.stack(largest).max().item()


if __name__ == "__main__":
    sys.exit(main())
