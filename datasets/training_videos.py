"""Annotated videos as short clips (stages 1 to 3): DAVIS, YouTube-VOS, BL30K."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.clips import (
    TRIES,
    ClipSample,
    Geometry,
    Perturbation,
    TrainingClips,
    make_sample,
    mean_colour,
    read_for,
)
from datasets.transforms import (
    Jitter,
    affine,
    apply_colour,
    compose_colour,
    draw_colour,
    flip,
    scaling,
    translation,
)
from datasets.video_list import TrainingVideo
from util.images import image_size, load_image
from util.masks import labels_of, read_mask

NUM_SLOTS = 2  # objects of a clip at most
_SHARED_JITTER = Jitter(0.1, 0.03, 0.03, grey_probability=0.05)
_OWN_JITTER = Jitter(0.01, 0.01, 0.01)
_CROP_RATIO = (3 / 4, 4 / 3)
# More labels than this in one crop are no objects, but blended edges.
_MOST_LABELS = 64


@dataclass(frozen=True)
class VideoSet:
    """Videos of one data set, and how clips are drawn from them.

    Args:
        repeats: how often the mixture holds each video.
        jumps: how far apart frames are, in place of the run's.
        jump_divisor: 5 where every fifth frame is annotated, so that frames lie as far apart.
        smallest_crop: least share of a frame's area that a clip shows.
        is_cluttered: leave out objects too small to follow, as BL30K has.
    """

    name: str
    videos: Sequence[TrainingVideo]
    repeats: int = 1
    jumps: Sequence[int] = ()
    jump_divisor: int = 1
    smallest_crop: float = 0.36
    is_cluttered: bool = False


@dataclass(frozen=True)
class JumpSchedule:
    """Most frames between neighbours of a clip, by the share of the epochs done (MiVOS, STCN).

    Args:
        jumps: one after the other; fractions: shares of the epochs at which the next one holds.
        num_epochs: of the whole run.
    """

    jumps: Sequence[int]
    fractions: Sequence[float]
    num_epochs: int

    def at(self, epoch: int) -> int:
        """The jump in an epoch (from 0)."""
        starts = [round(self.num_epochs * fraction) for fraction in self.fractions]
        return self.jumps[bisect.bisect_right(starts, epoch)]


class VideoClips(TrainingClips):
    """Clips of one or two objects of annotated videos.

    Args:
        sets: the mixture.
        jumps: how far apart frames are.
        crop_size: side of the square clips in pixels (384 as published).
        num_frames: T.
        perturbation: of the first masks, as they are to be remembered.
    """

    def __init__(
        self,
        sets: Sequence[VideoSet],
        jumps: JumpSchedule,
        crop_size: int = 384,
        num_frames: int = 3,
        seed: int = 0,
        perturbation: Perturbation = None,
    ) -> None:
        self.perturbation = perturbation
        self.sets = sets
        self.jumps = jumps
        self.crop_size = crop_size
        self.num_frames = num_frames
        self.seed = seed
        self.sizes = {videos.name: len(videos.videos) for videos in sets}
        self._ends = [*itertools.accumulate(len(s.videos) * s.repeats for s in sets)]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, key: tuple[int, int]) -> ClipSample:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        which = bisect.bisect_right(self._ends, index)
        videos = self.sets[which]
        start = self._ends[which] - len(videos.videos) * videos.repeats
        video = videos.videos[(index - start) % len(videos.videos)]
        names = video.names
        schedule = replace(self.jumps, jumps=videos.jumps) if videos.jumps else self.jumps
        jump = max(schedule.at(epoch) // videos.jump_divisor, 1)
        for _ in range(TRIES):
            drawn = [names[i] for i in draw_frames(rng, len(names), jump, self.num_frames)]
            masks = {name: read_labels(video.mask_path(name)) for name in {*drawn}}
            size = masks[drawn[0]].shape
            if len({mask.shape for mask in masks.values()}) > 1:
                raise ValueError(f"The masks of {video.masks} differ in size: make them alike.")
            geometries = self._draw_geometries(rng, size[0], size[1], videos.smallest_crop)
            seen = [
                geometry.see_labels(masks[name], self.crop_size)
                for geometry, name in zip(geometries, drawn, strict=True)
            ]
            objects = labels_of(seen[0])
            if len(objects) > _MOST_LABELS:
                raise ValueError(
                    f"The mask {video.mask_path(drawn[0])} has {len(objects)} labels: it looks "
                    "anti-aliased; save it with nearest-neighbour resizing."
                )
            if videos.is_cluttered:
                objects = [o for o in objects if _is_worth_following(o, seen)]
            if objects:
                break
        chosen = [int(o) for o in rng.permutation(objects)[:NUM_SLOTS]]
        remap = np.zeros(256, np.uint8)
        remap[chosen] = range(1, len(chosen) + 1)
        images = self._read_images(rng, video, drawn, size, geometries)
        labels = [remap[mask] for mask in seen]
        num_objects, source = max(len(chosen), 1), f"{videos.name}/{video.name}"
        return make_sample(rng, images, labels, num_objects, NUM_SLOTS, source, self.perturbation)

    def _draw_geometries(
        self, rng: np.random.Generator, height: int, width: int, smallest: float
    ) -> list[Geometry]:
        """Of T frames: flip and crop are shared by all, the affine map is each frame's own."""
        side = self.crop_size
        top, left, crop_height, crop_width = draw_crop(rng, height, width, smallest)
        shared = scaling(side / crop_width, side / crop_height) @ translation(-left, -top)
        if rng.random() < 0.5:
            shared = shared @ flip(width)
        geometries = []
        for _ in range(self.num_frames):
            own = affine(side, side, degrees=rng.uniform(-15, 15), shear=rng.uniform(-10, 10))
            geometries.append(Geometry(own @ shared))
        return geometries

    def _read_images(
        self,
        rng: np.random.Generator,
        video: TrainingVideo,
        names: Sequence[str],
        size: tuple[int, int],
        geometries: Sequence[Geometry],
    ) -> list[np.ndarray]:
        """The frames, each through its geometry and colours: (S, S, 3) uint8."""
        images: list[np.ndarray] = []
        shared: np.ndarray | None = None
        for name, whole in zip(names, geometries, strict=True):
            path = video.frame_path(name)
            found = image_size(path)
            if found != size:
                raise ValueError(
                    f"The frame {path} is {found[1]}x{found[0]}, but its mask is "
                    f"{size[1]}x{size[0]}: they must be of one size."
                )
            image, (geometry,) = read_for(path, size, [whole])
            mean = mean_colour(image)
            if shared is None:
                shared = draw_colour(rng, _SHARED_JITTER, mean)
            own = draw_colour(rng, _OWN_JITTER, shared @ np.append(mean, 1))
            frame = geometry.see_image(image, self.crop_size)
            images.append(apply_colour(frame, compose_colour(shared, own)))
        return images


def draw_frames(rng: np.random.Generator, length: int, jump: int, num_frames: int = 3) -> list[int]:
    """Indices of a clip's frames, forwards or backwards: with J = min(length, jump),

    - the first is uniform in [0, length - J], for more than 3 frames in [0, max(J // 2,
      length - J * num_frames)], so that there is room for all;
    - each next one lies 1 to J + 1 further on, and the k-th at most at length - J // k.
    """
    jump = min(length, jump)
    last_start = length - jump
    if num_frames > 3:
        last_start = min(max(jump // 2, length - num_frames * jump), length - 1)
    indices = [min(int(rng.integers(0, last_start + 1)), length - 1)]
    for k in range(1, num_frames):
        step = int(rng.integers(1, jump + 2))
        indices.append(min(indices[-1] + step, length - jump // k, length - 1))
    return indices[::-1] if rng.random() < 0.5 else indices


def draw_crop(
    rng: np.random.Generator, height: int, width: int, smallest: float
) -> tuple[int, int, int, int]:
    """torchvision's RandomResizedCrop: (top, left, height, width) of a part of the frame.

    Its area is uniform in [smallest, 1] of the frame's, its ratio log-uniform in [3/4, 4/3].
    """
    for _ in range(10):
        area = height * width * rng.uniform(smallest, 1)
        ratio = math.exp(rng.uniform(*np.log(_CROP_RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w = min(width, round(height * _CROP_RATIO[1]))
    h = min(height, round(width / _CROP_RATIO[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def _is_worth_following(label: int, masks: Sequence[np.ndarray]) -> bool:
    """STCN's rule for BL30K: no object under 10x10 pixels on the first frame, and under 30x30 only
    where it stays under 20x20 on the next two."""
    sizes = [int(np.count_nonzero(mask == label)) for mask in masks[:3]]
    return sizes[0] > 900 or (sizes[0] > 100 and max(sizes[1:]) < 400)


def read_labels(path: Path) -> np.ndarray:
    """Labels (H, W) uint8 of a video's mask: palette indices or grey values."""
    mask = load_image(path, "mask")
    if mask.mode in ("P", "L"):
        return np.array(mask)
    return read_mask(path, allow_empty=True).labels
