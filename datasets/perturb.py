"""Masks that look as if a network had drawn them: RDE's perturbation of the first mask.

Li et al., Recurrent Dynamic Embedding for Video Object Segmentation, CVPR 2022, section 3.4.
"""

from __future__ import annotations

import cv2
import numpy as np

_MOST_ROUNDS = 250
_RECTANGLES = 4  # a round
_SHAPES = (cv2.MORPH_RECT, cv2.MORPH_ELLIPSE, cv2.MORPH_CROSS)
_FLIP_PROBABILITY = 0.1


def perturb_mask(
    rng: np.random.Generator, mask: np.ndarray, lowest: float, highest: float
) -> np.ndarray:
    """Dilate and erode random rectangles of a mask until it has drifted far enough.

    Args:
        mask: (H, W) uint8 in {0, 1}; it stays as it is.
        lowest, highest: the IoU with `mask` to fall below is drawn from between them.

    Returns:
        (H, W) uint8 in {0, 1}; an empty mask comes back as it was.
    """
    perturbed = mask.copy()
    if not mask.any():
        return perturbed
    target = rng.uniform(lowest, highest)
    for _ in range(_MOST_ROUNDS):
        for _ in range(_RECTANGLES):
            _perturb_rectangle(rng, perturbed)
        union = np.count_nonzero(mask | perturbed)
        if np.count_nonzero(mask & perturbed) < target * union:
            break
    return perturbed


def _perturb_rectangle(rng: np.random.Generator, mask: np.ndarray) -> None:
    """Dilate or erode one rectangle, in place; now and then its centre is flipped first."""
    height, width = mask.shape
    top, left = int(rng.integers(height)), int(rng.integers(width))
    bottom, right = int(rng.integers(top, height)) + 1, int(rng.integers(left, width)) + 1
    if rng.random() < _FLIP_PROBABILITY:
        mask[(top + bottom) // 2, (left + right) // 2] ^= 1
    part = mask[top:bottom, left:right]
    size = int(rng.integers(3, 10))
    element = cv2.getStructuringElement(_SHAPES[rng.integers(len(_SHAPES))], (size, size))
    part[:] = (cv2.dilate if rng.random() < 0.5 else cv2.erode)(part, element)
