"""Aids for drawing: hints, refinement, scissors, and operations on masks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from annotator import aids

Image = np.ndarray


def disc(size: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def picture(mask: np.ndarray, noise: float = 6) -> Image:
    """A blue object on green, with noise."""
    rng = np.random.default_rng(0)
    colours = np.where(mask[..., None], (40, 60, 190), (70, 160, 60))
    return np.clip(colours + rng.normal(0, noise, (*mask.shape, 3)), 0, 255).astype(np.uint8)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.parametrize("scale", [1, 6])
def test_watershed_separates_two_regions_by_two_strokes(scale: int) -> None:
    truth = np.zeros((100 * scale, 140 * scale), bool)
    truth[20 * scale : 80 * scale, 30 * scale : 70 * scale] = True
    inside = [[(50 * scale, 30 * scale), (50 * scale, 70 * scale)]]
    outside = [[(90 * scale, 30 * scale), (90 * scale, 70 * scale)]]
    mask = aids.watershed(picture(truth), inside, outside, 5 * scale)
    assert mask.shape == truth.shape
    assert mask.dtype == np.bool_
    assert iou(mask, truth) > 0.95


def test_watershed_needs_no_outside_hint() -> None:
    truth = disc((120, 160), 80, 60, 30)
    for hint in ([(70, 60), (90, 60)], [(80, 60)]):  # a line and a dot
        assert iou(aids.watershed(picture(truth), [hint], [], 6), truth) > 0.95


def test_an_outside_hint_removes_a_part_of_equal_colour() -> None:
    two = disc((100, 220), 70, 50, 24) | disc((100, 220), 110, 50, 24)
    inside, outside = [[(50, 50), (90, 50)]], [[(112, 40), (112, 60)]]
    image = picture(two)
    assert aids.watershed(image, inside, [], 4)[50, 112:125].all()
    mask = aids.watershed(image, inside, outside, 4)
    assert not mask[50, 112:].any()
    assert mask[50, 50:90].all()


def test_hints_reach_the_border_and_leave_the_image() -> None:
    truth = np.zeros((80, 100), bool)
    truth[40:, :50] = True
    mask = aids.watershed(picture(truth), [[(-30, 60), (25, 60), (25, 500)]], [], 6)
    assert mask[60, 0]
    assert mask[79, 25]
    assert not mask[:38].any()


def test_hints_are_always_followed() -> None:
    image = np.full((400, 500, 3), 100, np.uint8)
    mask = aids.watershed(image, [[(100, 100), (300, 300)]], [[(120, 100), (320, 300)]], 3)
    assert mask[200, 200]
    assert not mask[200, 220]
    assert aids.watershed(image, [[(5, 5)]], [], 1)[5, 5]  # a dot


@pytest.mark.parametrize(
    ("inside", "width", "words"),
    [
        ([], 3, "draw at least one line"),
        ([[]], 3, "draw at least one line"),
        ([[(500, 500), (600, 600)]], 3, "draw at least one line"),
        ([[(float("nan"), 1)]], 3, "list of points"),
        ([[(1, 2)]], 0, "width of a hint"),
    ],
)
def test_watershed_rejects_invalid_hints(
    inside: list[list[tuple[float, float]]], width: float, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        aids.watershed(np.zeros((20, 30, 3), np.uint8), inside, [], width)


@pytest.mark.parametrize("scale", [1, 4])
def test_grabcut_mends_a_coarse_outline_within_its_band(scale: int) -> None:
    size = (150 * scale, 200 * scale)
    truth = disc(size, 100 * scale, 75 * scale, 40 * scale)
    coarse = disc(size, 102 * scale, 76 * scale, 42 * scale)
    mask = aids.grabcut(picture(truth), coarse)
    assert iou(mask, truth) > max(iou(coarse, truth), 0.97)
    band = 0.06 * np.sqrt(coarse.sum()) + 1
    far = ~aids.grow(coarse, band) | aids.shrink(coarse, band)
    np.testing.assert_array_equal(mask[far], coarse[far])


def test_grabcut_keeps_an_outline_without_contrast() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(90, 110, (120, 160, 3)).astype(np.uint8)
    mask = disc((120, 160), 80, 60, 30)
    assert iou(aids.grabcut(image, mask), mask) > 0.95


def test_grabcut_of_tiny_full_and_cut_objects() -> None:
    image = picture(disc((60, 80), 0, 30, 20))
    tiny = np.zeros((60, 80), bool)
    tiny[30, 5] = True
    assert aids.grabcut(image, tiny).shape == (60, 80)
    assert aids.grabcut(image, np.ones((60, 80), bool)).all()
    cut = aids.grabcut(image, disc((60, 80), 0, 30, 21))
    assert iou(cut, disc((60, 80), 0, 30, 20)) > 0.95
    assert cut[30, 0]


def test_grabcut_gives_equal_masks_again() -> None:
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (90, 90, 3)).astype(np.uint8)
    mask, before = disc((90, 90), 45, 45, 25), disc((90, 90), 45, 45, 25)
    first = aids.grabcut(image, mask)
    np.testing.assert_array_equal(first, aids.grabcut(image, mask))
    np.testing.assert_array_equal(mask, before)


def test_grabcut_rejects_invalid_masks() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(ValueError, match="empty"):
        aids.grabcut(image, np.zeros((20, 30), bool))
    with pytest.raises(ValueError, match="31x20"):
        aids.grabcut(image, np.ones((20, 31), bool))
    with pytest.raises(ValueError, match="iterations"):
        aids.grabcut(image, np.ones((20, 30), bool), 0)
    with pytest.raises(ValueError, match="uint8"):
        aids.grabcut(image.astype(float), np.ones((20, 30), bool))


def test_scissors_follow_an_edge_around_a_corner() -> None:
    truth = np.zeros((120, 160), bool)
    truth[30:, 40:] = True
    path = aids.scissors(picture(truth, noise=1), (40, 90), (120, 30))
    assert path[0].tolist() == [40, 90]
    assert path[-1].tolist() == [120, 30]
    canvas = np.ones((120, 160), np.uint8)
    cv2.polylines(canvas, [path.astype(np.int32).reshape(-1, 1, 2)], False, 0)
    distance = cv2.distanceTransform(canvas, cv2.DIST_L2, 5)
    edge = np.concatenate([distance[30:90, 40], distance[30, 40:120]])
    assert edge.mean() < 1.5


def test_scissors_return_points_in_the_image() -> None:
    image = picture(disc((1000, 1200), 600, 500, 300))
    path = aids.scissors(image, (-50, 20.4), (5000, 900))
    assert path[0].tolist() == [0, 20]
    assert path[-1].tolist() == [1199, 900]
    assert path.min() >= 0
    assert (path < (1200, 1000)).all()
    assert aids.scissors(image, (10, 10), (10, 10)).tolist() == [[10, 10], [10, 10]]
    assert len(aids.scissors(np.zeros((2, 300, 3), np.uint8), (0, 0), (299, 1))) == 2
    with pytest.raises(ValueError, match="points"):
        aids.scissors(image, (float("inf"), 0), (1, 1))


def test_fill_holes_keeps_bays_and_the_border() -> None:
    mask = np.zeros((30, 40), bool)
    mask[5:20, 5:25] = True
    mask[8:12, 8:12] = False  # a hole
    mask[15:20, 20:25] = False  # a bay
    mask[:5, 35] = mask[4, 35:] = True  # with the corner of the image
    expected = mask.copy()
    expected[8:12, 8:12] = True
    np.testing.assert_array_equal(aids.fill_holes(mask), expected)


def test_largest_part() -> None:
    mask = disc((40, 60), 15, 15, 8) | disc((40, 60), 40, 20, 10)
    np.testing.assert_array_equal(aids.largest_part(mask), disc((40, 60), 40, 20, 10))
    empty = np.zeros((5, 5), bool)
    np.testing.assert_array_equal(aids.largest_part(empty), empty)


def test_grow_and_shrink_are_round_and_keep_the_border() -> None:
    mask = np.zeros((50, 60), bool)
    mask[25, 30] = True
    np.testing.assert_array_equal(aids.grow(mask, 8), disc((50, 60), 30, 25, 8))
    np.testing.assert_array_equal(aids.shrink(aids.grow(mask, 8), 8), mask)
    np.testing.assert_array_equal(aids.grow(mask, 0), mask)
    assert not aids.grow(np.zeros((4, 4), bool), 3).any()
    half = np.zeros((50, 60), bool)
    half[:, :20] = True
    expected = np.zeros((50, 60), bool)
    expected[:, :17] = True  # not smaller at the other three sides
    np.testing.assert_array_equal(aids.shrink(half, 3), expected)
    assert aids.shrink(np.ones((9, 9), bool), 3).all()
    with pytest.raises(ValueError, match="0 or more"):
        aids.grow(mask, -1)
    with pytest.raises(ValueError, match="bool"):
        aids.shrink(mask.astype(np.uint8), 1)
