"""Segment DAVIS 2017 (--split val or test-dev): writes palette PNG masks to --output."""

from __future__ import annotations

import sys
from pathlib import Path

from util.parse_settings import parse_eval

if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse_eval("davis")

from datasets.davis import davis_2017
from inference.predictor import Predictor
from inference.runner import run_eval
from inference_core import InferenceCore


def main(argv: list[str] | None = None) -> int:
    """Parse, build and run; return the exit status."""
    settings = parse_eval("davis", argv)
    return run_eval(
        settings,
        lambda: davis_2017(
            Path(settings.davis_path), settings.split, shorter_side=settings.shorter_side
        ),
        lambda: Predictor(settings, InferenceCore),
    )


if __name__ == "__main__":
    sys.exit(main())
