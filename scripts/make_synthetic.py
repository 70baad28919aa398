"""Write synthetic videos and images in the layouts of the published datasets.

Example: python scripts/make_synthetic.py data_synthetic --num_videos 4 --num_frames 30
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import progressbar
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.synthetic import Clip, make_clip
from util.files import atomic_path
from util.masks import DAVIS_PALETTE, write_mask

YOUTUBE_STEP = 5  # YouTube-VOS annotates every fifth frame
MIN_YOUTUBE_FRAMES = 2 * YOUTUBE_STEP + 1  # training wants three annotated frames of a video
STATIC_FLAT = ("DUTS-TR", "DUTS-TE", "ECSSD", "BIG_small", "HRSOD_small")
FSS_IMAGES_PER_CLASS = 2

Job = Callable[[], None]


@dataclass(frozen=True)
class Request:
    """What to draw; `folder` is where the layout goes (OUT/DAVIS, OUT/YouTube, ...)."""

    folder: Path
    num_videos: int
    num_frames: int
    height: int
    width: int
    num_objects: int
    seed: tuple[int, int]  # the user's seed and the layout's number

    def clip(self, split: int, index: int, num_objects: int | None = None, late: int = 0) -> Clip:
        return make_clip(
            self.num_frames,
            self.height,
            self.width,
            num_objects or self.num_objects,
            seed=(*self.seed, split, index),
            late_objects=late,
        )


def davis_jobs(request: Request) -> list[Job]:
    """DAVIS 2017 trainval and test-dev, and DAVIS 2016 with its lists beside those of 2017."""
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
    """YouTube-VOS: train_480p, valid (first appearances only, meta.json), and all frames."""
    if request.num_frames < MIN_YOUTUBE_FRAMES:
        raise ValueError(
            f"The youtube layout keeps every fifth frame and needs at least {MIN_YOUTUBE_FRAMES} "
            f"frames; --num_frames is {request.num_frames}."
        )
    jobs: list[Job] = []
    train = request.folder / "train_480p"
    for index in range(request.num_videos):
        images, masks = (
            train / kind / f"train{index:05d}" for kind in ("JPEGImages", "Annotations")
        )
        clip = partial(request.clip, 0, index)
        jobs.append(partial(_write_video, clip, images, masks, step=YOUTUBE_STEP))
    meta: dict[str, dict] = {}
    for index in range(request.num_videos):
        jobs.append(partial(_write_youtube_valid, request, index, meta))
    jobs.append(partial(_write_meta, request.folder / "valid" / "meta.json", meta))
    return jobs


def bl30k_jobs(request: Request) -> list[Job]:
    """BL30K: every frame annotated."""
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
    """Videos of one's own: every frame, and masks where objects first appear, on any frame."""
    return [partial(_write_generic, request, index) for index in range(request.num_videos)]


def static_jobs(request: Request) -> list[Job]:
    """Single images with binary masks: FSS in class folders, the other sets flat."""
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


LAYOUTS: dict[str, tuple[str, Callable[[Request], list[Job]]]] = {
    "davis": ("DAVIS", davis_jobs),
    "youtube": ("YouTube", youtube_jobs),
    "bl30k": ("BL30K", bl30k_jobs),
    "static": ("static", static_jobs),
    "generic": ("generic", generic_jobs),
}


def write_image(path: Path, image: np.ndarray) -> None:
    """image: (H, W, 3) uint8 RGB, written as a JPEG of quality 95."""
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
    """Write every `step`-th frame, with masks on the first `num_masks` of them (None: all)."""
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


def _write_youtube_valid(request: Request, index: int, meta: dict[str, dict]) -> None:
    """Every other video, from the first on, has an object that enters later."""
    video = f"valid{index:05d}"
    late = 1 - index % 2
    clip = request.clip(1, index, num_objects=max(request.num_objects, 1 + late), late=late)
    valid = request.folder / "valid"
    every_frame = request.folder / "all_frames" / "valid_all_frames" / "JPEGImages" / video
    first_frames: dict[int, int] = {}
    for frame_index, (image, labels) in enumerate(clip):
        name = f"{frame_index:05d}"
        write_image(every_frame / f"{name}.jpg", image)
        if frame_index % YOUTUBE_STEP:
            continue
        write_image(valid / "JPEGImages" / video / f"{name}.jpg", image)
        present = {int(label) for label in np.unique(labels)} - {0}
        new = sorted(present - first_frames.keys())
        if new:
            first_frames.update(dict.fromkeys(new, frame_index))
            only_new = np.where(np.isin(labels, new), labels, np.uint8(0))
            write_mask(valid / "Annotations" / video / f"{name}.png", only_new, DAVIS_PALETTE)
    objects = {
        str(label): {
            "category": "synthetic",
            "frames": [f"{n:05d}" for n in range(first, request.num_frames, YOUTUBE_STEP)],
        }
        for label, first in sorted(first_frames.items())
    }
    meta[video] = {"objects": objects}


def _write_generic(request: Request, index: int) -> None:
    """As `_write_youtube_valid`, with a late object in every other video."""
    late = 1 - index % 2 if request.num_frames >= MIN_YOUTUBE_FRAMES else 0
    clip = request.clip(0, index, num_objects=max(request.num_objects, 1 + late), late=late)
    images, masks = (
        request.folder / kind / f"video{index:03d}" for kind in ("JPEGImages", "Annotations")
    )
    seen: set[int] = set()
    for frame_index, (image, labels) in enumerate(clip):
        write_image(images / f"{frame_index:05d}.jpg", image)
        new = {int(label) for label in np.unique(labels)} - {0} - seen
        if new:
            seen |= new
            only_new = np.where(np.isin(labels, [*new]), labels, np.uint8(0))
            write_mask(masks / f"{frame_index:05d}.png", only_new, DAVIS_PALETTE)


def _write_meta(path: Path, meta: dict[str, dict]) -> None:
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


def plan(args: argparse.Namespace) -> list[Job]:
    """All jobs of the chosen layouts; raises ValueError before anything is written."""
    if args.num_videos < 1:
        raise ValueError(f"--num_videos must be at least 1; it is {args.num_videos}.")
    if args.seed < 0:
        raise ValueError(f"--seed must not be negative; it is {args.seed}.")
    make_clip(args.num_frames, args.height, args.width, args.num_objects, args.seed)
    jobs: list[Job] = []
    for number, (name, (folder_name, build)) in enumerate(LAYOUTS.items()):
        if name not in args.layouts:
            continue
        folder = args.output / folder_name
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(
                f"{folder} exists and is not empty; choose another output folder or remove it."
            )
        jobs += build(
            Request(
                folder=folder,
                num_videos=args.num_videos,
                num_frames=args.num_frames,
                height=args.height,
                width=args.width,
                num_objects=args.num_objects,
                seed=(args.seed, number),
            )
        )
    return jobs


def parse(argv: Iterable[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="folder that receives DAVIS, YouTube, ...")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--num_videos", type=int, default=2, help="videos (or images) per split")
    parser.add_argument("--num_frames", type=int, default=30, help="frames per video")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument("--num_objects", type=int, default=3, help="objects per video")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(None if argv is None else list(argv))


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        for job in progressbar.progressbar(plan(args)):
            job()
    except (ValueError, FileNotFoundError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
