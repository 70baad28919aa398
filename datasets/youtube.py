"""The YouTube-VOS benchmark: objects appear on any frame, masks are wanted of every fifth.

Xu et al., YouTube-VOS: Sequence-to-Sequence Video Object Segmentation, ECCV 2018.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from datasets.video import Video, load_videos, masks_by_frame
from util.images import list_frames, list_images

SPLITS = ("valid", "test")


def youtube(root: Path, split: str = "valid", shorter_side: int | None = 480) -> list[Video]:
    """The videos of a split of YouTube-VOS, with all their frames.

    Frames come from root/all_frames/<split>_all_frames/JPEGImages, masks from
    root/<split>/Annotations, and required are the frames that root/<split>/meta.json names for any
    object. Frame numbers may have gaps, but required and annotated frames must exist.

    Args:
        root: the folder of one year's benchmark, such as YouTube or YouTube2018.
        split: "valid" or "test".
        shorter_side: of the frames as they are segmented; masks are written at their own size.

    Raises:
        FileNotFoundError: a folder or meta.json is not where it is expected.
        ValueError: meta.json is not what it should be, or all that is wrong with the videos.
    """
    if split not in SPLITS:
        raise ValueError(
            f"there is no split {split} of YouTube-VOS to segment: choose from {', '.join(SPLITS)}"
        )
    all_frames = root / "all_frames" / f"{split}_all_frames" / "JPEGImages"
    if not all_frames.is_dir():
        raise FileNotFoundError(
            f"the folder {all_frames} does not exist: YouTube-VOS is evaluated on all frames, "
            f"which are a download of their own ({split}_all_frames.zip); get it with "
            "scripts/download_datasets.py or from the YouTube-VOS site, and unpack it to "
            f"{root / 'all_frames'}"
        )
    annotations = root / split / "Annotations"
    if not annotations.is_dir():
        raise FileNotFoundError(
            f"the folder {annotations} with the masks does not exist: "
            f"unpack {split}.zip of YouTube-VOS to {root}"
        )
    videos = read_meta(root / split / "meta.json")
    return load_videos(
        partial(_make, name, all_frames / name, annotations / name, objects, shorter_side)
        for name, objects in sorted(videos.items())
    )


class MetaObject(NamedTuple):
    """What meta.json says of an object."""

    frames: frozenset[str]  # names of those that it is evaluated on
    category: str  # empty where it tells none


def read_meta(meta_path: Path) -> dict[str, dict[str, MetaObject]]:
    """The objects of each video that a meta.json names, by their labels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not what it should be.
    """
    if not meta_path.is_file():
        raise FileNotFoundError(
            f"{meta_path} does not exist: it names the frames to segment and comes with the "
            "YouTube-VOS download"
        )
    try:
        videos = {
            video: {
                label: MetaObject(
                    frozenset(map(str, item["frames"])), str(item.get("category", ""))
                )
                for label, item in entry["objects"].items()
            }
            for video, entry in json.loads(meta_path.read_text())["videos"].items()
        }
    # A JSONDecodeError is a ValueError.
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{meta_path} is not a meta.json of YouTube-VOS "
            f"(videos, objects, frames; {error!r}): download it again"
        ) from error
    if not videos:
        raise ValueError(f"{meta_path} names no video: download it again")
    return videos


def _make(
    name: str,
    frames_folder: Path,
    masks_folder: Path,
    objects: Mapping[str, MetaObject],
    shorter_side: int | None,
) -> Video:
    frames = list_frames(frames_folder)
    if not masks_folder.is_dir():
        raise FileNotFoundError(f"video {name} has no masks: the folder {masks_folder} is missing")
    masks = masks_by_frame(frames, list_images(masks_folder))
    required = {frame for item in objects.values() for frame in item.frames}
    video = Video(name, frames, masks, required=required, shorter_side=shorter_side)
    absent = sorted(objects.keys() - {str(label) for label in video.labels})
    if absent:
        warnings.warn(
            f"video {name}: meta.json names object {', '.join(absent)}, which no mask in "
            f"{masks_folder} shows; without its first mask it cannot be segmented",
            stacklevel=2,
        )
    return video
