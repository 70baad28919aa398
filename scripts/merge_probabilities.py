"""Average the probabilities of several runs, and write the masks of the average.

    python eval_davis.py --model A.pth --output out/a --save_probabilities
    python eval_davis.py --model B.pth --output out/b --save_probabilities --size 600 --flip
    python scripts/merge_probabilities.py --results_path out/a out/b --output out/ab

Runs may differ in checkpoint, method or size, but must have the same videos and frames. The files
store probabilities in steps of 1/255. To average scales and flips of one checkpoint, use --scales
and --flip of the eval scripts instead.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.command_line import script_parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument(
        "--results_path",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="output folders of eval scripts with --save_probabilities",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the merged masks")
    parser.add_argument(
        "--weights", type=float, nargs="+", help="weight of each run (default: equal weights)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import numpy as np
import progressbar
import torch

from inference.labels import resize_prob
from inference.probability_files import PROBABILITIES, FrameProbabilities, read_probabilities
from inference.run_file import RUN_FILE, read_run_file
from util.files import write_json
from util.images import image_size, load_image
from util.masks import write_mask

# A 4K frame takes 33 MB for each object, and each worker stores two groups of objects.
OBJECTS_AT_ONCE = 4
MAX_WORKERS = 4
PARTIAL = ".partial"  # folder in --output for the masks of an unfinished run


def main(argv: Sequence[str] | None = None) -> int:
    """Check and merge all runs; return the exit status: 0, or 2 for wrong input."""
    arguments = parse(argv)
    runs = arguments.results_path
    weights = arguments.weights or [1.0] * len(runs)
    try:
        is_valid = all(weight >= 0 for weight in weights) and 0 < sum(weights) < math.inf
        if len(weights) != len(runs) or not is_valid:
            raise ValueError(
                f"There are {len(runs)} runs and the --weights {weights}: give one weight per run, "
                "finite, not negative and not all 0."
            )
        existing = arguments.output.iterdir() if arguments.output.exists() else ()
        if any(path.name != PARTIAL for path in existing):
            raise ValueError(f"{arguments.output} is not empty: choose another --output.")
        videos = find_videos(runs)
        merge(runs, weights, videos, arguments.output)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Merged {len(videos)} videos of {len(runs)} runs into {arguments.output}.")
    return 0


def find_videos(runs: Sequence[Path]) -> dict[str, list[str]]:
    """Map each video to its frames with probabilities, which are the same in all runs.

    Raises:
        ValueError: a run has no probabilities, or runs differ in videos, frames or mask sizes.
    """
    first, *others = [_list_frames(run) for run in runs]
    for run, videos in zip(runs[1:], others, strict=True):
        for name in sorted({*videos} ^ {*first}):
            lacking, having = (run, runs[0]) if name in first else (runs[0], run)
            raise ValueError(
                f"{lacking} has no probabilities of video {name}, which {having} has: run both on "
                "the same videos with --save_probabilities."
            )
        for name, frames in first.items():
            unpaired = sorted({*frames} ^ {*videos[name]})
            if unpaired:
                lacking = run if unpaired[0] in frames else runs[0]
                raise ValueError(
                    f"{lacking / name / PROBABILITIES} lacks frame {unpaired[0]}, which the other "
                    f"run has ({len(unpaired)} such frames): run both with the same --output_all."
                )
            sizes = [image_size(folder / name / f"{frames[0]}.png") for folder in (runs[0], run)]
            if sizes[0] != sizes[1]:
                (height, width), (other_height, other_width) = sizes
                raise ValueError(
                    f"Video {name} has {width}x{height} pixels in {runs[0]} but {other_width}x"
                    f"{other_height} in {run}, so two videos have the same name: give runs of the "
                    "same videos."
                )
    return first


def _list_frames(run: Path) -> dict[str, list[str]]:
    """Map the videos of one run to their frames with probabilities."""
    if not run.is_dir():
        raise ValueError(f"There is no folder {run}: give the --output of an eval script.")
    videos = {
        folder.parent.name: frames
        for folder in sorted(run.glob(f"*/{PROBABILITIES}"))
        # Interrupted runs leave incomplete videos in hidden folders.
        if folder.parent.name[0] != "."
        and (frames := sorted(path.stem for path in folder.glob("[!.]*.npz")))
    }
    if not videos:
        raise ValueError(
            f"{run} has no probabilities (<video>/{PROBABILITIES}/<frame>.npz): run the eval "
            "script with --save_probabilities."
        )
    return videos


def merge(
    runs: Sequence[Path],
    weights: Sequence[float],
    videos: dict[str, list[str]],
    output: Path,
) -> None:
    """Write the merged masks of all videos into a hidden folder of `output`, then move them out.

    Args:
        runs: output folders with probabilities.
        weights: one per run, of any sum.
        videos: see `find_videos`.
        output: a folder that is empty, except for the hidden folder, or does not exist.
    """
    records = [read_run_file(run / RUN_FILE).runs[-1:] for run in runs]
    shares = [weight / sum(weights) for weight in weights]
    is_new = not output.exists()
    partial = output / PARTIAL  # in `output`, which may be a link or another disk
    shutil.rmtree(partial, ignore_errors=True)

    def merge_one(name: str, frame: str) -> None:
        parts = [read_probabilities(run / name / PROBABILITIES / f"{frame}.npz") for run in runs]
        first = load_image(runs[0] / name / f"{frame}.png", "mask")
        colours = first.getpalette("RGB")
        palette = None if colours is None else bytes(colours)
        try:
            labels = merge_frame(parts, shares, (first.height, first.width))
        except ValueError as error:
            raise ValueError(f"Frame {frame} of video {name}: {error}") from error
        write_mask(partial / name / f"{frame}.png", labels, palette)

    tasks = [(name, frame) for name, frames in videos.items() for frame in frames]
    try:
        for name in videos:
            (partial / name).mkdir(parents=True)
        with (
            progressbar.ProgressBar(max_value=len(tasks)) as bar,
            ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_WORKERS)) as pool,
        ):
            for _ in pool.map(lambda args: merge_one(*args), tasks):
                bar.increment()
        write_json(
            partial / "merged.json",
            {"runs": [*map(str, runs)], "weights": shares, "records": records},
        )
    except BaseException:
        shutil.rmtree(output if is_new else partial, ignore_errors=True)
        raise
    for path in [*partial.iterdir()]:
        path.rename(output / path.name)
    partial.rmdir()


def merge_frame(
    parts: Sequence[FrameProbabilities], shares: Sequence[float], size: tuple[int, int]
) -> np.ndarray:
    """Average the probabilities of one frame and return the most probable labels, (H, W) uint8.

    Args:
        parts: probabilities of each run, of any sizes; resized to `size`.
        shares: weight of each run; their sum is 1.
        size: (H, W).

    Raises:
        ValueError: the runs have different objects.
    """
    labels = parts[0].labels
    for part in parts[1:]:
        if sorted(part.labels) != sorted(labels):
            raise ValueError(
                f"one run has the objects {labels}, another one {part.labels}: run both with the "
                "same annotations."
            )
    channels = [(0, *labels), *((0, *part.labels) for part in parts[1:])]
    highest = torch.full(size, -1.0)
    winners = torch.zeros(size, dtype=torch.uint8)
    for values in torch.tensor(channels[0], dtype=torch.uint8).split(OBJECTS_AT_ONCE):
        total = torch.zeros(len(values), *size)
        for part, own, share in zip(parts, channels, shares, strict=True):
            prob = torch.from_numpy(part.prob[[own.index(value) for value in values.tolist()]])
            total.add_(resize_prob(prob.float(), size), alpha=share)
        best, at = total.max(0)
        winners = torch.where(best > highest, values[at], winners)
        highest = torch.maximum(highest, best)
    return winners.numpy()


if __name__ == "__main__":
    sys.exit(main())
