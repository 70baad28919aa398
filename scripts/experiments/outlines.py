"""Outline of a mask by few points, as a careful person would click them."""

from __future__ import annotations

import math

import cv2
import numpy as np

# Masks are upsampled by this factor, so that outlines follow the borders of pixels.
_UPSAMPLING = 3
# Points of a contour from which the corners are chosen, evenly spaced.
_NUM_CANDIDATES = 240
_MIN_POINTS = 4  # of a part
# Smaller parts, relative to the object's area, are left out.
_MIN_PART = 0.01
_NUM_PASSES = 4
_STEPS = (-8, -4, -2, -1, 1, 2, 4, 8)  # along the candidates


def outline(mask: np.ndarray, num_points: int, min_distance: float = 0) -> list[np.ndarray]:
    """Outline an object by polygons whose corners lie on its outer contours.

    The corners first minimise the distance between the polygon and the contour (dynamic
    programming); each corner then moves along the contour while the IoU increases. Several parts
    share the points by the lengths of their contours. Holes are ignored.

    Args:
        mask: (H, W) bool.
        num_points: number of points of all polygons together, at least 4.
        min_distance: smallest distance between two points of a polygon, in pixels. Contours that
            are too short for it get fewer points.

    Returns:
        Polygons (k, 2), x and y in pixels, where (0, 0) is the top left corner of the first pixel;
        the largest first. Empty for an empty mask.
    """
    if not mask.any():
        return []
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    crop = mask[y : y + height, x : x + width].astype(np.uint8)
    crop = crop.repeat(_UPSAMPLING, axis=0).repeat(_UPSAMPLING, axis=1)
    found, _ = cv2.findContours(crop, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contours = _largest([contour[:, 0].astype(np.float64) for contour in found], num_points)
    lengths = [len(contour) for contour in contours]
    polygons = []
    for contour, count in zip(contours, _share(lengths, num_points), strict=True):
        corners = _fit(contour, count, min_distance * _UPSAMPLING)
        if len(corners) > 2:
            polygons.append((corners + 0.5) / _UPSAMPLING + (x, y))
    return polygons


def fill(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Fill polygons: (H, W) bool, the pixels whose centres are inside."""
    height, width = size
    mask = np.zeros((height * _UPSAMPLING, width * _UPSAMPLING), np.uint8)
    for polygon in polygons:
        _fill(mask, polygon * _UPSAMPLING - 0.5)
    return mask[_UPSAMPLING // 2 :: _UPSAMPLING, _UPSAMPLING // 2 :: _UPSAMPLING] > 0


def _largest(contours: list[np.ndarray], num_points: int) -> list[np.ndarray]:
    """Select the contours of the largest parts, largest first."""
    areas = [_area(contour) for contour in contours]
    order = np.argsort(areas)[::-1][: num_points // _MIN_POINTS]
    limit = _MIN_PART * sum(areas)
    return [contours[i] for i in order if i == order[0] or areas[i] >= limit]


def _area(contour: np.ndarray) -> float:
    return cv2.contourArea(contour.astype(np.float32))


def _share(lengths: list[int], num_points: int) -> list[int]:
    """Distribute points in proportion to lengths; each gets at least _MIN_POINTS."""
    counts = [max(_MIN_POINTS, math.floor(num_points * n / sum(lengths))) for n in lengths]
    while sum(counts) > num_points:
        counts[int(np.argmax(counts))] -= 1
    while sum(counts) < num_points:
        counts[int(np.argmax([n / k for n, k in zip(lengths, counts, strict=True)]))] += 1
    return counts


def _fit(contour: np.ndarray, num_points: int, min_distance: float) -> np.ndarray:
    """Choose corners (k, 2) of a closed contour (n, 2)."""
    num_candidates = min(len(contour), _NUM_CANDIDATES)
    points = contour[np.linspace(0, len(contour), num_candidates, endpoint=False).astype(int)]
    chosen = _choose(points, min(num_points, len(points)))
    chosen = _spread(points, chosen, min_distance)
    offset = contour.min(axis=0)
    size = (np.ptp(contour, axis=0).astype(int) + 1)[::-1]
    truth = _fill(np.zeros(size, np.uint8), contour - offset)
    return points[_climb(points, chosen, truth, offset, min_distance)]


def _choose(points: np.ndarray, num_corners: int) -> list[int]:
    """Choose the corners that minimise the sum of distances between the contour and the chords."""
    costs = _chord_costs(points)
    start = 0
    corners: list[int] = []
    for _ in range(2):  # the second round starts at a corner instead of anywhere
        corners = sorted((i + start) % len(points) for i in _path(costs, start, num_corners))
        start = corners[len(corners) // 2]
    return corners


def _chord_costs(points: np.ndarray) -> np.ndarray:
    """Cost (n, n) of the chord from i over the points i + 1, i + 2, ... to i + 1 + j."""
    n = len(points)
    costs = np.empty((n, n))
    for i in range(n):
        chain = np.roll(points, -i, axis=0)
        chain = np.concatenate([chain[1:], chain[:1]]) - chain[0]  # ends where it starts
        length = np.hypot(chain[:, 0], chain[:, 1])
        cross = np.abs(np.outer(chain[:, 0], chain[:, 1]) - np.outer(chain[:, 1], chain[:, 0]))
        cross /= np.maximum(length, 1e-9)  # distance of point [row] to the chord to [column]
        costs[i] = np.triu(np.where(length > 0, cross, length[:, None])).sum(axis=0)
    return costs


def _path(costs: np.ndarray, start: int, num_corners: int) -> list[int]:
    """Cheapest closed chain of `num_corners` chords; its corners relative to `start`."""
    n = len(costs)
    # Cost of a chord from i to j, both relative to the start; n is the start again.
    table = np.full((n + 1, n + 1), np.inf)
    for i in range(n):
        table[i, i + 1 :] = costs[(i + start) % n, : n - i]
    best = np.where(np.arange(n + 1) == 0, 0.0, np.inf)
    origins = []
    for _ in range(num_corners):
        total = best[:, None] + table
        origins.append(total.argmin(axis=0))
        best = total.min(axis=0)
    corners, position = [], n
    for origin in reversed(origins):
        position = int(origin[position])
        corners.append(position)
    return corners


def _spread(points: np.ndarray, chosen: list[int], min_distance: float) -> list[int]:
    """Leave out corners that are too close to an earlier one."""
    kept: list[int] = []
    for corner in chosen:
        if _is_apart(points, corner, kept, min_distance):
            kept.append(corner)
    return kept


def _is_apart(points: np.ndarray, corner: int, others: list[int], min_distance: float) -> bool:
    return all(np.hypot(*(points[corner] - points[i])) >= min_distance for i in others)


def _climb(
    points: np.ndarray,
    chosen: list[int],
    truth: np.ndarray,
    offset: np.ndarray,
    min_distance: float,
) -> list[int]:
    """Move the corners along the contour while the IoU with a mask (h, w) increases."""

    def iou(corners: list[int]) -> float:
        filled = _fill(np.zeros_like(truth), points[corners] - offset)
        return int(np.count_nonzero(filled & truth)) / int(np.count_nonzero(filled | truth))

    best = iou(chosen)
    for _ in range(_NUM_PASSES):
        before = best
        for position in range(len(chosen)):
            for step in _STEPS:
                moved = (chosen[position] + step) % len(points)
                others = chosen[:position] + chosen[position + 1 :]
                if moved in others or not _is_apart(points, moved, others, min_distance):
                    continue
                candidate = [*chosen[:position], moved, *chosen[position + 1 :]]
                if (score := iou(candidate)) > best:
                    best, chosen = score, candidate
        if best == before:
            break
    return chosen


def _fill(mask: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Fill a polygon (k, 2) in a mask (h, w) uint8 with 1."""
    return cv2.fillPoly(mask, [np.round(polygon).astype(np.int32)], 1)
