"""Anyone's own videos: folders of frames, and masks of the frames on which objects appear."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from datasets.video import Video, check_numbering, load_videos, masks_by_frame
from datasets.video_file import VideoFile
from util.images import IMAGE_SUFFIXES, list_frames, list_images, natural_key


def generic(
    root: Path, shorter_side: int | None = None, takes_corrections: bool = False
) -> list[Video]:
    """The videos of a folder: root/JPEGImages/<video>/ and root/Annotations/<video>/.

    A mask has the stem of its frame and any labels; an object may appear on any frame. A mask is
    wanted of every frame.

    Args:
        root: the folder that holds JPEGImages and Annotations.
        shorter_side: of the frames as they are segmented; None: as they are.
        takes_corrections: take all objects from all masks, not only new ones.

    Raises:
        FileNotFoundError: JPEGImages or Annotations is missing.
        ValueError: there is no video, or all that is wrong with the videos.
    """
    frames, masks = root / "JPEGImages", root / "Annotations"
    for folder in (frames, masks):
        if not folder.is_dir():
            raise FileNotFoundError(
                f"the folder {folder} does not exist: a folder of videos holds "
                "JPEGImages/<video>/ with frames and Annotations/<video>/ with masks"
            )
    names = sorted(
        (path.name for path in frames.iterdir() if path.is_dir() and path.name[0] != "."),
        key=natural_key,
    )
    if not names:
        raise ValueError(f"{frames} holds no video: put the frames of each into a folder there")
    return load_videos(
        partial(generic_video, frames / name, masks / name, name, shorter_side, takes_corrections)
        for name in names
    )


def one_video(video: Path, mask: Path, shorter_side: int | None = None) -> Video:
    """A video file or a folder of frames, with a mask of its first frame or a folder of masks, of
    which later ones correct the objects that are in them.

    Raises:
        FileNotFoundError, ValueError: as `generic_video` and `VideoFile`.
    """
    if not video.exists():
        raise FileNotFoundError(f"there is no video {video}: give a file or a folder of frames")
    if video.is_file() and video.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"{video} is one image, no video: give the folder that holds the frames")
    if video.is_dir():
        return generic_video(video, mask, None, shorter_side, takes_corrections=True)
    return VideoFile(video, mask, shorter_side)


def check_direction(videos: Sequence[Video], direction: str) -> None:
    """Refuse to go backwards where no mask lies behind the first frame.

    Raises:
        ValueError: a video would come out empty, or no video otherwise than forwards.
    """
    forwards_only = [video.name for video in videos if max(video.annotated_labels) == 0]
    if direction == "backwards" and forwards_only:
        raise ValueError(
            f"video {forwards_only[0]} has a mask of its first frame alone, and backwards there is "
            "nothing before that: give a folder with a mask of a later frame"
        )
    if direction == "both" and len(forwards_only) == len(videos):
        raise ValueError(
            "all masks are of first frames, from which there is only one way, forwards: give masks "
            "of later frames too, or leave out --direction both"
        )


def generic_video(
    frames: Path,
    masks: Path,
    name: str | None = None,
    shorter_side: int | None = None,
    takes_corrections: bool = False,
) -> Video:
    """One video: a folder of frames, and a folder of masks or one mask file of the first frame.

    Args:
        frames: folder of the frames, in natural order; numbers may have any constant step.
        masks: folder of masks named like their frames; or a mask file of any name.
        name: of the video; None: the name of the frames folder.
        shorter_side: of the frames as they are segmented; None: as they are.
        takes_corrections: take all objects from all masks, not only new ones.

    Raises:
        FileNotFoundError: `frames` or `masks` does not exist.
        ValueError: there is no frame or no mask, a frame is missing, or a mask is not fit.
    """
    # `abspath` gives a name to "." too.
    name = name or os.path.basename(os.path.abspath(frames))
    frame_paths = list_frames(frames)
    check_numbering(frame_paths)
    if not masks.exists():
        raise FileNotFoundError(
            f"video {name} has no mask: expected {masks}, with a mask of each frame "
            "on which objects appear"
        )
    by_frame = {0: masks} if masks.is_file() else masks_by_frame(frame_paths, list_images(masks))
    return Video(
        name,
        frame_paths,
        by_frame,
        shorter_side=shorter_side,
        takes_corrections=takes_corrections,
    )
