"""train.py with an error in the middle of a run, for training_exits.py and for tests.

    python scripts/experiments/failing_train.py --accident worker --id NAME --stage 0 ...

All options but --accident are those of train.py. The error occurs in the last process of a
launcher.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from util.command_line import script_parser

# Iteration of an error in the main process; with 2 clips per iteration, a worker's comes there too.
_ITERATION = 3


def parse(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line; returns this script's options and those of train.py."""
    parser = script_parser(__doc__)
    parser.add_argument(
        "--accident",
        choices=("main", "worker"),
        default="main",
        help="where to raise an error: main, in the training process; worker, in a data loading "
        "process (default: main)",
    )
    return parser.parse_known_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import train
from datasets.clips import ClipSample
from datasets.static import StaticClips
from model.trainer import Trainer
from util.ranks import started_ranks
from util.signals import end_process


def main(argv: Sequence[str] | None = None) -> int:
    """Arrange the error and train; return the exit status."""
    arguments, options = parse(argv)
    ranks = started_ranks()
    if ranks.rank == ranks.world_size - 1:
        (_fail_in_main if arguments.accident == "main" else _fail_in_worker)()
    return train.main(options)


def _fail_in_main() -> None:
    step = Trainer.step

    def failing_step(self: Trainer, *args: Any, **options: Any) -> Any:
        if self.iteration == _ITERATION:
            raise RuntimeError(f"an error in process {os.getpid()}, which trains")
        return step(self, *args, **options)

    setattr(Trainer, "step", failing_step)  # noqa: B010, mypy refuses to assign to a method


def _fail_in_worker() -> None:
    read, num_read = StaticClips.__getitem__, 0

    def failing_read(self: StaticClips, key: tuple[int, int]) -> ClipSample:
        nonlocal num_read
        num_read += 1
        if num_read > 2 * _ITERATION:
            raise RuntimeError(f"an error in process {os.getpid()}, which loads data")
        return read(self, key)

    setattr(StaticClips, "__getitem__", failing_read)  # noqa: B010, see above


if __name__ == "__main__":
    end_process(main)
