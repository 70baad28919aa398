"""Region similarity J and boundary accuracy F, the scores of the DAVIS benchmark.

Defined in Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation", CVPR 2016, and computed as in the official davis2017-evaluation code.

Shapes: H W image, h w window of the image, T scored frames.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# Largest distance of matching boundary pixels, as a share of the image's diagonal.
BOUNDARY_TOLERANCE = 0.008
RECALL_THRESHOLD = 0.5
NUM_DECAY_BINS = 4

# A pixel and its right, lower and lower right neighbours.
_NEIGHBOURS = np.ones((2, 2), np.uint8)


@dataclass(frozen=True)
class Statistics:
    """Statistics of J or F over the frames of one object, or their average over objects.

    mean: in [0, 1].
    recall: share of the frames with a score above 0.5.
    decay: mean over the first quarter of the frames minus the mean over the last quarter; lower
        is better.
    All three are NaN if there are no scores.
    """

    mean: float
    recall: float
    decay: float


def region_similarity(prediction: np.ndarray, ground_truth: np.ndarray) -> float:
    """Return J, the intersection of two masks over their union; 1 if both are empty.

    prediction, ground_truth: (H, W) bool. Raises ValueError if their shapes differ.
    """
    prediction, ground_truth = _mask_pair(prediction, ground_truth)
    union = np.count_nonzero(prediction | ground_truth)
    return np.count_nonzero(prediction & ground_truth) / union if union else 1.0


def boundary_accuracy(prediction: np.ndarray, ground_truth: np.ndarray) -> float:
    """Return F, the harmonic mean of precision and recall of the boundary pixels.

    prediction, ground_truth: (H, W) bool. A boundary pixel matches if the other mask has a boundary
    pixel within ceil(0.008 * diagonal) pixels. F is 1 if neither mask has a boundary (empty, or the
    whole frame), and 0 if only one has. Raises ValueError if their shapes differ.
    """
    prediction, ground_truth = _mask_pair(prediction, ground_truth)
    window = _window(prediction | ground_truth)
    return _boundary_accuracy(
        prediction[window], ground_truth[window], boundary_radius(*ground_truth.shape)
    )


def boundary_radius(height: int, width: int) -> int:
    """Return the largest distance of matching boundary pixels, in pixels, for an image size."""
    return math.ceil(BOUNDARY_TOLERANCE * math.hypot(height, width))


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """Return the boundary pixels of a mask. Both (H, W) bool.

    A boundary pixel differs from its right, lower or lower right neighbour. Neighbours outside the
    image are ignored.
    """
    mask = np.ascontiguousarray(mask, dtype=bool).view(np.uint8)
    # Maximum minus minimum of each 2x2 window; OpenCV ignores pixels outside the image.
    gradient = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, _NEIGHBOURS, anchor=(0, 0))
    return gradient.view(bool)


def statistics(values: np.ndarray | Sequence[float]) -> Statistics:
    """Summarise J or F of one object, (T,) in frame order; NaN marks frames without a score.

    Missing values are ignored. The quarters of the decay divide the frames from the first score to
    the last one.
    """
    values = np.asarray(values, dtype=np.float64)
    present = np.flatnonzero(~np.isnan(values))
    if present.size == 0:
        return Statistics(math.nan, math.nan, math.nan)
    values = values[present[0] : present[-1] + 1]
    # As in the official code, neighbouring bins share a frame and 1e-10 rounds halves up. The
    # official code casts the edges to uint8. They overflow from 257 frames on, and it then averages
    # the wrong frames. Here they do not overflow, so the decay of such long videos differs.
    positions = np.linspace(1, len(values), NUM_DECAY_BINS + 1)
    edges = (np.round(positions + 1e-10) - 1).astype(np.int64)
    first = values[edges[0] : edges[1] + 1]
    last = values[edges[-2] : edges[-1] + 1]
    above = np.where(np.isnan(values), np.nan, values > RECALL_THRESHOLD)
    return Statistics(
        mean=_mean_of_present(values),
        recall=_mean_of_present(above),
        decay=_mean_of_present(first) - _mean_of_present(last),
    )


def evaluate_frame(
    prediction: np.ndarray, ground_truth: np.ndarray, labels: Sequence[int]
) -> list[tuple[float, float]]:
    """Return (J, F) of each object on one frame, in the order of `labels`.

    prediction, ground_truth: (H, W) uint8 label maps. labels: objects to score, without 0; other
    labels count as background. Raises ValueError if the shapes differ.
    """
    _check_shapes(prediction, ground_truth)
    radius = boundary_radius(*ground_truth.shape)
    # The window holds all objects of both maps. It gives the same scores in less time.
    window = _window(prediction | ground_truth)
    prediction, ground_truth = prediction[window], ground_truth[window]
    return [
        _evaluate_object(prediction == label, ground_truth == label, radius) for label in labels
    ]


def _evaluate_object(
    prediction: np.ndarray, ground_truth: np.ndarray, radius: int
) -> tuple[float, float]:
    window = _window(prediction | ground_truth)
    prediction, ground_truth = prediction[window], ground_truth[window]
    return region_similarity(prediction, ground_truth), _boundary_accuracy(
        prediction, ground_truth, radius
    )


def _boundary_accuracy(prediction: np.ndarray, ground_truth: np.ndarray, radius: int) -> float:
    """Return F of two (h, w) bool windows that hold both masks completely.

    radius: boundary_radius of the whole image.
    """
    predicted_boundary = boundary_map(prediction)
    true_boundary = boundary_map(ground_truth)
    num_predicted = np.count_nonzero(predicted_boundary)
    num_true = np.count_nonzero(true_boundary)
    if num_predicted == 0 or num_true == 0:
        # Precision and recall of the official code are (1, 1), (1, 0) or (0, 1) here.
        return float(num_predicted == num_true)
    precision = _num_near(predicted_boundary, true_boundary, radius) / num_predicted
    recall = _num_near(true_boundary, predicted_boundary, radius) / num_true
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def _mask_pair(prediction: np.ndarray, ground_truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _check_shapes(prediction, ground_truth)
    return np.asarray(prediction, dtype=bool), np.asarray(ground_truth, dtype=bool)


def _check_shapes(prediction: np.ndarray, ground_truth: np.ndarray) -> None:
    if prediction.shape != ground_truth.shape:
        raise ValueError(
            f"The predicted mask has shape {prediction.shape}, but its ground truth has shape "
            f"{ground_truth.shape}: pass two masks of the same height and width."
        )


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of the smallest window around a mask, plus one pixel.

    Boundary pixels lie up to one pixel outside the mask. The window ends at the image's edge, so
    its boundary map equals that part of the image's boundary map.
    """
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    rows = slice(max(top - 1, 0), top + height + 1)
    columns = slice(max(left - 1, 0), left + width + 1)
    return rows, columns


@functools.lru_cache(maxsize=16)
def _disc(radius: int) -> np.ndarray:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)


def _num_near(boundary: np.ndarray, other: np.ndarray, radius: int) -> int:
    """Count the pixels of `boundary` within `radius` pixels of any pixel of `other`."""
    near = cv2.dilate(other.view(np.uint8), _disc(radius)).view(bool)
    return int(np.count_nonzero(boundary & near))


def _mean_of_present(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else math.nan
