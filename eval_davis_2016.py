"""Segment DAVIS 2016 val: writes grey PNG masks (0 and 255) to --output."""

from __future__ import annotations

import sys
from pathlib import Path

from util.parse_settings import parse_eval

if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse_eval("davis_2016")

from datasets.davis import davis_2016
from inference.predictor import Predictor
from inference.runner import run_eval
from inference_core import InferenceCore


def main(argv: list[str] | None = None) -> int:
    """Parse, build and run; return the exit status."""
    settings = parse_eval("davis_2016", argv)
    return run_eval(
        settings,
        lambda: davis_2016(Path(settings.davis_path), settings.split, settings.shorter_side),
        lambda: Predictor(settings, InferenceCore),
    )


if __name__ == "__main__":
    sys.exit(main())
