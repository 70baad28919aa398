"""Short clips drawn from annotated videos (stages 1 to 3): DAVIS, YouTube-VOS, BL30K."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.clips import (
    MAX_TRIES,
    ClipSample,
    Geometry,
    Perturbation,
    TrainingClips,
    make_sample,
    mean_colour,
    read_reduced,
)
from datasets.pasting import TWIN_PROBABILITY, PastedObject, draw_pasted_geometries, paste
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

MAX_OBJECTS = 2  # per clip
_SHARED_JITTER = Jitter(0.1, 0.03, 0.03, grey_probability=0.05)
_FRAME_JITTER = Jitter(0.01, 0.01, 0.01)
_CROP_RATIO = (3 / 4, 4 / 3)  # range of width / height
# A crop with more labels has interpolated edges.
_MAX_LABELS = 64


@dataclass(frozen=True)
class VideoSet:
    """Videos of one data set and the options for drawing clips from them.

    Args:
        name: name of the data set.
        videos: its videos.
        repeats: repetitions of each video in the mixture.
        jumps: jumps that replace those of the run's schedule; empty keeps the schedule's.
        jump_divisor: divisor of the jumps; 5 for data sets with every fifth frame annotated.
        min_crop_area: smallest crop, as a share of the frame's area.
        skips_small_objects: leave out objects that are too small on the first frame (BL30K).
    """

    name: str
    videos: Sequence[TrainingVideo]
    repeats: int = 1
    jumps: Sequence[int] = ()
    jump_divisor: int = 1
    min_crop_area: float = 0.36
    skips_small_objects: bool = False


@dataclass(frozen=True)
class JumpSchedule:
    """Largest distance between consecutive frames of a clip, by training progress (MiVOS, STCN).

    Args:
        jumps: distances in frames, in order of use.
        fractions: shares of the epochs at which the next distance starts.
        num_epochs: epochs of the whole run.
    """

    jumps: Sequence[int]
    fractions: Sequence[float]
    num_epochs: int

    def at(self, epoch: int) -> int:
        """Return the jump of an epoch (from 0)."""
        starts = [round(self.num_epochs * fraction) for fraction in self.fractions]
        return self.jumps[bisect.bisect_right(starts, epoch)]


class VideoClips(TrainingClips):
    """Clips with one or two objects, drawn from annotated videos.

    Clips of one object may get a second one from another video, or the first one once more from
    other frames of its video, see datasets/pasting.py.

    Args:
        sets: data sets of the mixture.
        jumps: schedule of the distances between frames.
        crop_size: side of the square clips in pixels (published: 384).
        num_frames: T, frames per clip.
        seed: seed of all draws.
        perturbation: range of the target IoU of the perturbed first masks; None disables it.
        paste_share: share of the clips of one object that get a second one (published: 0).
    """

    def __init__(
        self,
        sets: Sequence[VideoSet],
        jumps: JumpSchedule,
        crop_size: int = 384,
        num_frames: int = 3,
        seed: int = 0,
        perturbation: Perturbation = None,
        paste_share: float = 0,
    ) -> None:
        self.perturbation = perturbation
        self.paste_share = paste_share
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
        set_index = bisect.bisect_right(self._ends, index)
        videos = self.sets[set_index]
        start = self._ends[set_index] - len(videos.videos) * videos.repeats
        video = videos.videos[(index - start) % len(videos.videos)]
        schedule = replace(self.jumps, jumps=videos.jumps) if videos.jumps else self.jumps
        jump = max(schedule.at(epoch) // videos.jump_divisor, 1)
        for _ in range(MAX_TRIES):
            drawn, masks = self._draw_masks(rng, video, jump)
            size = masks[0].shape
            geometries = self._draw_geometries(rng, size[0], size[1], videos.min_crop_area)
            warped = [
                geometry.warp_labels(mask, self.crop_size)
                for geometry, mask in zip(geometries, masks, strict=True)
            ]
            objects = labels_of(warped[0])
            check_num_labels(video.mask_path(drawn[0]), len(objects))
            if videos.skips_small_objects:
                objects = [o for o in objects if _is_large_enough(o, warped)]
            if objects:
                break
        chosen = [int(o) for o in rng.permutation(objects)[:MAX_OBJECTS]]
        remap = np.zeros(256, np.uint8)
        remap[chosen] = range(1, len(chosen) + 1)
        images = self._read_images(rng, video, drawn, size, geometries)
        labels = [remap[mask] for mask in warped]
        num_objects, name = max(len(chosen), 1), f"{videos.name}/{video.name}"
        if len(chosen) == 1 and self.paste_share and rng.random() < self.paste_share:
            is_twin = rng.random() < TWIN_PROBABILITY
            front = video if is_twin else videos.videos[int(rng.integers(len(videos.videos)))]
            pasted = self._draw_pasted(rng, front, jump)
            both = paste(images, labels, pasted) if pasted is not None else None
            if both is not None:
                images, labels = both
                num_objects = 2
        return make_sample(rng, images, labels, num_objects, MAX_OBJECTS, name, self.perturbation)

    def _draw_masks(
        self, rng: np.random.Generator, video: TrainingVideo, jump: int
    ) -> tuple[list[str], list[np.ndarray]]:
        """Draw T frames of a video; return their names and labels (H, W) uint8."""
        names = video.names
        drawn = [names[i] for i in draw_frames(rng, len(names), jump, self.num_frames)]
        masks = {name: read_labels(video.mask_path(name)) for name in {*drawn}}
        check_mask_sizes(video, {mask.shape for mask in masks.values()})
        return drawn, [masks[name] for name in drawn]

    def _draw_pasted(
        self, rng: np.random.Generator, video: TrainingVideo, jump: int
    ) -> PastedObject | None:
        """Draw an object of a video to paste; None if the first drawn frame shows no object."""
        drawn, masks = self._draw_masks(rng, video, jump)
        objects = labels_of(masks[0])
        if not objects:
            return None
        chosen = int(rng.choice(objects))
        masks = [(mask == chosen).astype(np.uint8) for mask in masks]
        own = [_draw_affine(rng, 1) for _ in masks]
        geometries = draw_pasted_geometries(rng, masks[0], self.crop_size, own)
        size = (masks[0].shape[0], masks[0].shape[1])
        warped = [
            geometry.warp_labels(mask, self.crop_size)
            for geometry, mask in zip(geometries, masks, strict=True)
        ]
        return PastedObject(self._read_images(rng, video, drawn, size, geometries), warped)

    def _draw_geometries(
        self, rng: np.random.Generator, height: int, width: int, min_area: float
    ) -> list[Geometry]:
        """Draw the maps of T frames.

        All frames share a flip and a crop. Rotation and shear are drawn for each frame.
        """
        side = self.crop_size
        top, left, crop_height, crop_width = draw_crop(rng, height, width, min_area)
        shared = scaling(side / crop_width, side / crop_height) @ translation(-left, -top)
        if rng.random() < 0.5:
            shared = shared @ flip(width)
        geometries = []
        for _ in range(self.num_frames):
            geometries.append(Geometry(_draw_affine(rng, side) @ shared))
        return geometries

    def _read_images(
        self,
        rng: np.random.Generator,
        video: TrainingVideo,
        names: Sequence[str],
        size: tuple[int, int],
        geometries: Sequence[Geometry],
    ) -> list[np.ndarray]:
        """Read T frames and apply their geometries and colour changes: (S, S, 3) uint8 each."""
        images: list[np.ndarray] = []
        shared: np.ndarray | None = None
        for name, full_geometry in zip(names, geometries, strict=True):
            path = video.frame_path(name)
            check_frame_size(path, image_size(path), size)
            image, (geometry,) = read_reduced(path, size, [full_geometry])
            mean = mean_colour(image)
            if shared is None:
                shared = draw_colour(rng, _SHARED_JITTER, mean)
            own = draw_colour(rng, _FRAME_JITTER, shared @ np.append(mean, 1))
            frame = geometry.warp_image(image, self.crop_size)
            images.append(apply_colour(frame, compose_colour(shared, own)))
        return images


def _draw_affine(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw the rotation and shear of one frame, about the centre of a square."""
    return affine(side, side, degrees=rng.uniform(-15, 15), shear=rng.uniform(-10, 10))


def draw_frames(rng: np.random.Generator, length: int, jump: int, num_frames: int = 3) -> list[int]:
    """Draw the frame indices of a clip, in forward or backward order.

    With J = min(length, jump):

    - The first index is uniform in [0, length - J]. With more than 3 frames, it is uniform in
      [0, max(J // 2, length - J * num_frames)], which leaves room for the others.
    - Each further index is 1 to J + 1 larger. Index k is at most length - J // k.

    Args:
        rng: generator of all draws.
        length: frames of the video.
        jump: largest distance between consecutive frames.
        num_frames: T, number of indices.
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
    rng: np.random.Generator, height: int, width: int, min_area: float
) -> tuple[int, int, int, int]:
    """Draw a crop as torchvision's RandomResizedCrop does.

    The area is uniform in [min_area, 1] of the frame's area. The aspect ratio is log-uniform in
    [3/4, 4/3].

    Returns:
        (top, left, height, width) of the crop in pixels.
    """
    for _ in range(10):
        area = height * width * rng.uniform(min_area, 1)
        ratio = math.exp(rng.uniform(*np.log(_CROP_RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w = min(width, round(height * _CROP_RATIO[1]))
    h = min(height, round(width / _CROP_RATIO[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def _is_large_enough(label: int, masks: Sequence[np.ndarray]) -> bool:
    """STCN's rule for objects of BL30K.

    An object needs more than 30x30 pixels on the first frame. More than 10x10 pixels are enough if
    it has fewer than 20x20 pixels on the next two frames.
    """
    sizes = [int(np.count_nonzero(mask == label)) for mask in masks[:3]]
    return sizes[0] > 900 or (sizes[0] > 100 and max(sizes[1:]) < 400)


def check_num_labels(path: Path, num_labels: int) -> None:
    """Raise a ValueError if a mask has too many labels."""
    if num_labels > _MAX_LABELS:
        raise ValueError(
            f"The mask {path} has {num_labels} labels: it looks anti-aliased; save it with "
            "nearest-neighbour resizing."
        )


def check_mask_sizes(video: TrainingVideo, sizes: set[tuple[int, ...]]) -> None:
    """Raise a ValueError if masks of a video have several sizes (H, W)."""
    if len(sizes) > 1:
        raise ValueError(
            f"The masks in {video.masks} have different sizes: save them at the size of their "
            "frames."
        )


def check_frame_size(path: Path, size: tuple[int, ...], mask_size: tuple[int, ...]) -> None:
    """Raise a ValueError if the size (H, W) of a frame differs from that of its mask."""
    if size != mask_size:
        raise ValueError(
            f"The frame {path} is {size[1]}x{size[0]}, but its mask is "
            f"{mask_size[1]}x{mask_size[0]}: save both at the same size."
        )


def read_labels(path: Path) -> np.ndarray:
    """Read the labels (H, W) uint8 of a video's mask: palette indices or grey values."""
    mask = load_image(path, "mask")
    if mask.mode in ("P", "L"):
        return np.array(mask)
    return read_mask(path, allow_empty=True).labels
