"""Masks of one frame with measures of their reliability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from inference.labels import label_map
from inference.propagation import Probabilities, SegmentedFrame

# Largest shorter and longer side of a pooled query key, in positions: half of those at 480p.
_KEY_SIDES = (15, 27)
# Lower probabilities count as 0. There are many such pixels, and none of the object.
_FAINT = 1 / 255


@dataclass(frozen=True, eq=False)
class FrameResult:
    """Masks of one frame.

    index: position in the video, from 0.
    labels: (H, W) uint8 label map at native size.
    confidence: label -> expected IoU of the mask with the true mask, in [0, 1], see `confidences`.
    quality: label -> quality predicted by the network; empty unless the method predicts it for this
        frame (QDMN).
    agreement: label -> IoU of the masks of the two directions; only of "both", and of objects that
        both directions segment.
    key: float16 (CK, h, w), the query key, pooled to 15x27 positions at most; None on frames
        without objects.
    """

    index: int
    labels: np.ndarray
    confidence: dict[int, float]
    quality: dict[int, float]
    agreement: dict[int, float]
    key: np.ndarray | None


def make_result(segmented: SegmentedFrame, size: tuple[int, int]) -> FrameResult:
    """Compute masks at `size` (H, W) and the measures of a segmented frame."""
    assert segmented.prob is not None
    prob, labels = segmented.prob, segmented.labels
    return FrameResult(
        segmented.frame.index,
        label_map(prob, labels, size),
        confidences(prob, labels),
        segmented.quality,
        {} if segmented.directions is None else agreements(*segmented.directions),
        None if segmented.key is None else pool_key(segmented.key),
    )


def confidences(prob: torch.Tensor, labels: Sequence[int]) -> dict[int, float]:
    """Expected IoU of each object's mask, if the probabilities of all pixels are right.

    With the mask m of the pixels where the object is most probable, it is
    sum(p * m) / sum(p + m - p * m): expected intersection by expected union. For an empty mask, it
    is 1 - max(p), an upper bound of the probability that the object is absent.

    Args:
        prob: (O+1, h, w), background first.
        labels: of the objects.

    Returns:
        Label -> value in [0, 1].
    """
    highest = prob.amax(0)  # (h, w)
    is_taken = prob[0] == highest  # as in label_map, the first of equal ones counts
    sums = []
    for p in prob[1:]:
        mask = (p == highest) & ~is_taken
        is_taken |= mask
        inside = torch.where(mask, p, 0).sum()
        outside = torch.where(mask | (p < _FAINT), 0, p).sum()
        sums.append(torch.stack([inside, outside, mask.sum().to(p.dtype), p.amax()]))
    if not sums:
        return {}
    return {
        label: inside / (area + outside) if area else 1 - peak
        for label, (inside, outside, area, peak) in zip(
            labels, torch.stack(sums).tolist(), strict=True
        )
    }


def agreements(first: Probabilities, second: Probabilities) -> dict[int, float]:
    """IoU of the masks of each object that two propagations segment; 1 if both are empty.

    Args:
        first, second: (O+1, h, w) with the labels of the objects.
    """
    size = (first[0].shape[-2], first[0].shape[-1])
    maps = [label_map(prob, labels, size) for prob, labels in (first, second)]
    result = {}
    for label in sorted({*first[1]} & {*second[1]}):
        masks = [m == label for m in maps]
        union = np.count_nonzero(masks[0] | masks[1])
        result[label] = np.count_nonzero(masks[0] & masks[1]) / union if union else 1.0
    return result


def pool_key(key: torch.Tensor) -> np.ndarray:
    """Average a query key (CK, h, w) to float16 (CK, <=15, <=27); portrait: (CK, <=27, <=15)."""
    height, width = key.shape[-2:]
    shorter, longer = _KEY_SIDES
    limits = (shorter, longer) if height <= width else (longer, shorter)
    size = (min(height, limits[0]), min(width, limits[1]))
    return F.adaptive_avg_pool2d(key.float(), size).half().cpu().numpy()
