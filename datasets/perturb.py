"""Perturbation of the first mask, so that it resembles a predicted mask (RDE).

Li et al., Recurrent Dynamic Embedding for Video Object Segmentation, CVPR 2022, section 3.4.
"""

from __future__ import annotations

import cv2
import numpy as np

_MAX_ROUNDS = 250
_RECTANGLES_PER_ROUND = 4
_SHAPES = (cv2.MORPH_RECT, cv2.MORPH_ELLIPSE, cv2.MORPH_CROSS)
_FLIP_PROBABILITY = 0.1


def perturb_mask(
    rng: np.random.Generator, mask: np.ndarray, min_iou: float, max_iou: float
) -> np.ndarray:
    """Dilate and erode random rectangles of a mask until its IoU falls below a random target.

    Args:
        rng: generator of all draws.
        mask: (H, W) uint8 in {0, 1}; not modified.
        min_iou, max_iou: range of the target IoU between the perturbed mask and `mask`.

    Returns:
        (H, W) uint8 in {0, 1}; a copy of `mask` if it is empty.
    """
    perturbed = mask.copy()
    if not mask.any():
        return perturbed
    target = rng.uniform(min_iou, max_iou)
    for _ in range(_MAX_ROUNDS):
        for _ in range(_RECTANGLES_PER_ROUND):
            _perturb_rectangle(rng, perturbed)
        union = np.count_nonzero(mask | perturbed)
        if np.count_nonzero(mask & perturbed) < target * union:
            break
    return perturbed


def _perturb_rectangle(rng: np.random.Generator, mask: np.ndarray) -> None:
    """Dilate or erode one random rectangle in place.

    With probability 0.1 its centre pixel is inverted first.
    """
    height, width = mask.shape
    top, left = int(rng.integers(height)), int(rng.integers(width))
    bottom, right = int(rng.integers(top, height)) + 1, int(rng.integers(left, width)) + 1
    if rng.random() < _FLIP_PROBABILITY:
        mask[(top + bottom) // 2, (left + right) // 2] ^= 1
    part = mask[top:bottom, left:right]
    size = int(rng.integers(3, 10))
    element = cv2.getStructuringElement(_SHAPES[rng.integers(len(_SHAPES))], (size, size))
    part[:] = (cv2.dilate if rng.random() < 0.5 else cv2.erode)(part, element)
