"""Segment your own videos: frames in <data_path>/JPEGImages/<video>/, masks of the objects, on
the frames where they first appear, in <data_path>/Annotations/<video>/ under the frame's name."""

from __future__ import annotations

import sys
from pathlib import Path

from datasets.generic import generic
from inference_core import Sessions
from inference_core_yv import InferenceCoreYV
from util.eval_runner import run_eval
from util.parse_settings import parse_eval


def main(argv: list[str] | None = None) -> int:
    """Parse, build, run; returns the exit status."""
    settings = parse_eval("generic", argv)
    return run_eval(
        settings,
        lambda: generic(Path(settings.data_path), settings.size or None),
        lambda: Sessions(settings, InferenceCoreYV),
    )


if __name__ == "__main__":
    sys.exit(main())
