"""Training samples: one clip of frames, its labels, and the geometry shared by all data sets.

A training data set is indexed by (epoch, index). A sample depends only on (seed, epoch, index), so
a resumed run needs no random state of workers or processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from datasets.perturb import perturb_mask
from datasets.transforms import sample_image, sample_labels, scaling
from util.images import read_image

MAX_TRIES = 5  # draws of a clip until its first frame shows an object
# Samples to try in place of one that cannot be read, and the last seed of their choice.
_MAX_REPLACEMENTS, _REPLACEMENT = 100, 1

# Lowest and highest target IoU between the perturbed and the true first mask. None disables it.
Perturbation = tuple[float, float] | None


class ClipSample(NamedTuple):
    """One training clip; the default collate function stacks each field."""

    images: torch.Tensor  # (T, 3, H, W) uint8 RGB
    labels: torch.Tensor  # (T, H, W) uint8: 0 background, o object o
    first_masks: torch.Tensor  # (O, H, W) uint8 in {0, 1}: masks of frame 0 for the memory
    num_objects: int
    name: str
    problems: str = ""  # lines with the errors of the samples that it replaces


class TrainingClips(torch.utils.data.Dataset[ClipSample]):
    """A data set of clips, indexed by (epoch, index)."""

    sizes: dict[str, int]  # number of images or videos by data set name

    def __len__(self) -> int:
        raise NotImplementedError


class MixedClips(TrainingClips):
    """All clips of one data set, and a number of clips of another one, in every epoch.

    The clips of the other data set are taken in random order, each once before any is repeated.

    Args:
        main: data set that every epoch contains completely.
        other: data set of the additional clips.
        num_other: clips of `other` per epoch.
        seed: seed of the order.
    """

    def __init__(
        self, main: TrainingClips, other: TrainingClips, num_other: int, seed: int
    ) -> None:
        self.main, self.other, self.num_other, self.seed = main, other, num_other, seed
        self.sizes = {**main.sizes, **other.sizes}

    def __len__(self) -> int:
        return len(self.main) + self.num_other

    def __getitem__(self, key: tuple[int, int]) -> ClipSample:
        epoch, index = key
        if index < len(self.main):
            return self.main[key]
        position = epoch * self.num_other + index - len(self.main)
        pass_number, place = divmod(position, len(self.other))
        order = np.random.default_rng((self.seed, pass_number)).permutation(len(self.other))
        return self.other[pass_number, int(order[place])]


class ReplacingClips(TrainingClips):
    """Clips of a data set, in which another sample replaces one that cannot be read.

    The replacement depends only on (seed, epoch, index), too.

    Args:
        clips: the data set.
        seed: seed of the choice.
    """

    def __init__(self, clips: TrainingClips, seed: int) -> None:
        self.clips, self.seed = clips, seed
        self.sizes = clips.sizes

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> ClipSample:
        try:
            return self.clips[key]
        except (ValueError, OSError) as error:
            problems = [str(error)]
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index, _REPLACEMENT))
        for other in rng.permutation(len(self))[:_MAX_REPLACEMENTS]:
            try:
                sample = self.clips[epoch, int(other)]
            except (ValueError, OSError) as error:
                problems.append(str(error))
            else:
                return sample._replace(problems="\n".join(dict.fromkeys(problems)))
        raise ValueError(
            f"None of {len(problems)} samples can be read, check the training data: {problems[0]}"
        )


class Geometry(NamedTuple):
    """Map from source pixels to the pixels of an output frame; see datasets/transforms.py."""

    matrix: np.ndarray  # 3x3, source pixels -> output pixels
    displacement: np.ndarray | None = None  # (H, W, 2) float32

    def warp_image(self, image: np.ndarray, size: int) -> np.ndarray:
        """Warp an image (H, W, 3) uint8 to (size, size, 3)."""
        return sample_image(image, self.matrix, (size, size), self.displacement)

    def warp_labels(self, labels: np.ndarray, size: int) -> np.ndarray:
        """Warp labels (H, W) uint8 to (size, size)."""
        return sample_labels(labels, self.matrix, (size, size), self.displacement)

    @property
    def scale(self) -> float:
        """Output pixels per source pixel along one side."""
        return math.sqrt(abs(np.linalg.det(self.matrix[:2, :2])))


def read_reduced(
    path: Path, size: tuple[int, int], geometries: Sequence[Geometry]
) -> tuple[np.ndarray, list[Geometry]]:
    """Decode an image at the smallest JPEG scale that the geometries allow.

    Args:
        path: image file.
        size: (H, W) of the full image, for which the geometries are defined.
        geometries: the maps that will be applied to the image.

    Returns:
        The decoded image, (h, w, 3) uint8 RGB, and the geometries adapted to its size.
    """
    image = read_image(path, scale=max(geometry.scale for geometry in geometries))
    if image.shape[:2] == tuple(size):
        return image, [*geometries]
    # The factor is exactly 2, 4 or 8; only the last row and column are rounded up.
    factor = 2 ** round(math.log2(max(size) / max(image.shape[:2])))
    to_full_size = scaling(factor, factor)
    return image, [Geometry(g.matrix @ to_full_size, g.displacement) for g in geometries]


def make_sample(
    rng: np.random.Generator,
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    num_objects: int,
    max_objects: int,
    name: str,
    perturbation: Perturbation = None,
) -> ClipSample:
    """Stack T images and their labels into the tensors of a sample.

    Args:
        rng: generator of the perturbation.
        images: T arrays (H, W, 3) uint8 RGB.
        labels: T arrays (H, W) uint8.
        num_objects: objects of this sample.
        max_objects: O, the number of first masks of every sample of the data set.
        name: name of the sample for messages.
        perturbation: range of the target IoU of the first masks.
    """
    stacked = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))  # (T, 3, H, W)
    masks = [(labels[0] == o).astype(np.uint8) for o in range(1, max_objects + 1)]
    if perturbation:
        masks = [perturb_mask(rng, mask, *perturbation) for mask in masks]
    return ClipSample(
        torch.from_numpy(stacked),
        torch.from_numpy(np.stack(labels)),
        torch.from_numpy(np.stack(masks)),
        num_objects,
        name,
    )


def mean_colour(image: np.ndarray) -> np.ndarray:
    """Mean colour (3,) of an image (H, W, 3)."""
    return np.array(cv2.mean(image)[:3])
