"""Synthetic data on disk, in the layouts of the published data sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image

from datasets.synthetic import make_clip
from datasets.synthetic_scene import Clip
from util.files import atomic_path
from util.masks import DAVIS_PALETTE, write_mask

YOUTUBE_STEP = 5  # YouTube-VOS annotates every fifth frame
MIN_YOUTUBE_FRAMES = 2 * YOUTUBE_STEP + 1  # training needs three annotated frames of a video
STATIC_FLAT = ("DUTS-TR", "DUTS-TE", "ECSSD", "BIG_small", "HRSOD_small")
FSS_IMAGES_PER_CLASS = 2

Job = Callable[[], None]


class _MetaObject(TypedDict):
    category: str
    frames: list[str]


_Meta = dict[str, dict[str, dict[str, _MetaObject]]]  # of meta.json, by video name


@dataclass(frozen=True)
class Request:
    """Size and number of the clips of one layout, and its folder."""

    folder: Path  # receives the layout, for example OUT/DAVIS
    num_videos: int
    num_frames: int
    height: int
    width: int
    num_objects: int
    seed: tuple[int, int]  # seed of the command and number of the layout

    def clip(self, split: int, index: int, num_objects: int | None = None, late: int = 0) -> Clip:
        """Make a clip of a split; `late` of its objects enter on a later frame."""
        return make_clip(
            self.num_frames,
            self.height,
            self.width,
            num_objects or self.num_objects,
            seed=(*self.seed, split, index),
            late_objects=late,
        )


def davis_jobs(request: Request) -> list[Job]:
    """DAVIS 2017 trainval and test-dev, and DAVIS 2016; its lists are in the folder of 2017."""
    trainval = request.folder / "2017" / "trainval"
    test_dev = request.folder / "2017" / "test-dev"
    single = request.folder / "2016"
    jobs: list[Job] = []
    for split, name in enumerate(("train", "val")):
        names = [f"{name}-{index:03d}" for index in range(request.num_videos)]
        for index, video in enumerate(names):
            clip = partial(request.clip, split, index)
            jobs.append(partial(_write_davis_video, trainval, video, clip))
        jobs.append(partial(_write_list, trainval / "ImageSets" / "2017" / f"{name}.txt", names))

        names = [f"single-{name}-{index:03d}" for index in range(request.num_videos)]
        for index, video in enumerate(names):
            clip = partial(request.clip, 2 + split, index, num_objects=1)
            jobs.append(partial(_write_davis_video, single, video, clip, is_binary=True))
        jobs.append(partial(_write_list, trainval / "ImageSets" / "2016" / f"{name}.txt", names))

    names = [f"test-dev-{index:03d}" for index in range(request.num_videos)]
    for index, video in enumerate(names):
        clip = partial(request.clip, 4, index)
        jobs.append(partial(_write_davis_video, test_dev, video, clip, num_masks=1))
    jobs.append(partial(_write_list, test_dev / "ImageSets" / "2017" / "test-dev.txt", names))
    return jobs


def youtube_jobs(request: Request) -> list[Job]:
    """YouTube-VOS: train_480p, valid (masks of first appearances), all frames, and meta.json.

    Unlike the public sets, the folder of all frames also has their ground truth.

    Raises:
        ValueError: there are too few frames.
    """
    if request.num_frames < MIN_YOUTUBE_FRAMES:
        raise ValueError(
            f"The youtube layout keeps every fifth frame and needs at least {MIN_YOUTUBE_FRAMES} "
            f"frames; --num_frames is {request.num_frames}."
        )
    jobs: list[Job] = []
    train = request.folder / "train_480p"
    train_meta: _Meta = {}
    for index in range(request.num_videos):
        images, masks = (
            train / kind / f"train{index:05d}" for kind in ("JPEGImages", "Annotations")
        )
        clip = partial(request.clip, 0, index)
        jobs.append(partial(_write_video, clip, images, masks, step=YOUTUBE_STEP))
        first_frames = dict.fromkeys(range(1, request.num_objects + 1), 0)
        train_meta[images.name] = _describe_objects(request, first_frames)
    jobs.append(partial(_write_meta, train / "meta.json", train_meta))
    meta: _Meta = {}
    for index in range(request.num_videos):
        jobs.append(partial(_write_youtube_valid, request, index, meta))
    jobs.append(partial(_write_meta, request.folder / "valid" / "meta.json", meta))
    return jobs


def bl30k_jobs(request: Request) -> list[Job]:
    """BL30K: all frames are annotated."""
    return [
        partial(
            _write_video,
            partial(request.clip, 0, index),
            request.folder / "JPEGImages" / f"bl{index:05d}",
            request.folder / "Annotations" / f"bl{index:05d}",
        )
        for index in range(request.num_videos)
    ]


def generic_jobs(request: Request) -> list[Job]:
    """Your own videos: all frames, and masks of the frames on which objects first appear."""
    return [partial(_write_generic, request, index) for index in range(request.num_videos)]


def static_jobs(request: Request) -> list[Job]:
    """Static images with binary masks: FSS in one folder per class, the other sets flat."""
    stems = [
        request.folder / "FSS" / f"class{index:03d}" / str(number + 1)
        for index in range(request.num_videos)
        for number in range(FSS_IMAGES_PER_CLASS)
    ]
    for name in STATIC_FLAT:
        stems += [
            request.folder / name / f"image{index:04d}" for index in range(request.num_videos)
        ]
    return [partial(_write_static, request, index, stem) for index, stem in enumerate(stems)]


# Folder and jobs of each layout.
LAYOUTS: dict[str, tuple[str, Callable[[Request], list[Job]]]] = {
    "davis": ("DAVIS", davis_jobs),
    "youtube": ("YouTube", youtube_jobs),
    "bl30k": ("BL30K", bl30k_jobs),
    "static": ("static", static_jobs),
    "generic": ("generic", generic_jobs),
}


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image (H, W, 3) uint8 RGB as a JPEG of quality 95."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, quality=95)


def _write_video(
    make: Callable[[], Clip],
    image_folder: Path,
    mask_folder: Path,
    step: int = 1,
    num_masks: int | None = None,
    is_binary: bool = False,
) -> None:
    """Write every `step`-th frame, with masks of the first `num_masks` of them (None: all)."""
    for index, (image, labels) in enumerate(make()):
        if index % step:
            continue
        write_image(image_folder / f"{index:05d}.jpg", image)
        if num_masks is None or index < num_masks * step:
            mask_path = mask_folder / f"{index:05d}.png"
            if is_binary:
                write_mask(mask_path, _binary(labels), None)
            else:
                write_mask(mask_path, labels, DAVIS_PALETTE)


def _write_davis_video(
    root: Path,
    video: str,
    make: Callable[[], Clip],
    num_masks: int | None = None,
    is_binary: bool = False,
) -> None:
    images, masks = (root / kind / "480p" / video for kind in ("JPEGImages", "Annotations"))
    _write_video(make, images, masks, num_masks=num_masks, is_binary=is_binary)


def _write_youtube_valid(request: Request, index: int, meta: _Meta) -> None:
    """Write one video of valid and add it to `meta`; videos 0, 2, 4, ... have a late object."""
    video = f"valid{index:05d}"
    late = 1 - index % 2
    clip = request.clip(1, index, num_objects=max(request.num_objects, 1 + late), late=late)
    valid = request.folder / "valid"
    all_frames = request.folder / "all_frames" / "valid_all_frames"
    first_frames: dict[int, int] = {}
    for frame_index, (image, labels) in enumerate(clip):
        name = f"{frame_index:05d}"
        write_image(all_frames / "JPEGImages" / video / f"{name}.jpg", image)
        write_mask(all_frames / "Annotations" / video / f"{name}.png", labels, DAVIS_PALETTE)
        if frame_index % YOUTUBE_STEP:
            continue
        write_image(valid / "JPEGImages" / video / f"{name}.jpg", image)
        present = {int(label) for label in np.unique(labels)} - {0}
        new = sorted(present - first_frames.keys())
        if new:
            first_frames.update(dict.fromkeys(new, frame_index))
            only_new = np.where(np.isin(labels, new), labels, np.uint8(0))
            write_mask(valid / "Annotations" / video / f"{name}.png", only_new, DAVIS_PALETTE)
    meta[video] = _describe_objects(request, first_frames)


def _describe_objects(
    request: Request, first_frames: dict[int, int]
) -> dict[str, dict[str, _MetaObject]]:
    """Make the entry of a video in meta.json; all objects have the same category."""
    objects: dict[str, _MetaObject] = {
        str(label): {
            "category": "synthetic",
            "frames": [f"{n:05d}" for n in range(first, request.num_frames, YOUTUBE_STEP)],
        }
        for label, first in sorted(first_frames.items())
    }
    return {"objects": objects}


def _write_generic(request: Request, index: int) -> None:
    """Write one video; videos 0, 2, 4, ... have a late object if they are long enough."""
    late = 1 - index % 2 if request.num_frames >= MIN_YOUTUBE_FRAMES else 0
    clip = request.clip(0, index, num_objects=max(request.num_objects, 1 + late), late=late)
    images, masks = (
        request.folder / kind / f"video{index:03d}" for kind in ("JPEGImages", "Annotations")
    )
    known: set[int] = set()
    for frame_index, (image, labels) in enumerate(clip):
        write_image(images / f"{frame_index:05d}.jpg", image)
        new = {int(label) for label in np.unique(labels)} - {0} - known
        if new:
            known |= new
            only_new = np.where(np.isin(labels, [*new]), labels, np.uint8(0))
            write_mask(masks / f"{frame_index:05d}.png", only_new, DAVIS_PALETTE)


def _write_meta(path: Path, meta: _Meta) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"videos": meta}, indent=2) + "\n", encoding="utf-8")


def _write_static(request: Request, index: int, stem: Path) -> None:
    clip = make_clip(1, request.height, request.width, 1, seed=(*request.seed, index))
    image, labels = clip.frame(0)
    write_image(stem.with_name(stem.name + ".jpg"), image)
    write_mask(stem.with_name(stem.name + ".png"), _binary(labels), None)


def _write_list(path: Path, names: list[str]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _binary(labels: np.ndarray) -> np.ndarray:
    return np.where(labels > 0, np.uint8(255), np.uint8(0))
