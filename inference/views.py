"""Views for test-time augmentation: a frame at several sizes, and mirrored."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from inference.labels import resize_prob
from util.hyper_para import EvalSettings
from util.images import resize_image
from util.masks import resize_labels


class View(NamedTuple):
    """One view of a frame: a multiple of its size, optionally mirrored."""

    scale: float = 1.0
    is_flipped: bool = False

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Resize and mirror an image (H, W, 3) uint8."""
        image = resize_image(image, self.size_of(image))
        return np.ascontiguousarray(image[:, ::-1] if self.is_flipped else image)

    def apply_to_labels(self, labels: np.ndarray) -> np.ndarray:
        """Resize and mirror a label map (H, W) uint8."""
        labels = resize_labels(labels, self.size_of(labels))
        return np.ascontiguousarray(labels[:, ::-1] if self.is_flipped else labels)

    def undo(self, prob: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Map probabilities of the view (O+1, h, w) back to the frame (O+1, H, W)."""
        return resize_prob(prob.flip(-1) if self.is_flipped else prob, size)

    def size_of(self, array: np.ndarray) -> tuple[int, int]:
        """Height and width of the view of an array (H, W, ...)."""
        height, width = array.shape[:2]
        return max(round(height * self.scale), 1), max(round(width * self.scale), 1)


def make_views(settings: EvalSettings) -> list[View]:
    """List the views whose probabilities are averaged; by default one, the frame itself.

    With --size, frames are already resized to the largest scale.
    """
    largest = max(settings.scales) if settings.size else 1.0
    flips = (False, True) if settings.flip else (False,)
    return [View(scale / largest, flip) for scale in settings.scales for flip in flips]
