"""Segment DAVIS 2016 val: grey PNG masks (0 and 255) into --output."""

from __future__ import annotations

import sys
from pathlib import Path

from datasets.davis import davis_2016
from datasets.video import Video
from inference.predictor import Predictor
from inference.runner import run_eval
from inference_core import InferenceCore
from util.hyper_para import EvalSettings
from util.parse_settings import parse_eval


def read_videos(settings: EvalSettings) -> list[Video]:
    """The videos of --davis_path and --split."""
    return davis_2016(Path(settings.davis_path), settings.split, settings.shorter_side)


def main(argv: list[str] | None = None) -> int:
    """Parse, build, run; returns the exit status."""
    settings = parse_eval("davis_2016", argv)
    return run_eval(
        settings,
        lambda: read_videos(settings),
        lambda: Predictor(settings, InferenceCore),
    )


if __name__ == "__main__":
    sys.exit(main())
