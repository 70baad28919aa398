"""Short clips made from static images by augmentation (stage 0)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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
from datasets.pasting import (
    TWIN_PROBABILITY,
    PastedObject,
    draw_pasted_geometries,
    paste,
    shows_both,
)
from datasets.transforms import (
    Jitter,
    affine,
    apply_colour,
    compose_colour,
    draw_colour,
    flip,
    scaling,
    spline_displacement,
    translation,
)
from util.images import image_size, load_image
from util.masks import COLOUR_MODES, read_mask

# (image, mask) paths by data set name.
StaticPairs = dict[str, list[tuple[Path, Path]]]

# Data sets of the published mixture.
PUBLISHED_SETS = ("BIG_small", "DUTS-TE", "DUTS-TR", "ECSSD", "FSS", "HRSOD_small")
# Repetitions of a data set in the published mixture; all other data sets are used once.
REPEATS = {"BIG_small": 5, "HRSOD_small": 5}

_SHARED_JITTER = Jitter(0.1, 0.05, 0.05, 0.05, grey_probability=0.05)
_FRAME_JITTER = Jitter(0.1, 0.05, 0.05)
_SPLINE_PROBABILITY = 1 / 3

# Clips with two objects: probability of pasting the second one if the image has several objects.
_PASTE_PROBABILITY = 1 / 2


class _StillObject(NamedTuple):
    """An object of an image."""

    image_path: Path
    mask: np.ndarray  # (H, W) uint8 in {0, 1}


class StaticClips(TrainingClips):
    """Clips of one or two objects, made from images with masks.

    The second object is another object of the image, or it is pasted in front and moves by itself:
    an object of another image, or a twin of the first object, which looks like it. A clip has one
    object if either would cover less than 0.5 % of the first frame.

    Args:
        pairs: (image, mask) paths, see `mix_static`.
        crop_size: side of the square clips in pixels (published: 384).
        num_frames: T, frames per clip.
        seed: seed of all draws.
        sizes: number of images by data set name, for the training record.
        perturbation: range of the target IoU of the perturbed first mask; None disables it.
        num_objects: largest number of objects of a clip, 1 (as published) or 2.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Path, Path]],
        crop_size: int = 384,
        num_frames: int = 3,
        seed: int = 0,
        sizes: dict[str, int] | None = None,
        perturbation: Perturbation = None,
        num_objects: int = 1,
    ) -> None:
        self.perturbation = perturbation
        self.num_objects = num_objects
        self.pairs = pairs
        self.sizes = sizes or {}
        self.crop_size = crop_size
        self.num_frames = num_frames
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> ClipSample:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        image_path, mask_path = self.pairs[index]
        size = image_size(image_path)
        all_objects = read_training_mask(mask_path, size)
        mask = draw_object(rng, all_objects)
        if self.num_objects == 2:
            others = np.where(mask > 0, 0, all_objects)
            if others.any() and rng.random() >= _PASTE_PROBABILITY:
                mask += 2 * draw_object(rng, others)
        for _ in range(MAX_TRIES):
            geometries = self._draw_geometries(rng, *size)
            first = geometries[0].warp_labels(mask, self.crop_size)
            if first.any():
                break
        labels = [first, *(g.warp_labels(mask, self.crop_size) for g in geometries[1:])]

        image, geometries = read_reduced(image_path, size, geometries)
        images = self._draw_frames(rng, image, geometries)
        name = f"{image_path.parent.name}/{image_path.stem}"
        num_objects = 1
        if self.num_objects == 2:
            twin = _StillObject(image_path, (mask == 1).astype(np.uint8))
            images, labels, num_objects = self._add_object(rng, images, labels, twin)
        most = self.num_objects
        return make_sample(rng, images, labels, num_objects, most, name, self.perturbation)

    def _add_object(
        self,
        rng: np.random.Generator,
        images: list[np.ndarray],
        labels: list[np.ndarray],
        first: _StillObject,
    ) -> tuple[list[np.ndarray], list[np.ndarray], int]:
        """Return the frames, their labels and the number of objects, with a second object.

        An object is pasted if no frame shows the second object of the image: a twin of `first`, or
        an object of a random image.
        """
        if all(frame.max() < 2 for frame in labels):
            is_twin = rng.random() < TWIN_PROBABILITY
            pasted = self._draw_pasted(rng, first if is_twin else self._draw_still(rng))
            both = paste(images, labels, pasted)
            if both is not None:
                return *both, 2
        if shows_both(labels[0]):
            return images, labels, 2
        larger = 1 + int((labels[0] == 2).sum() > (labels[0] == 1).sum())
        return images, [(frame == larger).astype(np.uint8) for frame in labels], 1

    def _draw_still(self, rng: np.random.Generator) -> _StillObject:
        """Draw an object of a random image."""
        image_path, mask_path = self.pairs[int(rng.integers(len(self.pairs)))]
        labels = read_training_mask(mask_path, image_size(image_path))
        return _StillObject(image_path, draw_object(rng, labels))

    def _draw_pasted(self, rng: np.random.Generator, still: _StillObject) -> PastedObject:
        """Draw the colours, the place and the motion of an object to paste."""
        image_path, mask = still
        size, side = (mask.shape[0], mask.shape[1]), self.crop_size
        own = [_draw_affine(rng, 1, 1) for _ in range(self.num_frames)]
        geometries = draw_pasted_geometries(rng, mask, side, own)
        masks = [geometry.warp_labels(mask, side) for geometry in geometries]
        image, geometries = read_reduced(image_path, size, geometries)
        return PastedObject(self._draw_frames(rng, image, geometries), masks)

    def _draw_frames(
        self, rng: np.random.Generator, image: np.ndarray, geometries: Sequence[Geometry]
    ) -> list[np.ndarray]:
        """Warp an image to the frames of a clip and change the colours.

        The frames share one change of colour, and each has a smaller one of its own.
        """
        shared_colour = draw_colour(rng, _SHARED_JITTER, mean_colour(image))
        shared_mean = shared_colour @ np.append(mean_colour(image), 1)
        frames = []
        for geometry in geometries:
            colour = compose_colour(shared_colour, draw_colour(rng, _FRAME_JITTER, shared_mean))
            frames.append(apply_colour(geometry.warp_image(image, self.crop_size), colour))
        return frames

    def _draw_geometries(self, rng: np.random.Generator, height: int, width: int) -> list[Geometry]:
        """Draw the maps of T frames.

        All frames share a scale and a flip. Rotation, scale, shear, crop and spline are drawn for
        each frame.
        """
        shared = affine(width, height, scale=rng.uniform(0.8, 1.5))
        if rng.random() < 0.5:
            shared = flip(width) @ shared
        geometries = []
        for _ in range(self.num_frames):
            own = _draw_affine(rng, width, height)
            matrix = self._draw_crop(rng, height, width) @ own @ shared
            displacement = None
            if rng.random() < _SPLINE_PROBABILITY:
                displacement = spline_displacement(rng, (self.crop_size, self.crop_size))
            geometries.append(Geometry(matrix, displacement))
        return geometries

    def _draw_crop(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """Scale the shorter side to the crop size, then crop at a random place of the longer one.

        Returns:
            3x3 matrix from image pixels to crop pixels.
        """
        scale = self.crop_size / min(height, width)
        x = rng.integers(0, round(width * scale) - self.crop_size + 1)
        y = rng.integers(0, round(height * scale) - self.crop_size + 1)
        return translation(-x, -y) @ scaling(scale, scale)


def _draw_affine(rng: np.random.Generator, width: float, height: float) -> np.ndarray:
    """Draw the rotation, scale and shear of one frame, about the centre of an image."""
    return affine(
        width,
        height,
        degrees=rng.uniform(-20, 20),
        scale=rng.uniform(0.9, 1.1),
        shear=rng.uniform(-10, 10),
    )


def read_training_mask(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    """Read the labels (H, W) uint8 of a training mask.

    Palette and colour masks keep their labels. Grey masks are saliency maps, often with soft edges:
    they are thresholded at half of their maximum, and the object gets label 1.

    Args:
        path: mask file.
        size: (H, W) of the image; None allows any.

    Raises:
        ValueError: the mask cannot be read, its size differs from the image's, or it is empty.
    """
    mask = load_image(path, "mask")
    if mask.mode == "P":
        labels = np.array(mask)
    elif mask.mode in COLOUR_MODES:
        labels = read_mask(path, allow_empty=True).labels
    else:
        grey = np.array(mask.convert("L"))
        labels = (grey > grey.max() / 2).astype(np.uint8)
    if size is not None and labels.shape != size:
        raise ValueError(
            f"The mask {path} is {labels.shape[1]}x{labels.shape[0]}, but its image is "
            f"{size[1]}x{size[0]}: save the mask at the size of the image."
        )
    if not labels.any():
        raise ValueError(f"The mask {path} contains no object: remove it and its image.")
    return labels


def draw_object(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Mask (H, W) uint8 in {0, 1} of one random object."""
    objects = np.unique(labels)
    return (labels == rng.choice(objects[objects > 0])).astype(np.uint8)


def find_static_pairs(root: Path) -> StaticPairs:
    """Find the (image, mask) pairs of every data set in `root`.

    Each data set is a folder. The mask of `name.jpg` is `name.png` in the same folder.

    Raises:
        ValueError: `root` does not exist, contains no pair, or an image has no mask.
    """
    if not root.is_dir():
        raise ValueError(
            f"The folder {root} does not exist: put the static images there (DUTS-TR/, FSS/, ... "
            "with name.jpg and name.png), or give their folder with --static_root."
        )
    data_sets = {}
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        images = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
        pairs = [(image, image.with_suffix(".png")) for image in images]
        missing = [str(image) for image, mask in pairs if not mask.exists()]
        if missing:
            raise ValueError(
                f"{len(missing)} images in {folder} have no mask of the same name (.png), for "
                f"example {', '.join(missing[:3])}: add the masks or remove the images."
            )
        if pairs:
            data_sets[folder.name] = pairs
    if not data_sets:
        raise ValueError(
            f"{root} contains no images with masks: make a folder for each data set there, with "
            "name.jpg and name.png."
        )
    return data_sets


def mix_static(data_sets: StaticPairs) -> list[tuple[Path, Path]]:
    """Training mixture: every data set once, BIG_small and HRSOD_small five times."""
    return [pair for name, pairs in data_sets.items() for pair in pairs * REPEATS.get(name, 1)]
