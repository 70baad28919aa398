"""Reader of your own videos: frames, and masks of the frames on which objects first appear."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from datasets.video import ProblemsError, Video, check_numbering, make_videos, masks_by_frame
from datasets.video_file import VideoFile
from util.images import IMAGE_SUFFIXES, list_frames, list_images, natural_key


def generic(
    root: Path, shorter_side: int | None = None, takes_corrections: bool = False
) -> tuple[list[Video], dict[str, str]]:
    """Read all videos of a folder: root/JPEGImages/<video>/ and root/Annotations/<video>/.

    A mask has the same stem as its frame. Labels are arbitrary, and an object may appear on any
    frame. The output contains a mask of every frame.

    Args:
        root: the folder with JPEGImages and Annotations.
        shorter_side: shorter side of the segmented frames in pixels; None keeps the original size.
        takes_corrections: take all objects of every mask instead of new objects only.

    Returns:
        The videos; and for each invalid video, its name and its problems.

    Raises:
        FileNotFoundError: JPEGImages or Annotations is missing.
        ValueError: there is no video, or all are invalid; the message lists the problems.
    """
    frames, masks = root / "JPEGImages", root / "Annotations"
    for folder in (frames, masks):
        if not folder.is_dir():
            raise FileNotFoundError(
                f"the folder {folder} does not exist: put the frames in JPEGImages/<video>/ and "
                "the masks in Annotations/<video>/"
            )
    names = sorted(
        (path.name for path in frames.iterdir() if path.is_dir() and path.name[0] != "."),
        key=natural_key,
    )
    if not names:
        raise ValueError(
            f"{frames} contains no video: make a folder for each video there, with its frames"
        )
    results = make_videos(
        partial(generic_video, frames / name, masks / name, name, shorter_side, takes_corrections)
        for name in names
    )
    videos = [result for result in results if isinstance(result, Video)]
    errors = {
        name: result
        for name, result in zip(names, results, strict=True)
        if isinstance(result, ProblemsError)
    }
    if not videos:
        raise ProblemsError([problem for error in errors.values() for problem in error.problems])
    return videos, {name: str(error) for name, error in errors.items()}


def one_video(video: Path, mask: Path, shorter_side: int | None = None) -> Video:
    """Read one video with its masks.

    Args:
        video: a video file, or a folder of frames.
        mask: a mask file of the first frame; or a folder of masks, in which later masks correct the
            objects that they contain.
        shorter_side: shorter side of the segmented frames in pixels; None keeps the original size.

    Raises:
        FileNotFoundError, ValueError: see `generic_video` and `VideoFile`.
    """
    if not video.exists():
        raise FileNotFoundError(
            f"the video {video} does not exist: give a video file or a folder of frames"
        )
    if video.is_file() and video.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"{video} is an image, not a video: give the folder of the frames")
    if video.is_dir():
        return generic_video(video, mask, None, shorter_side, takes_corrections=True)
    return VideoFile(video, mask, shorter_side)


def check_direction(videos: Sequence[Video], direction: str) -> None:
    """Check that the masks allow a direction of propagation.

    Args:
        videos: the videos to segment.
        direction: "forwards", "backwards" or "both".

    Raises:
        ValueError: for "backwards", a video is annotated on its first frame only; for "both", all
            videos are.
    """
    forwards_only = [video.name for video in videos if max(video.annotated_labels) == 0]
    if direction == "backwards" and forwards_only:
        raise ValueError(
            f"video {forwards_only[0]} has only a mask of its first frame, so there is no frame to "
            "segment backwards: add a mask of a later frame, or use --direction forwards"
        )
    if direction == "both" and len(forwards_only) == len(videos):
        raise ValueError(
            "all masks belong to first frames, so there is no frame to segment backwards: add "
            "masks of later frames, or leave out --direction both"
        )


def generic_video(
    frames: Path,
    masks: Path,
    name: str | None = None,
    shorter_side: int | None = None,
    takes_corrections: bool = False,
) -> Video:
    """Read one video from a folder of frames.

    Args:
        frames: folder of the frames in natural order; their numbers may have any constant step.
        masks: folder of masks named like their frames; or a mask file of the first frame, with any
            name.
        name: name of the video; None takes the name of the folder `frames`.
        shorter_side: shorter side of the segmented frames in pixels; None keeps the original size.
        takes_corrections: take all objects of every mask instead of new objects only.

    Raises:
        FileNotFoundError: `frames` or `masks` does not exist.
        ValueError: there is no frame or no mask, a frame is missing, or a mask is invalid.
    """
    # `abspath` also resolves "." to a name.
    name = name or os.path.basename(os.path.abspath(frames))
    frame_paths = list_frames(frames)
    check_numbering(frame_paths)
    if not masks.exists():
        raise FileNotFoundError(
            f"video {name} has no mask: {masks} does not exist; add masks of the frames on which "
            "objects first appear"
        )
    by_frame = {0: masks} if masks.is_file() else masks_by_frame(frame_paths, list_images(masks))
    return Video(
        name,
        frame_paths,
        by_frame,
        shorter_side=shorter_side,
        takes_corrections=takes_corrections,
    )
