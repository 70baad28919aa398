"""Segment your own videos: one file or folder of frames (--video) with a mask of its first frame
(--mask); or many, with frames in <data_path>/JPEGImages/<video>/ and masks of the objects, on the
frames where they first appear, in <data_path>/Annotations/<video>/ under the frame's name."""

from __future__ import annotations

import sys
from pathlib import Path

from datasets.generic import check_direction, generic, one_video
from datasets.video import Video
from inference.predictor import Predictor
from inference.runner import run_eval
from inference_core_yv import InferenceCoreYV
from util.hyper_para import EvalSettings
from util.parse_settings import parse_eval


def read_videos(settings: EvalSettings) -> list[Video]:
    """The video of --video, or those of --data_path."""
    side = settings.shorter_side
    if settings.video:
        videos = [one_video(Path(settings.video), Path(settings.mask), side)]
    else:
        videos = generic(Path(settings.data_path), side, settings.direction != "forwards")
    check_direction(videos, settings.direction)
    return videos


def main(argv: list[str] | None = None) -> int:
    """Parse, build, run; returns the exit status."""
    settings = parse_eval("generic", argv)
    return run_eval(
        settings,
        lambda: read_videos(settings),
        lambda: Predictor(settings, InferenceCoreYV),
        writes_statistics=True,
    )


if __name__ == "__main__":
    sys.exit(main())
