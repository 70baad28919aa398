"""Count what a GPU would do for a frame and for a training step, without a GPU.

    python scripts/benchmarks/bench_gpu_work.py

The code for CUDA runs on a pretended GPU (scripts/benchmarks/fake_gpu.py), whose tensors have
shapes but no values. Per frame after the first two (mean) and per training step, the table has:
waits of the process for the GPU, copies between CPU and GPU, and kernels, which are operations that
do more than allocate or make a view. The peak is that of all tensors on the GPU, weights included,
without the scratch memory of operations. "session": frames and probabilities stay on the GPU;
"tracker": frames and label maps are arrays. The training step has 4 clips of 3 frames and 384
pixels in mixed precision; the backward pass is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.shared.paths import output_file
from util.command_line import script_parser
from util.presets import METHOD_PRESETS

_SIZES = ("base", "small", "tiny")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=[*METHOD_PRESETS],
        choices=[*METHOD_PRESETS],
        help="methods to measure (default: all)",
    )
    parser.add_argument(
        "--objects", nargs="+", type=int, default=[1, 3], help="numbers of objects (default: 1 3)"
    )
    parser.add_argument(
        "--size", default="base", choices=_SIZES, help="widths of the networks (default: base)"
    )
    parser.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "float16", "bfloat16"),
        help="precision of inference (default: float32)",
    )
    parser.add_argument(
        "--frames", type=int, default=8, help="frames of the video, at least 3 (default: 8)"
    )
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="also write the results here"
    )
    arguments = parser.parse_args(argv)
    if arguments.frames < 3 or min(arguments.objects) < 1:
        parser.error("--frames must be at least 3, --objects at least 1.")
    return arguments


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import numpy as np
import torch

from inference.predictor import Predictor
from inference.tracker import Tracker
from model.methods import build_network
from model.network import NetworkSpec
from model.trainer import Trainer
from scripts.benchmarks.fake_gpu import GPU, FakeGpu, Work
from util.files import write_json
from util.hyper_para import EvalSettings, NetworkSize, TrainSettings
from util.ranks import Ranks

HEIGHT, WIDTH = 480, 854


class _Row(TypedDict):
    method: str
    objects: int
    run: str  # session, tracker or training
    waits: float
    copies: float
    kernels: float
    peak_bytes: int


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a table; return the exit status."""
    arguments = parse(argv)
    print(f"{arguments.size}, {arguments.precision}, {HEIGHT}x{WIDTH}, torch {torch.__version__}")
    print("method  objects  run      waits  copies  kernels  peak, MiB")
    rows = []
    for row in _measure_all(arguments):
        rows.append(row)
        print(
            f"{row['method']:8}{row['objects']:7}  {row['run']:8}{row['waits']:6.1f}"
            f"{row['copies']:8.1f}{row['kernels']:9.0f}{row['peak_bytes'] / 2**20:11.0f}"
        )
    if arguments.json:
        write_json(arguments.json, {"settings": vars(arguments), "rows": rows})
    return 0


def _measure_all(arguments: argparse.Namespace) -> Iterator[_Row]:
    for method in arguments.methods:
        for num_objects in arguments.objects:
            for run in ("session", "tracker"):
                with FakeGpu().run() as gpu:
                    settings = EvalSettings(precision=arguments.precision)
                    predictor = make_predictor(method, arguments.size, settings)
                    segment = segment_on_gpu if run == "session" else segment_arrays
                    works = [*segment(gpu, predictor, num_objects, arguments.frames)]
                yield _make_row(method, num_objects, run, works[2:])
        with FakeGpu().run() as gpu:
            works = [*train(gpu, method, arguments.size, num_steps=2)]
        yield _make_row(method, 2, "training", works[1:])


def _make_row(method: str, num_objects: int, run: str, works: Sequence[Work]) -> _Row:
    return {
        "method": method,
        "objects": num_objects,
        "run": run,
        "waits": statistics.mean(work.waits for work in works),
        "copies": statistics.mean(work.copies for work in works),
        "kernels": statistics.mean(work.kernels for work in works),
        "peak_bytes": max(work.peak_bytes for work in works),
    }


def make_predictor(method: str, size: str, settings: EvalSettings | None = None) -> Predictor:
    """Make a predictor with a new network on the pretended GPU."""
    with GPU:
        network = build_network(NetworkSpec(method, size))
    with mock.patch("inference.predictor.pick_device", return_value=GPU):
        return Predictor(settings or EvalSettings(), network=network)


def segment_on_gpu(
    gpu: FakeGpu, predictor: Predictor, num_objects: int, num_frames: int
) -> Iterator[Work]:
    """Segment frames that are on the GPU with a session; yield the work of each frame."""
    session = predictor.start(num_frames)
    for t in range(num_frames):
        frame = predictor.normalise(torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8, device=GPU))
        masks = None
        if t == 0:
            masks = {o + 1: torch.zeros(HEIGHT, WIDTH, device=GPU) for o in range(num_objects)}
        with gpu.measure() as work:
            session.step(frame, masks, is_last=t == num_frames - 1)
        yield work


def segment_arrays(
    gpu: FakeGpu,
    predictor: Predictor,
    num_objects: int,
    num_frames: int,
    annotated: Sequence[int] = (0,),
) -> Iterator[Work]:
    """Segment arrays with a tracker; yield the work of each frame.

    Args:
        annotated: frames with a mask of all objects.
    """
    tracker = Tracker(predictor, num_frames)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[: num_objects * 8] = np.arange(num_objects).repeat(8)[:, None] + 1
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for t in range(num_frames):
        with gpu.measure() as work:
            tracker.segment(image, mask if t in annotated else None)
        yield work


def train(gpu: FakeGpu, method: str, size: NetworkSize, num_steps: int) -> Iterator[Work]:
    """Train a new network on clips of two objects; yield the work of each step."""
    with GPU:
        network = build_network(NetworkSpec(method, size))
    settings = TrainSettings(id="work", method=method, size=size)
    trainer = Trainer(network, settings, {}, GPU, torch.float16, Ranks())
    images = torch.zeros(4, 3, 3, 384, 384, dtype=torch.uint8).pin_memory()
    labels = torch.zeros(4, 3, 384, 384, dtype=torch.uint8).pin_memory()
    labels[..., :8], labels[..., 8:16] = 1, 2
    num_objects = torch.full((4,), 2).pin_memory()
    for _ in range(num_steps):
        with gpu.measure() as work:
            trainer.step(images, labels, num_objects)
        yield work


if __name__ == "__main__":
    sys.exit(main())
