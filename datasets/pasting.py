"""A second object in a training clip: pasted in front of the first one, it moves by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from datasets.clips import Geometry
from datasets.transforms import scaling, translation

# Probability that the pasted object is the clip's first one once more, which looks like it.
TWIN_PROBABILITY = 1 / 3
_SCALE = (0.5, 1.0)  # of the pasted object's image, whose shorter side becomes the crop size
# Largest distance of a pasted object from the centre, and standard deviation of its motion per
# frame, in crop sizes.
_SHIFT, _MOTION = 0.35, 0.1
_MIN_AREA = 0.005  # smallest share of the first frame that each of two objects covers


class PastedObject(NamedTuple):
    """The frames of an object that is pasted into a clip."""

    images: list[np.ndarray]  # T of (S, S, 3) uint8
    masks: list[np.ndarray]  # T of (S, S) uint8 in {0, 1}


def draw_pasted_geometries(
    rng: np.random.Generator, mask: np.ndarray, crop_size: int, own: Sequence[np.ndarray]
) -> list[Geometry]:
    """Draw the scale, the flip, the place and the motion of an object to paste.

    Args:
        rng: generator of all draws.
        mask: (H, W) uint8 in {0, 1}, the object on its first frame.
        crop_size: S, the side of the clip.
        own: T 3x3 matrices, small changes of each frame about the pixel (0, 0).

    Returns:
        T maps from the pixels of the object's frames to those of the clip.
    """
    y, x = (float(places.mean()) for places in np.nonzero(mask))
    start, motion = rng.uniform(-_SHIFT, _SHIFT, 2), rng.normal(0, _MOTION, 2)
    scale = rng.uniform(*_SCALE) * crop_size / min(mask.shape)
    shared = scaling(scale, scale) @ translation(-x, -y)  # the object's centre is the origin
    if rng.random() < 0.5:
        shared = np.diag([-1.0, 1, 1]) @ shared
    geometries = []
    for t, change in enumerate(own):
        place = (crop_size - 1) / 2 + crop_size * (start + t * motion)
        geometries.append(Geometry(translation(*place) @ change @ shared))
    return geometries


def paste(
    images: list[np.ndarray], labels: list[np.ndarray], pasted: PastedObject
) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """Paste an object, as object 2, into frames (S, S, 3) uint8 with labels (S, S) uint8.

    Returns:
        The new frames and labels; None if an object would cover too little of the first frame.
    """
    pairs = zip(pasted.masks, labels, strict=True)
    covered = [np.where(front > 0, np.uint8(2), behind) for front, behind in pairs]
    if not shows_both(covered[0]):
        return None
    return [*map(_blend, images, pasted.images, pasted.masks)], covered


def shows_both(labels: np.ndarray) -> bool:
    """Return True if objects 1 and 2 both cover enough of a frame."""
    return all((labels == label).mean() >= _MIN_AREA for label in (1, 2))


def _blend(image: np.ndarray, front: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Paste `front` (S, S, 3) into `image` at `mask` (S, S); edges are blended over one pixel."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0)[..., None]
    return np.round(image + soft * (front.astype(np.float32) - image)).astype(np.uint8)
