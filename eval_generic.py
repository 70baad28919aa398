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


def read_videos(settings: EvalSettings) -> list[Video]:
    """Read the video of --video, or those of --data_path."""
    side = settings.shorter_side
    if settings.video:
        videos = [one_video(Path(settings.video), Path(settings.mask), side)]
    else:
        videos = generic(Path(settings.data_path), side, settings.direction != "forwards")
    check_direction(videos, settings.direction)
    return videos


def main(argv: list[str] | None = None) -> int:
    """Parse, build and run; return the exit status."""
    settings = parse_eval("generic", argv)
    return run_eval(
        settings,
        lambda: read_videos(settings),
        lambda: Predictor(settings, InferenceCoreYV),
        writes_statistics=True,
    )


if __name__ == "__main__":
    sys.exit(main())
