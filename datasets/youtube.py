"""Reader of YouTube-VOS: objects appear on any frame, every fifth frame is evaluated.

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
from util.files import is_name
from util.images import list_frames, list_images

SPLITS = ("valid", "test")


def youtube(root: Path, split: str = "valid", shorter_side: int | None = 480) -> list[Video]:
    """Read the videos of a split of YouTube-VOS, with all their frames.

    Frames are read from root/all_frames/<split>_all_frames/JPEGImages, masks from
    root/<split>/Annotations. The output needs masks of the frames that root/<split>/meta.json lists
    for any object. Frame numbers may have gaps, but required and annotated frames must exist.

    Args:
        root: the folder of one edition, for example YouTube or YouTube2018.
        split: "valid" or "test".
        shorter_side: shorter side of the segmented frames in pixels; None keeps the original size.
            Written masks always have the original size.

    Raises:
        FileNotFoundError: a folder or meta.json is missing.
        ValueError: the split is unknown, meta.json is malformed, or videos are invalid; the message
            lists the problems of all videos.
    """
    if split not in SPLITS:
        raise ValueError(
            f"YouTube-VOS has no split {split} to segment: choose from {', '.join(SPLITS)}"
        )
    all_frames = root / "all_frames" / f"{split}_all_frames" / "JPEGImages"
    if not all_frames.is_dir():
        raise FileNotFoundError(
            f"the folder {all_frames} does not exist: YouTube-VOS is segmented with all frames, "
            f"which are a separate download ({split}_all_frames.zip); get it with "
            "scripts/download_datasets.py or from the YouTube-VOS site, and unpack it to "
            f"{root / 'all_frames'}"
        )
    annotations = root / split / "Annotations"
    if not annotations.is_dir():
        raise FileNotFoundError(
            f"the folder of masks {annotations} does not exist: "
            f"unpack {split}.zip of YouTube-VOS to {root}"
        )
    videos = read_meta(root / split / "meta.json")
    return load_videos(
        partial(_make, name, all_frames / name, annotations / name, objects, shorter_side)
        for name, objects in sorted(videos.items())
    )


class MetaObject(NamedTuple):
    """Entry of one object in meta.json."""

    frames: frozenset[str]  # names of the frames on which the object is evaluated
    category: str  # empty if meta.json has none


def read_meta(meta_path: Path) -> dict[str, dict[str, MetaObject]]:
    """Read the objects of a meta.json, by video name and label.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is malformed or lists no video.
    """
    if not meta_path.is_file():
        raise FileNotFoundError(
            f"{meta_path} does not exist: copy it from the YouTube-VOS download; it lists the "
            "frames to segment"
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
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{meta_path} is not a meta.json of YouTube-VOS with videos, objects and frames "
            f"({error!r}): download it again"
        ) from error
    wrong = [name for name in videos if not is_name(name)]
    if wrong:
        raise ValueError(
            f"{meta_path} lists the video {wrong[0][:80]!r}, which is not the name of a folder: "
            "download it again"
        )
    if not videos:
        raise ValueError(f"{meta_path} lists no video: download it again")
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
        raise FileNotFoundError(
            f"video {name} has no masks: the folder {masks_folder} is missing; download it again"
        )
    masks = masks_by_frame(frames, list_images(masks_folder))
    required = {frame for item in objects.values() for frame in item.frames}
    video = Video(name, frames, masks, required=required, shorter_side=shorter_side)
    absent = sorted(objects.keys() - {str(label) for label in video.labels})
    if absent:
        warnings.warn(
            f"video {name}: meta.json lists object {', '.join(absent)}, but no mask in "
            f"{masks_folder} contains it; it cannot be segmented without a first mask",
            stacklevel=2,
        )
    return video
