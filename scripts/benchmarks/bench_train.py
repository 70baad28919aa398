"""Measure the time of a training step, in one process or under torchrun.

    python scripts/benchmarks/bench_train.py --size base --crop_size 384 --batch_size 2
    torchrun --nproc_per_node=2 scripts/benchmarks/bench_train.py --static_root data/static

The steps of `Trainer` are measured alternately with those of a plain eager float32 loop with the
same network (no channels-last, no mixed precision, no fused Adam). With --static_root the script
also trains on real samples and measures the share of the time spent waiting for data.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.shared.paths import output_file
from util.command_line import script_parser
from util.hyper_para import Precision, TrainSettings
from util.plugins import add_plugin_option
from util.presets import METHOD_PRESETS


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    add_plugin_option(parser, argv)
    parser.add_argument(
        "--method",
        default="stcn",
        choices=[*METHOD_PRESETS],
        help="method to train (default: stcn)",
    )
    parser.add_argument(
        "--size",
        default="base",
        choices=("base", "small", "tiny"),
        help="widths of the network (default: base)",
    )
    parser.add_argument(
        "--crop_size", type=int, default=384, help="side of a crop in pixels (default: 384)"
    )
    parser.add_argument(
        "--num_frames", type=int, default=3, help="frames per training clip (default: 3)"
    )
    parser.add_argument(
        "-b", "--batch_size", type=int, default=2, help="clips per step and process (default: 2)"
    )
    parser.add_argument(
        "--frozen_layers",
        type=int,
        default=0,
        choices=range(4),
        help="as in train.py; the plain loop freezes none (default: 0)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["float32", "auto"],
        choices=get_args(Precision),
        help="precisions to measure (default: float32 auto)",
    )
    parser.add_argument("--compile", action="store_true", help="also measure the compiled network")
    parser.add_argument(
        "--iterations", type=int, default=5, help="steps to measure of each kind (default: 5)"
    )
    parser.add_argument("--static_root", type=Path, help="also train on these static images")
    parser.add_argument(
        "--num_workers", type=int, default=2, help="worker processes of the loader (default: 2)"
    )
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="also write the results here"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import torch

from datasets.loader import load_samples
from datasets.sampler import ClipBatches
from datasets.static import StaticClips, find_static_pairs, mix_static
from model.methods import METHODS, build_network
from model.network import NetworkSpec
from model.trainer import Trainer
from scripts.benchmarks.timing import time_call
from util.devices import pick_device, pick_dtype
from util.files import write_json
from util.ranks import Ranks, join_ranks, leave_ranks

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a table; return the exit status."""
    arguments = parse(argv)
    try:
        ranks = join_ranks(arguments.device)
        device = pick_device(arguments.device, ranks.local_rank)
        clips = None
        if arguments.static_root:
            pairs = mix_static(find_static_pairs(arguments.static_root))
            clips = StaticClips(pairs, arguments.crop_size, arguments.num_frames)
        rows = measure_all(arguments, clips, device, ranks)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        leave_ranks()
    if not ranks.is_main:
        return 0
    print(
        f"{arguments.method} {arguments.size}, {arguments.crop_size} pixels, batch "
        f"{arguments.batch_size}, {device}, {ranks.world_size} processes, torch "
        f"{torch.__version__}"
    )
    print("step                    seconds / sample   samples / s   of plain   waiting for data")
    plain = rows[0]["seconds"]
    for row in rows:
        per_second = arguments.batch_size * ranks.world_size / row["seconds"]
        waiting = f"{100 * row['waiting']:.1f} %" if "waiting" in row else ""
        print(
            f"{row['name']:22}{row['seconds'] / arguments.batch_size:18.3f}{per_second:14.2f}"
            f"{row['seconds'] / plain:11.2f}{waiting:>19}"
        )
    if arguments.json:
        write_json(arguments.json, {"settings": vars(arguments), "rows": rows})
    return 0


def measure_all(
    arguments: argparse.Namespace, clips: StaticClips | None, device: torch.device, ranks: Ranks
) -> list[dict[str, Any]]:
    """Measure the steps of all kinds alternately, then steps on the samples of `clips`."""
    batch = make_batch(arguments)
    steps: dict[str, Callable[[], object]] = {
        "plain eager float32": plain_step(arguments, device, batch)
    }
    trainers = {}
    kinds = [(p, False) for p in arguments.precision]
    kinds += [(p, True) for p in arguments.precision if arguments.compile]
    for precision, is_compiled in kinds:
        dtype = pick_dtype(precision, device, use_half=device.type != "mps")
        name = str(dtype).removeprefix("torch.") + (", compiled" if is_compiled else "")
        settings = TrainSettings(
            id="bench", method=arguments.method, size=arguments.size,
            batch_size=arguments.batch_size, compile=is_compiled,
            frozen_layers=arguments.frozen_layers,
        )  # fmt: skip
        network = build_network(NetworkSpec(arguments.method, arguments.size))
        trainers[name] = Trainer(network, settings, {}, device, dtype, ranks)
        steps[name] = partial(trainers[name].step, *batch)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(arguments.iterations + 1):
        for name, step in steps.items():
            seconds = time_call(step, device)
            if number:  # the first step allocates memory and compiles
                times[name].append(seconds)
    rows: list[dict[str, Any]] = [
        {"name": name, "seconds": statistics.median(t)} for name, t in times.items()
    ]
    if clips is not None:
        rows += [measure_loading(arguments, clips, n, t, ranks) for n, t in trainers.items()]
    return rows


def make_batch(arguments: argparse.Namespace) -> Batch:
    """Make random images with two square objects."""
    size, frames = arguments.crop_size, arguments.num_frames
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 256, (arguments.batch_size, frames, 3, size, size), generator=generator
    ).to(torch.uint8)
    labels = torch.zeros(arguments.batch_size, frames, size, size, dtype=torch.uint8)
    labels[..., : size // 3, : size // 3] = 1
    labels[..., size // 2 :, size // 2 :] = 2
    return images, labels, torch.full((arguments.batch_size,), 2)


def plain_step(
    arguments: argparse.Namespace, device: torch.device, batch: Batch
) -> Callable[[], None]:
    """Make a step of a plain training loop."""
    network = build_network(NetworkSpec(arguments.method, arguments.size)).to(device).train()
    unroll = METHODS[arguments.method].unroll(network)
    optimizer = torch.optim.Adam(network.parameters(), 1e-5, weight_decay=1e-7)
    images, labels, num_objects = (t.to(device) for t in batch)

    def step() -> None:
        objects = torch.arange(1, 3, device=device)[None, :, None, None]
        masks = (labels[:, 0, None] == objects).float()
        outputs = unroll(network.normalise(images), masks, num_objects)
        losses = METHODS[arguments.method].loss(outputs, labels.long(), num_objects, 1.0)
        optimizer.zero_grad()
        losses["total_loss"].backward()
        optimizer.step()

    return step


def measure_loading(
    arguments: argparse.Namespace, clips: StaticClips, name: str, trainer: Trainer, ranks: Ranks
) -> dict[str, Any]:
    """Measure steps on samples from the loader, and the share of time spent waiting for data."""
    num_warm_up = 2
    keys = ClipBatches(
        len(clips), arguments.batch_size, range(arguments.iterations + num_warm_up), ranks.rank,
        ranks.world_size,
    )  # fmt: skip
    pin_memory = trainer.device.type == "cuda"
    waiting = computing = 0.0
    with load_samples(clips, keys, arguments.num_workers, pin_memory) as batches:
        for number in range(arguments.iterations + num_warm_up):
            start = time.perf_counter()
            sample = next(batches)
            loaded = time.perf_counter()
            step = partial(trainer.step, sample.images, sample.labels, sample.num_objects)
            seconds = time_call(step, trainer.device)
            if number >= num_warm_up:
                waiting += loaded - start
                computing += seconds
    total = waiting + computing
    return {
        "name": f"{name}, images",
        "seconds": total / arguments.iterations,
        "waiting": waiting / total,
    }


if __name__ == "__main__":
    sys.exit(main())
