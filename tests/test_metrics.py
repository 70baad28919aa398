"""J and F of masks, and their statistics over frames."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.metrics import (
    Statistics,
    boundary_accuracy,
    boundary_map,
    boundary_radius,
    evaluate_frame,
    region_similarity,
    statistics,
)


def mask(height: int, width: int, *boxes: tuple[slice, slice]) -> np.ndarray:
    result = np.zeros((height, width), dtype=bool)
    for box in boxes:
        result[box] = True
    return result


EMPTY = mask(10, 10)
FULL = ~EMPTY
LEFT_HALF = mask(10, 10, np.s_[:, :5])
PIXEL = mask(10, 10, np.s_[5:6, 5:6])


@pytest.mark.parametrize(
    ("prediction", "ground_truth", "region", "boundary"),
    [
        (EMPTY, EMPTY, 1, 1),
        (EMPTY, PIXEL, 0, 0),
        (PIXEL, EMPTY, 0, 0),
        # A mask of the whole frame has no boundary.
        (FULL, FULL, 1, 1),
        (FULL, EMPTY, 0, 1),
        (FULL, LEFT_HALF, 0.5, 0),
        (LEFT_HALF, FULL, 0.5, 0),
        (LEFT_HALF, LEFT_HALF, 1, 1),
    ],
)
def test_masks_without_a_boundary(
    prediction: np.ndarray, ground_truth: np.ndarray, region: float, boundary: float
) -> None:
    assert region_similarity(prediction, ground_truth) == region
    assert boundary_accuracy(prediction, ground_truth) == boundary


@pytest.mark.parametrize(
    ("height", "width", "radius"),
    [(480, 854, 8), (240, 432, 4), (100, 100, 2), (10, 10, 1), (480, 910, 9)],
)
def test_radius_is_a_share_of_the_diagonal_rounded_up(height: int, width: int, radius: int) -> None:
    assert boundary_radius(height, width) == radius


@pytest.mark.parametrize(("shift", "boundary"), [(0, 1), (2, 1), (3, 0)])
def test_boundaries_match_up_to_the_radius(shift: int, boundary: float) -> None:
    # The radius is 2 in a 100x100 image. The boundaries are straight lines `shift` pixels apart.
    prediction = mask(100, 100, np.s_[:, :50])
    ground_truth = mask(100, 100, np.s_[:, : 50 + shift])
    assert region_similarity(prediction, ground_truth) == 50 / (50 + shift)
    assert boundary_accuracy(prediction, ground_truth) == boundary


def test_boundaries_match_within_a_disc_not_a_square() -> None:
    # The boundary of one pixel is the pixel and its left, upper and upper left neighbours. Of each
    # four, the far corner is a diagonal step away from the other mask's four: outside radius 1.
    assert boundary_accuracy(PIXEL, np.roll(PIXEL, (1, 1), axis=(0, 1))) == 0.75


def test_f_combines_precision_and_recall() -> None:
    one = mask(40, 40, np.s_[5:10, 5:10])
    two = mask(40, 40, np.s_[5:10, 5:10], np.s_[25:30, 25:30])
    # Precision 1 and recall 1/2, or vice versa.
    assert region_similarity(one, two) == 0.5
    assert boundary_accuracy(one, two) == pytest.approx(2 / 3)
    assert boundary_accuracy(two, one) == pytest.approx(2 / 3)


def test_boundary_in_the_last_row_and_column() -> None:
    corner = mask(4, 4, np.s_[3:, 3:])
    expected = mask(4, 4, np.s_[2:3, 2:4], np.s_[3:4, 2:3])  # without the corner pixel
    np.testing.assert_array_equal(boundary_map(corner), expected)
    bottom = mask(4, 4, np.s_[3:, :])
    np.testing.assert_array_equal(boundary_map(bottom), mask(4, 4, np.s_[2:3, :]))


def slow_boundary_map(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    result = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            block = image[y : y + 2, x : x + 2]
            result[y, x] = (block != image[y, x]).any()
    return result


def slow_boundary_accuracy(prediction: np.ndarray, ground_truth: np.ndarray, radius: int) -> float:
    predicted, true = (np.argwhere(slow_boundary_map(mask)) for mask in (prediction, ground_truth))
    if len(predicted) == 0 or len(true) == 0:
        return float(len(predicted) == len(true))
    squares = ((predicted[:, None] - true[None]) ** 2).sum(axis=2)
    near = squares <= radius * radius
    precision, recall = near.any(axis=1).mean(), near.any(axis=0).mean()
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def test_scores_equal_a_pixel_by_pixel_implementation() -> None:
    generator = np.random.default_rng(0)
    scores = []
    for _ in range(150):
        height, width = generator.integers(1, 40, size=2)
        pair = np.zeros((2, height, width), dtype=bool)
        for image in pair:  # boxes, often cut by the image's edge, some with noise
            top, left = generator.integers(-5, height), generator.integers(-5, width)
            box = np.s_[max(top, 0) : top + 12, max(left, 0) : left + 12]
            image[box] = generator.random(image[box].shape) < generator.choice([0.7, 1.0])
        prediction, ground_truth = pair
        np.testing.assert_array_equal(boundary_map(prediction), slow_boundary_map(prediction))
        expected = slow_boundary_accuracy(prediction, ground_truth, boundary_radius(height, width))
        scores.append(boundary_accuracy(prediction, ground_truth))
        assert scores[-1] == pytest.approx(expected)
    assert sum(0 < score < 1 for score in scores) > 50


def test_masks_may_be_views_or_have_other_number_types() -> None:
    prediction = mask(30, 40, np.s_[5:20, 10:30])
    ground_truth = mask(30, 40, np.s_[8:20, 10:30])
    expected = (
        region_similarity(prediction, ground_truth),
        boundary_accuracy(prediction, ground_truth),
    )
    wide = np.repeat(prediction, 2, axis=1)[:, ::2]
    labels = ground_truth.astype(np.int64) * 7
    assert (region_similarity(wide, labels), boundary_accuracy(wide, labels)) == expected


@pytest.mark.parametrize("measure", [region_similarity, boundary_accuracy])
def test_masks_of_different_size_are_refused(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(ValueError, match=r"shape \(10, 10\), but its .* shape \(10, 12\)"):
        measure(EMPTY, mask(10, 12))


def test_statistics_of_eight_frames() -> None:
    values = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    # The bins are frames 0-2, 2-4, 4-5, 5-7. A value of 0.5 is not above 0.5.
    result = statistics(values)
    assert result.mean == pytest.approx(0.55)
    assert result.recall == 0.5
    assert result.decay == pytest.approx(0.8 - 0.3)


def test_decay_of_a_long_video_does_not_overflow() -> None:
    # 1000 frames: the first bin is 0-250, the last 749-999; 8-bit edges would overflow.
    result = statistics(np.linspace(1, 0, 1000))
    assert result.decay == pytest.approx((874 - 125) / 999)


def test_statistics_ignore_missing_values() -> None:
    result = statistics([1.0, math.nan, 0.6, 0.4, math.nan, 0.2])
    # Six frames: the first bin is 0-1, the last 4-5.
    assert result.mean == pytest.approx(0.55)
    assert result.recall == 0.5
    assert result.decay == pytest.approx(1.0 - 0.2)


def test_decay_of_a_later_object_ignores_frames_without_it() -> None:
    values = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    assert statistics([math.nan] * 30 + values + [math.nan] * 3) == statistics(values)


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_statistics_of_no_values_are_nan(values: list[float]) -> None:
    result = statistics(values)
    assert all(math.isnan(value) for value in (result.mean, result.recall, result.decay))


def test_statistics_of_one_frame() -> None:
    assert statistics([0.75]) == Statistics(mean=0.75, recall=1.0, decay=0.0)


def test_scores_of_a_frame_are_in_the_order_of_the_labels() -> None:
    ground_truth = np.zeros((20, 20), dtype=np.uint8)
    ground_truth[2:8, 2:8] = 1
    ground_truth[10:16, 10:16] = 3
    ground_truth[0, 19] = 255  # not the label of an object, so background
    only_first = np.where(ground_truth == 1, ground_truth, 0)
    empty = np.zeros_like(ground_truth)
    assert evaluate_frame(ground_truth, ground_truth, [3, 1]) == [(1, 1), (1, 1)]
    assert evaluate_frame(only_first, ground_truth, [3, 1]) == [(0, 0), (1, 1)]
    assert evaluate_frame(empty, ground_truth, [3, 1]) == [(0, 0), (0, 0)]
    assert evaluate_frame(empty, empty, [3, 1]) == [(1, 1), (1, 1)]
    assert evaluate_frame(ground_truth, ground_truth, []) == []


def test_each_object_is_scored_independently() -> None:
    generator = np.random.default_rng(1)
    for _ in range(60):
        height, width = generator.integers(1, 40, size=2)
        maps = np.zeros((2, height, width), dtype=np.uint8)
        for labels in maps:
            for label in (1, 2, 9):  # overlapping boxes, often cut by the image's edge
                top, left = generator.integers(-5, height), generator.integers(-5, width)
                labels[max(top, 0) : top + 9, max(left, 0) : left + 9] = label
        expected = [
            (region_similarity(*(maps == label)), boundary_accuracy(*(maps == label)))
            for label in (1, 2, 9)
        ]
        assert evaluate_frame(maps[0], maps[1], [1, 2, 9]) == expected


def test_frames_of_different_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(4, 4\), but its .* shape \(4, 5\)"):
        evaluate_frame(np.ones((4, 4), np.uint8), np.ones((4, 5), np.uint8), [1])
