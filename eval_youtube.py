"""Segment YouTube-VOS 2018 or 2019 (--yv_path): writes palette PNG masks to --output."""

from __future__ import annotations

import sys
from pathlib import Path

from util.parse_settings import parse_eval

if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse_eval("youtube")

from datasets.youtube import youtube
from inference.predictor import Predictor
from inference.runner import run_eval
from inference_core_yv import InferenceCoreYV


def main(argv: list[str] | None = None) -> int:
    """Parse, build and run; return the exit status."""
    settings = parse_eval("youtube", argv)
    return run_eval(
        settings,
        lambda: youtube(Path(settings.yv_path), settings.split, settings.shorter_side),
        lambda: Predictor(settings, InferenceCoreYV),
    )


if __name__ == "__main__":
    sys.exit(main())
