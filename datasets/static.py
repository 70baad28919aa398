"""Short clips made from static images by augmentation (stage 0)."""

from __future__ import annotations

from collections.abc import Sequence
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


class StaticClips(TrainingClips):
    """Clips of one object each, made from images with masks.

    Args:
        pairs: (image, mask) paths, see `mix_static`.
        crop_size: side of the square clips in pixels (published: 384).
        num_frames: T, frames per clip.
        seed: seed of all draws.
        sizes: number of images by data set name, for the training record.
        perturbation: range of the target IoU of the perturbed first mask; None disables it.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Path, Path]],
        crop_size: int = 384,
        num_frames: int = 3,
        seed: int = 0,
        sizes: dict[str, int] | None = None,
        perturbation: Perturbation = None,
    ) -> None:
        self.perturbation = perturbation
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
        mask = draw_object(rng, read_training_mask(mask_path, size))
        for _ in range(MAX_TRIES):
            geometries = self._draw_geometries(rng, *size)
            first = geometries[0].warp_labels(mask, self.crop_size)
            if first.any():
                break
        labels = [first, *(g.warp_labels(mask, self.crop_size) for g in geometries[1:])]

        image, geometries = read_reduced(image_path, size, geometries)
        shared_colour = draw_colour(rng, _SHARED_JITTER, mean_colour(image))
        shared_mean = shared_colour @ np.append(mean_colour(image), 1)
        images = []
        for geometry in geometries:
            colour = compose_colour(shared_colour, draw_colour(rng, _FRAME_JITTER, shared_mean))
            images.append(apply_colour(geometry.warp_image(image, self.crop_size), colour))
        name = f"{image_path.parent.name}/{image_path.stem}"
        return make_sample(rng, images, labels, 1, 1, name, self.perturbation)

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
            own = affine(
                width,
                height,
                degrees=rng.uniform(-20, 20),
                scale=rng.uniform(0.9, 1.1),
                shear=rng.uniform(-10, 10),
            )
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


def read_training_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Read the labels (H, W) uint8 of a training mask.

    Palette and colour masks keep their labels. Grey masks are saliency maps, often with soft edges:
    they are thresholded at half of their maximum, and the object gets label 1.

    Args:
        path: mask file.
        size: (H, W) of the image.

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
    if labels.shape != size:
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
