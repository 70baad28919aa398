"""Read all images and masks of the training data, and list those that training cannot use.

The options are those of train.py. The exit status is 1 if a file cannot be used.

Example: python scripts/check_data.py --stage 03 --static_root data/static --davis_root data/DAVIS
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.command_line import add_fields, script_parser
from util.hyper_para import TrainSettings
from util.parse_settings import parse_train
from util.signals import INTERRUPTED

_OPTIONS = (
    "stage", "static_root", "static_share", "bl_root", "davis_root", "yv_root", "davis_subset",
    "yv_subset", "num_workers",
)  # fmt: skip


def parse(argv: Sequence[str] | None = None) -> list[TrainSettings]:
    """Parse the command line into the settings of each stage."""
    parser = script_parser(__doc__)
    fields = [f for f in dataclasses.fields(TrainSettings) if f.name in _OPTIONS]
    add_fields(parser, fields, TrainSettings)
    parser.parse_args(argv)
    options = sys.argv[1:] if argv is None else argv
    return parse_train(["--id", "check", *options], "check_data.py")


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import progressbar

from datasets.curriculum import find_data
from datasets.file_check import FileGroup, check_files, count_pairs, group_files

# Below this number of images, one process is faster than starting several.
_MIN_FOR_PROCESSES = 500


def check_all(groups: Sequence[FileGroup], num_workers: int) -> int:
    """Check all files with a progress bar; print a line for each bad one and return their number.

    Args:
        num_workers: number of processes; each checks one group at a time.
    """
    num_images = sum(count_pairs(group) for group in groups)
    widgets = [
        *(progressbar.Percentage(), " ", progressbar.Bar(), " ", progressbar.ETA(), " "),
        progressbar.FileTransferSpeed(unit="images", prefixes=("",)),
    ]
    with progressbar.ProgressBar(max_value=num_images, widgets=widgets) as bar:
        if num_workers <= 1 or num_images < _MIN_FOR_PROCESSES:
            return sum(_report(group, check_files(group), bar) for group in groups)
        # A process forked from one with threads may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(num_workers, len(groups)), context) as pool:
            futures = {pool.submit(check_files, group): group for group in groups}
            try:
                return sum(
                    _report(futures.pop(future), future.result(), bar)
                    for future in as_completed([*futures])
                )
            except BaseException:
                pool.shutdown(cancel_futures=True)  # the others can take hours
                raise


def _report(group: FileGroup, problems: Sequence[str], bar: progressbar.ProgressBar) -> int:
    if problems and sys.stderr.isatty():
        sys.stderr.write("\r\033[K")  # clears the bar, which its next update draws again
    for problem in problems:
        print(problem, flush=True)
    bar.increment(count_pairs(group))
    return len(problems)


def main(argv: Sequence[str] | None = None) -> int:
    """Check the files; return the exit status."""
    recipe = parse(argv)
    try:
        groups = group_files(find_data(recipe))
        num_bad = check_all(groups, recipe[0].num_workers)
    except (ValueError, OSError) as error:
        print(f"check_data.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    num_images = sum(count_pairs(group) for group in groups)
    print(f"{num_images} images with masks were read, {num_bad} problems were found.")
    return int(num_bad > 0)


if __name__ == "__main__":
    sys.exit(main())
