"""What all training data sets share: the sample, a frame's geometry, and reading it through that.

A training data set is indexed by (epoch, index), and a sample is a function of (seed, epoch, index)
alone: no worker and no process holds random state that a resumed run would have to restore.
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
from util.signals import leave_signals_to_main

TRIES = 5  # for a first frame that shows an object


class ClipSample(NamedTuple):
    """One training clip; the default collate function stacks each field."""

    images: torch.Tensor  # (T, 3, H, W) uint8 RGB
    labels: torch.Tensor  # (T, H, W) uint8: 0 background, o object o
    first_masks: torch.Tensor  # (O, H, W) uint8 in {0, 1}: frame 0 as it is to be remembered
    num_objects: int
    name: str


class TrainingClips(torch.utils.data.Dataset[ClipSample]):
    """A data set of clips, indexed by (epoch, index)."""

    sizes: dict[str, int]  # images or videos of each data set in it

    def __len__(self) -> int:
        raise NotImplementedError


class Geometry(NamedTuple):
    """Where the pixels of an output frame come from; see datasets/transforms.py."""

    matrix: np.ndarray  # 3x3, source pixels -> output pixels
    displacement: np.ndarray | None = None  # (H, W, 2) float32

    def see_image(self, image: np.ndarray, size: int) -> np.ndarray:
        """(H, W, 3) uint8 -> (size, size, 3)."""
        return sample_image(image, self.matrix, (size, size), self.displacement)

    def see_labels(self, labels: np.ndarray, size: int) -> np.ndarray:
        """(H, W) uint8 -> (size, size)."""
        return sample_labels(labels, self.matrix, (size, size), self.displacement)

    @property
    def scale(self) -> float:
        """Output pixels for each source pixel, along a side."""
        return math.sqrt(abs(np.linalg.det(self.matrix[:2, :2])))


def read_for(
    path: Path, size: tuple[int, int], geometries: Sequence[Geometry]
) -> tuple[np.ndarray, list[Geometry]]:
    """An image, decoded no larger than these geometries need it; and them from what was decoded.

    Args:
        size: (H, W) of the whole image, which the geometries start from.
    """
    image = read_image(path, scale=max(geometry.scale for geometry in geometries))
    if image.shape[:2] == tuple(size):
        return image, [*geometries]
    # A half, a quarter or an eighth exactly; only the last row and column are rounded up.
    factor = 2 ** round(math.log2(max(size) / max(image.shape[:2])))
    back = scaling(factor, factor)
    return image, [Geometry(g.matrix @ back, g.displacement) for g in geometries]


# Range of the IoU that a perturbed first mask has with the true one; None: it is the true one.
Perturbation = tuple[float, float] | None


def make_sample(
    rng: np.random.Generator,
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    num_objects: int,
    num_slots: int,
    name: str,
    perturbation: Perturbation = None,
) -> ClipSample:
    """T images (H, W, 3) and their labels (H, W), as the tensors of a sample.

    Args:
        num_objects: of this sample; num_slots: of any sample of the data set.
    """
    stacked = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
    masks = [(labels[0] == o).astype(np.uint8) for o in range(1, num_slots + 1)]
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
    """(3,) mean of an (H, W, 3) image."""
    return np.array(cv2.mean(image)[:3])


def start_worker(_: int) -> None:
    """For a loader's workers: OpenCV's own threads would fight over the cores."""
    cv2.setNumThreads(0)
    leave_signals_to_main()
