"""Region similarity J and boundary accuracy F, the measures of the DAVIS benchmark.

Definitions: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation", CVPR 2016, as the official davis2017-evaluation code computes them.

Shapes: H W image, O objects, T scored frames.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# Of the image's diagonal: how far a boundary pixel may lie from the boundary it matches.
BOUNDARY_TOLERANCE = 0.008
RECALL_THRESHOLD = 0.5
NUM_DECAY_BINS = 4

# A pixel with its east, south and south-east neighbours.
_NEIGHBOURS = np.ones((2, 2), np.uint8)


@dataclass(frozen=True)
class Statistics:
    """A measure over the frames of one object, or the average of such over objects.

    mean: in [0, 1]. recall: the share of frames above 0.5. decay: the mean of the first quarter
    of the frames less the mean of the last, so lower is better. NaN where there are no values.
    """

    mean: float
    recall: float
    decay: float


def region_similarity(prediction: np.ndarray, ground_truth: np.ndarray) -> float:
    """Return J, the intersection of two masks over their union; 1 when both are empty.

    prediction, truth: (H, W) bool. Raises ValueError when their shapes differ.
    """
    prediction, ground_truth = _mask_pair(prediction, ground_truth)
    union = np.count_nonzero(prediction | ground_truth)
    return np.count_nonzero(prediction & ground_truth) / union if union else 1.0


def boundary_accuracy(prediction: np.ndarray, ground_truth: np.ndarray) -> float:
    """Return F, the harmonic mean of the precision and the recall of the boundary's pixels.

    prediction, truth: (H, W) bool. A boundary pixel counts when the other mask has one within
    ceil(0.008 * diagonal) pixels. Masks without any boundary (empty, or the whole frame) agree
    with each other (1) and with nothing else (0). Raises ValueError when their shapes differ.
    """
    prediction, ground_truth = _mask_pair(prediction, ground_truth)
    window = _window(prediction | ground_truth)
    return _boundary_accuracy(
        prediction[window], ground_truth[window], boundary_radius(*ground_truth.shape)
    )


def boundary_radius(height: int, width: int) -> int:
    """Return the distance in pixels within which boundaries match, in an image of this size."""
    return math.ceil(BOUNDARY_TOLERANCE * math.hypot(height, width))


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """Return the (H, W) bool map of the pixels of `mask`, (H, W) bool, that lie on its boundary.

    Such a pixel differs from its east, south or south-east neighbour. Neighbours outside the
    image do not count: the last row looks east only, the last column south only.
    """
    mask = np.ascontiguousarray(mask, dtype=bool).view(np.uint8)
    # The largest less the smallest of each 2x2 window; OpenCV leaves pixels outside out of both.
    gradient = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, _NEIGHBOURS, anchor=(0, 0))
    return gradient.view(bool)


def statistics(values: np.ndarray | Sequence[float]) -> Statistics:
    """Summarise the values of one measure, (T,) in the frames' order; NaN marks a missing one.

    Frames before the first value and after the last are not the object's: the decay's quarters are
    those of the frames between. Missing values among these are left out of the mean, of the recall
    and of the decay's bins.
    """
    values = np.asarray(values, dtype=np.float64)
    present = np.flatnonzero(~np.isnan(values))
    if present.size == 0:
        return Statistics(math.nan, math.nan, math.nan)
    values = values[present[0] : present[-1] + 1]
    # Neighbouring bins share a frame and 1e-10 rounds halves up, both as the official code has it.
    # That code casts the edges to uint8, which wraps from 257 frames on and then averages wrong
    # frames; here they do not wrap, so the decay of such long videos differs from its figure.
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

    prediction, truth: (H, W) uint8 label maps; labels: of the objects, not 0. Other labels are
    background. Raises ValueError when the shapes differ.
    """
    _check_shapes(prediction, ground_truth)
    radius = boundary_radius(*ground_truth.shape)
    # Outside what either map shows, all objects are absent from both: the measures are the same,
    # and cheaper, on the window that holds it.
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
    """F of (h, w) bool windows that hold all of both masks; radius: of the whole image."""
    predicted_boundary = boundary_map(prediction)
    true_boundary = boundary_map(ground_truth)
    num_predicted = np.count_nonzero(predicted_boundary)
    num_true = np.count_nonzero(true_boundary)
    if num_predicted == 0 or num_true == 0:
        # The official precision and recall are then (1, 1), (1, 0) or (0, 1).
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
            f"The predicted mask has the shape {prediction.shape} and the true one "
            f"{ground_truth.shape}; give both at the same height and width."
        )


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns that hold all of `mask` and a pixel around it.

    That pixel makes a boundary map of the window equal the image's own: a boundary lies up to one
    pixel outside the mask, and at the image's edge the window ends where the image does.
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
    """Count the pixels of `boundary` that have a pixel of `other` within `radius` of them."""
    near = cv2.dilate(other.view(np.uint8), _disc(radius)).view(bool)
    return int(np.count_nonzero(boundary & near))


def _mean_of_present(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else math.nan
