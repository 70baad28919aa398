"""Measure the time of a training sample on one core.

    python scripts/benchmarks/bench_data.py --static_root data/static
    python scripts/benchmarks/bench_data.py --davis_root data/DAVIS --davis_subset names.txt

Without data, the script draws synthetic data. The unit is `cv2.warpAffine` of a 481x321x3 uint8
image to 384x384, bicubic, in one thread. It is measured between the samples, so that both are
measured under the same load.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.shared.paths import output_file
from util.command_line import script_parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--static_root", type=Path, help="as for train.py")
    parser.add_argument("--davis_root", type=Path, help="as for train.py")
    parser.add_argument("--davis_subset", default="", help="as for train.py")
    parser.add_argument(
        "--crop_size", type=int, default=384, help="side of a crop in pixels (default: 384)"
    )
    parser.add_argument(
        "--num_frames", type=int, default=3, help="frames per training clip (default: 3)"
    )
    parser.add_argument(
        "--samples", type=int, default=200, help="samples to measure of each kind (default: 200)"
    )
    parser.add_argument(
        "--num_workers",
        type=int,
        default=1,
        help="worker processes of the loader, whose rate is given per worker (default: 1)",
    )
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="also write the results here"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import cv2
import numpy as np
import progressbar

from datasets.clips import TrainingClips
from datasets.loader import load_samples
from datasets.sampler import ClipBatches
from datasets.static import StaticClips, find_static_pairs, mix_static
from datasets.training_videos import JumpSchedule, VideoClips, VideoSet
from datasets.video_list import find_davis
from scripts import make_synthetic
from scripts.benchmarks.timing import time_call
from util.files import write_json

_SYNTHETIC = "--num_videos 4 --num_frames 30 --num_objects 3 --height 480 --width 854".split()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure static and video samples, print a table; return the exit status."""
    arguments = parse(argv)
    try:
        rows = measure_all(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("sample   units   ms (median)   samples / s, one core   by the loader   unit ms")
    for row in rows:
        print(
            f"{row['sample']:7}{row['units']:7.1f}{row['ms']:14.2f}{row['per_second']:24.1f}"
            f"{row['loaded']:16.1f}{row['unit_ms']:10.3f}"
        )
    if arguments.json:
        write_json(arguments.json, {"settings": vars(arguments), "rows": rows})
    return 0


def measure_all(arguments: argparse.Namespace) -> list[dict[str, float | str]]:
    """Measure static and video samples.

    Raises:
        ValueError, OSError: data is missing or cannot be read.
    """
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        synthetic = Path(folder)
        if arguments.davis_root is None or arguments.static_root is None:
            make_synthetic.main([folder, *_SYNTHETIC])
        static = find_static_pairs(arguments.static_root or synthetic / "static")
        videos = find_davis(arguments.davis_root or synthetic / "DAVIS", arguments.davis_subset)
        options = (arguments.crop_size, arguments.num_frames)
        jumps = JumpSchedule([25], [], 1)
        kinds: dict[str, TrainingClips] = {
            "static": StaticClips(mix_static(static), *options),
            "video": VideoClips([VideoSet("", videos)], jumps, *options),
        }
        rows = [measure(name, clips, arguments.samples) for name, clips in kinds.items()]
        for row, clips in zip(rows, kinds.values(), strict=True):
            row["loaded"] = measure_loader(clips, arguments.samples, arguments.num_workers)
    return rows


def measure(name: str, clips: TrainingClips, num_samples: int) -> dict[str, float | str]:
    """Measure the median times of a sample and of the unit, alternately."""
    image = np.random.default_rng(0).integers(0, 256, (321, 481, 3), dtype=np.uint8)
    rotation = cv2.getRotationMatrix2D((240, 160), 10, 1.1)

    def unit() -> None:
        cv2.warpAffine(image, rotation, (384, 384), flags=cv2.INTER_CUBIC)

    samples, units = [], []
    for index in progressbar.progressbar(range(num_samples)):
        samples.append(time_call(partial(clips.__getitem__, (0, index % len(clips)))))
        units.append(time_call(unit))
    ms, unit_ms = (1000 * float(np.median(times)) for times in (samples, units))
    mean = float(np.mean(samples))
    return {
        "sample": name,
        "ms": ms,
        "unit_ms": unit_ms,
        "units": ms / unit_ms,
        "per_second": 1 / mean,
    }


def measure_loader(clips: TrainingClips, num_samples: int, num_workers: int) -> float:
    """Samples per second and worker of the loader, collation and transfer included."""
    batch = 4
    num_warm_up = 2 * max(num_workers, 1)
    iterations = max(num_samples // batch, 1) + num_warm_up
    keys = ClipBatches(len(clips), batch, range(iterations))
    start = 0.0
    with load_samples(clips, keys, num_workers) as samples:
        for number, _ in enumerate(samples, 1):
            if number == num_warm_up:
                start = time.perf_counter()
        seconds = time.perf_counter() - start
    return batch * (iterations - num_warm_up) / seconds / max(num_workers, 1)


if __name__ == "__main__":
    sys.exit(main())
