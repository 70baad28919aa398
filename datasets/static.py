"""Static images as short clips (stage 0): one image becomes frames that move by augmentation."""

from __future__ import annotations

from collections.abc import Sequence
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
    spline_displacement,
    translation,
)
from util.images import image_size, load_image
from util.masks import COLOUR_MODES, read_mask

# What the published mixture holds.
PUBLISHED_SETS = ("BIG_small", "DUTS-TE", "DUTS-TR", "ECSSD", "FSS", "HRSOD_small")
# How often the published mixture repeats a data set; any other folder counts once.
REPEATS = {"BIG_small": 5, "HRSOD_small": 5}

_SHARED_JITTER = Jitter(0.1, 0.05, 0.05, 0.05, grey_probability=0.05)
_OWN_JITTER = Jitter(0.1, 0.05, 0.05)
_SPLINE_PROBABILITY = 1 / 3


class StaticClips(TrainingClips):
    """Clips of one object each, made from photographs with masks.

    Args:
        pairs: (image, mask) paths, mixed as `mix_static` does.
        sizes: images of each data set among them, where known.
        crop_size: side of the square clips in pixels (384 as published).
        num_frames: T.
        perturbation: of the first mask, as it is to be remembered.
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
        for _ in range(TRIES):
            geometries = self._draw_geometries(rng, *size)
            first = geometries[0].see_labels(mask, self.crop_size)
            if first.any():
                break
        labels = [first, *(g.see_labels(mask, self.crop_size) for g in geometries[1:])]

        image, geometries = read_for(image_path, size, geometries)
        shared_colour = draw_colour(rng, _SHARED_JITTER, mean_colour(image))
        shared_mean = shared_colour @ np.append(mean_colour(image), 1)
        images = []
        for geometry in geometries:
            colour = compose_colour(shared_colour, draw_colour(rng, _OWN_JITTER, shared_mean))
            images.append(apply_colour(geometry.see_image(image, self.crop_size), colour))
        name = f"{image_path.parent.name}/{image_path.stem}"
        return make_sample(rng, images, labels, 1, 1, name, self.perturbation)

    def _draw_geometries(self, rng: np.random.Generator, height: int, width: int) -> list[Geometry]:
        """Of T frames: some draws are shared by all, the rest are each frame's own."""
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
        """Shorter side to the crop size, then a crop anywhere along the longer one."""
        scale = self.crop_size / min(height, width)
        x = rng.integers(0, round(width * scale) - self.crop_size + 1)
        y = rng.integers(0, round(height * scale) - self.crop_size + 1)
        return translation(-x, -y) @ scaling(scale, scale)


def read_training_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Labels (H, W) uint8 of a training mask.

    Palette and colour masks keep their labels. Grey ones are saliency masks, often with soft edges:
    they are cut at half their brightest value, which makes one object of label 1.

    Raises:
        ValueError: the mask cannot be read, is of another size than its image, or is empty.
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
            f"{size[1]}x{size[0]}: they must be of one size."
        )
    if not labels.any():
        raise ValueError(f"The mask {path} shows no object: remove it and its image.")
    return labels


def draw_object(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """One of the objects at random, as a mask (H, W) uint8 in {0, 1}."""
    objects = np.unique(labels)
    return (labels == rng.choice(objects[objects > 0])).astype(np.uint8)


def find_static_pairs(root: Path) -> dict[str, list[tuple[Path, Path]]]:
    """(image, mask) pairs of every data set below `root`: `name.jpg` beside `name.png`.

    Raises:
        ValueError: `root` is absent, holds no pair, or an image lacks its mask.
    """
    if not root.is_dir():
        raise ValueError(
            f"There is no folder {root}: put the static images there (DUTS-TR/, FSS/, ... with "
            "name.jpg beside name.png), or say where they are with --static_root."
        )
    found = {}
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        images = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
        pairs = [(image, image.with_suffix(".png")) for image in images]
        lacking = [str(image) for image, mask in pairs if not mask.exists()]
        if lacking:
            raise ValueError(
                f"{len(lacking)} images below {folder} have no mask of the same name (.png), for "
                f"example {', '.join(lacking[:3])}: add the masks or remove the images."
            )
        if pairs:
            found[folder.name] = pairs
    if not found:
        raise ValueError(
            f"{root} holds no images with masks: each data set is a folder in it, with name.jpg "
            "beside name.png."
        )
    return found


def mix_static(found: dict[str, list[tuple[Path, Path]]]) -> list[tuple[Path, Path]]:
    """The training mixture: every data set once, BIG_small and HRSOD_small five times."""
    return [pair for name, pairs in found.items() for pair in pairs * REPEATS.get(name, 1)]
