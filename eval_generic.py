"""Segment your own videos: one video (--video, --mask), or a folder of them (--data_path).

--data_path holds frames in JPEGImages/<video>/ and, in Annotations/<video>/, a mask named like its
frame for each frame on which objects first appear.
"""

from __future__ import annotations

import sys
from pathlib import Path

from util.parse_settings import parse_eval

if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse_eval("generic")

from datasets.generic import check_direction, generic, one_video
from datasets.video import Video
from inference.predictor import Predictor
from inference.runner import run_eval
from inference_core_yv import InferenceCoreYV
from util.hyper_para import EvalSettings


def read_videos(settings: EvalSettings, failures: dict[str, str]) -> list[Video]:
    """Read the video of --video, or those of --data_path; invalid ones are added to `failures`."""
    side = settings.shorter_side
    if settings.video:
        videos = [one_video(Path(settings.video), Path(settings.mask), side)]
    else:
        videos, invalid = generic(Path(settings.data_path), side, settings.direction != "forwards")
        failures.update(invalid)
    check_direction(videos, settings.direction)
    return videos


def main(argv: list[str] | None = None) -> int:
    """Parse, build and run; return the exit status."""
    settings = parse_eval("generic", argv)
    failures: dict[str, str] = {}
    return run_eval(
        settings,
        lambda: read_videos(settings, failures),
        lambda: Predictor(settings, InferenceCoreYV),
        writes_statistics=True,
        failures=failures,
    )


if __name__ == "__main__":
    sys.exit(main())
