"""Aids for drawing masks: watershed, GrabCut, scissors, and operations on masks.

Pure functions on arrays. An image is (H, W, 3) uint8 RGB, a mask (H, W) bool. Points are (x, y) in
pixels and may lie outside the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from annotator import crops
from annotator.crops import Polyline, check_image, check_mask, check_pixels

_INSIDE, _OUTSIDE = 1, 2  # markers of the watershed; 0 is undecided
# Pixels of the first watershed. A second one at (nearly) full size decides only the pixels near its
# outline. Both take a fifth of the time of one at full size and are as accurate.
_WATERSHED_PIXELS = 40_000
_SECOND_WATERSHED_PIXELS = 400_000
_WATERSHED_BAND = 1.5  # half width of that band, in pixels of the first watershed
# Smallest margin of the searched box, relative to the shorter side of the image. On 72 photographs,
# 0.3 raises the IoU of one dot from 0.01 to 0.31, and lowers that of one long stroke by 0.02.
_WATERSHED_MARGIN = 0.3
_GRABCUT_SIDE = 256  # longer side of the crop in pixels
_GRABCUT_BAND = 0.06  # half width of the undecided band, relative to the root of the object's area
# Smallest contrast of a changed outline, relative to the given one's. On 54 photographs, it raises
# the IoU of outlines of 24 points from 0.88 to 0.90, of exact ones from 0.91 to 0.96.
_GRABCUT_CONTRAST = 1.5
_SCISSORS_PIXELS = 100_000


def watershed(
    image: np.ndarray, inside: Sequence[Polyline], outside: Sequence[Polyline], width: float
) -> np.ndarray:
    """Segment one object from hints by watershed of the colours.

    Only a box around the inside hints is searched. It is larger by their extent on each side, at
    least by 30 % of the image's shorter side, and its border counts as outside.

    Args:
        image: (H, W, 3) uint8 RGB.
        inside: polylines within the object, at least one.
        outside: polylines outside it. Where hints overlap, `inside` has priority.
        width: of the lines in pixels.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: the image or a point is invalid, or no inside hint lies within the image.
    """
    check_image(image)
    lines_inside = [crops.line_points(line, image) for line in inside if len(line)]
    lines_outside = [crops.line_points(line, image) for line in outside if len(line)]
    if not 0 < width < math.inf:
        raise ValueError(f"The width of a hint must be above 0 pixels; it is {width}.")
    size = image.shape[:2]
    drawn = crops.draw_lines(np.zeros(size, np.uint8), lines_outside, width, _OUTSIDE)
    crops.draw_lines(drawn, lines_inside, width, _INSIDE)
    if not (drawn == _INSIDE).any():
        raise ValueError("No hint lies inside the object: draw at least one line within it.")
    points = np.concatenate(lines_inside)
    margin = max(np.ptp(points, axis=0).max(), _WATERSHED_MARGIN * min(size)) + width + 2
    box = crops.crop_box(points.min(axis=0) - margin, points.max(axis=0) + margin + 1, size)
    offset = np.array([box[1].start, box[0].start])
    area = drawn[box].size
    factor = crops.reduction_factor(area, _SECOND_WATERSHED_PIXELS)
    crop = crops.reduce(image[box], factor)
    small_factor = crops.reduction_factor(area / factor**2, _WATERSHED_PIXELS)
    small = crops.reduce(crop, small_factor)
    pad = 2  # `cv2.watershed` ignores markers in the outermost row; hints may touch the border
    markers = np.full((small.shape[0] + 2 * pad, small.shape[1] + 2 * pad), _OUTSIDE, np.uint8)
    markers[pad:-pad, pad:-pad] = 0
    for lines, value in ((lines_outside, _OUTSIDE), (lines_inside, _INSIDE)):
        scale = 1 / (factor * small_factor)
        reduced = [(line - offset + 0.5) * scale - 0.5 + pad for line in lines]
        crops.draw_lines(markers, reduced, width * scale, value)
    smooth = small if small_factor > 1 else cv2.medianBlur(small, 5)  # reduction removes noise
    smooth = cv2.GaussianBlur(smooth, (0, 0), 0.8)
    found = _flood(crops.surround(smooth, pad), markers)[pad:-pad, pad:-pad]
    if small_factor > 1:
        found = crops.upsample(found, small_factor, crop.shape)
        found = _sharpen(crop, found, _WATERSHED_BAND * small_factor)
    mask = np.zeros(size, bool)
    mask[box] = crops.upsample(found, factor, drawn[box].shape)
    # The second watershed may cut hints that are thinner than its band.
    mask[drawn == _OUTSIDE] = False
    mask[drawn == _INSIDE] = True
    return mask


def grabcut(image: np.ndarray, mask: np.ndarray, iterations: int = 2) -> np.ndarray:
    """Refine the outline of an object by GrabCut (Rother et al., 2004).

    Only pixels near the outline can change: within a distance of 6 % of the root of the object's
    area. A part of the outline moves only to where the image has more contrast.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, the object.
        iterations: of GrabCut, 1 to 20.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: an argument is invalid, or the mask is empty.
    """
    check_image(image)
    check_mask(mask, image.shape[:2])
    if not mask.any():
        raise ValueError("The mask is empty: draw a coarse outline of the object first.")
    if not 1 <= iterations <= 20:
        raise ValueError(f"GrabCut needs 1 to 20 iterations; got {iterations}.")
    band = max(_GRABCUT_BAND * math.sqrt(np.count_nonzero(mask)), 2.0)
    # Outside the band, there must be enough background for a model of its colours.
    box = crops.surrounding_box(mask, 2 * band, 0.1)
    crop, given = image[box], mask[box]
    depth = _distance(given)
    # Half of the object stays foreground where it is thinner than the band.
    core = depth > min(band, float(depth.max()) / 2)
    near = ~core & (_distance(~given) <= band)
    factor = crops.reduction_factor(max(crop.shape[:2]) ** 2, _GRABCUT_SIDE**2)
    states = np.where(given, cv2.GC_FGD, cv2.GC_BGD).astype(np.uint8)
    states[near] = np.where(given, cv2.GC_PR_FGD, cv2.GC_PR_BGD)[near]
    middle = slice(factor // 2, None, factor)  # of each block
    states = np.ascontiguousarray(crops.pad_to_multiple(states, factor)[middle, middle])
    is_object = (states & 1).astype(bool)
    if is_object.all() or not is_object.any():  # no colours of one of the two sides
        return mask.copy()
    before, small = is_object.copy(), crops.reduce(crop, factor)
    cv2.setRNGSeed(0)  # the first clusters of colours are random
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    mode = cv2.GC_INIT_WITH_MASK  # the rectangle is unused
    cv2.grabCut(small, states, (0, 0, 1, 1), background, foreground, iterations, mode)
    after = _keep_contrast(small, before, (states & 1).astype(bool))
    refined = after
    if factor > 1:
        refined = _sharpen(crop, crops.upsample(after, factor, given.shape), factor)
        # An outline that GrabCut confirms keeps its detail.
        kernel = np.ones((3, 3), np.uint8)
        has_changed = cv2.dilate((before != after).astype(np.uint8), kernel).astype(bool)
        near &= crops.upsample(has_changed, factor, given.shape)
    result = mask.copy()
    result[box] = np.where(near, refined, given)
    return result


def scissors(image: np.ndarray, start: tuple[float, float], end: tuple[float, float]) -> np.ndarray:
    """Find a path along edges between two points (intelligent scissors).

    Returns:
        (N, 2) int64, points (x, y) from `start` to `end`, both within the image; N is at least 2.
        A straight line of two points where there is no path.

    Raises:
        ValueError: the image or a point is invalid.
    """
    check_image(image)
    height, width = image.shape[:2]
    ends = np.round(crops.line_points([start, end], image)).astype(np.int64)
    ends = np.clip(ends, 0, (width - 1, height - 1))
    distance = float(np.hypot(*(ends[1] - ends[0])))
    margin = 16 + distance / 4
    box = crops.crop_box(ends.min(axis=0) - margin, ends.max(axis=0) + margin + 1, (height, width))
    crop = image[box]
    if distance < 2 or min(crop.shape[:2]) < 4:
        return ends
    factor = crops.reduction_factor(crop.shape[0] * crop.shape[1], _SCISSORS_PIXELS)
    small = crops.reduce(crop, factor)
    offset = np.array([box[1].start, box[0].start])
    first, last = ((ends - offset) // factor).tolist()
    tool = cv2.segmentation.IntelligentScissorsMB()
    # Closest to the outlines of photographs among 10 settings.
    tool.setEdgeFeatureZeroCrossingParameters(20)
    try:
        tool.applyImage(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        tool.buildMap(first)
        path = tool.getContour(last)
    except cv2.error:
        return ends
    points = np.asarray(path, np.float64).reshape(-1, 2)
    points = np.round((points + 0.5) * factor - 0.5 + offset).astype(np.int64)
    inner = np.clip(points[1:-1], 0, (width - 1, height - 1))
    return np.concatenate([ends[:1], inner, ends[1:]])


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill background that the object encloses; background at the image border is no hole.

    Args:
        mask: (H, W) bool.

    Raises:
        ValueError: the mask has another shape or type.
    """
    check_mask(mask)
    background = np.pad(~mask, 1, constant_values=True)
    _, parts = cv2.connectedComponents(background.view(np.uint8), connectivity=4)
    return (parts != parts[0, 0])[1:-1, 1:-1]


def largest_part(mask: np.ndarray) -> np.ndarray:
    """Keep the largest 8-connected part of a mask (H, W) bool; an empty mask stays empty.

    Raises:
        ValueError: the mask has another shape or type.
    """
    check_mask(mask)
    num_parts, parts, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if num_parts == 1:
        return mask.copy()
    return parts == 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))


def grow(mask: np.ndarray, pixels: float) -> np.ndarray:
    """Add to a mask (H, W) bool all pixels within a distance of `pixels`.

    Raises:
        ValueError: the mask has another shape or type, or `pixels` is negative.
    """
    check_mask(mask)
    check_pixels(pixels)
    return mask | (_distance(~mask) <= pixels)


def shrink(mask: np.ndarray, pixels: float) -> np.ndarray:
    """Remove from a mask (H, W) bool all pixels within a distance of `pixels` from background.

    The border of the image is no background: an object that it cuts does not recede from it.

    Raises:
        ValueError: the mask has another shape or type, or `pixels` is negative.
    """
    check_mask(mask)
    check_pixels(pixels)
    return mask & (_distance(mask) > pixels)


def _distance(mask: np.ndarray) -> np.ndarray:
    """Distance to the nearest pixel outside a mask (H, W) bool, float32; huge if there is none."""
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _keep_contrast(image: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Undo connected changes of a mask whose new outline has too little contrast.

    Args:
        image: (h, w, 3) uint8.
        before, after: (h, w) bool.
    """
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
    slopes = [cv2.Sobel(smooth, cv2.CV_32F, *axes) for axes in ((1, 0), (0, 1))]
    contrast = cv2.magnitude(*slopes).max(axis=2)
    kernel = np.ones((3, 3), np.uint8)
    num_changes, changes = cv2.connectedComponents((before != after).astype(np.uint8))
    nearest = cv2.dilate(changes.astype(np.float32), kernel).astype(np.int32)
    old, new = (
        cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, kernel) > 0
        for mask in (before, after)
    )
    means = []
    for outline in (old & ~new, new & ~old):
        count = np.bincount(nearest[outline], minlength=num_changes)
        total = np.bincount(nearest[outline], contrast[outline], num_changes)
        means.append(total / np.maximum(count, 1))
    is_kept = means[1] > _GRABCUT_CONTRAST * means[0]
    return np.where(is_kept[changes], after, before)


def _flood(image: np.ndarray, markers: np.ndarray) -> np.ndarray:
    """Watershed of (h, w, 3) uint8 from markers (h, w) uint8; (h, w) bool, True is inside."""
    regions = cv2.watershed(image, markers.astype(np.int32))
    inside = regions == _INSIDE
    # The lines between the regions, -1, go to the side with more of the 8 neighbours.
    balance = inside.astype(np.float32) - (regions == _OUTSIDE)
    return inside | ((regions == -1) & (cv2.blur(balance, (3, 3)) > 0))


def _sharpen(image: np.ndarray, mask: np.ndarray, radius: float) -> np.ndarray:
    """Move an outline to edges of the image by at most `radius` pixels."""
    pad = 1 + math.ceil(radius)
    box = crops.surrounding_box(mask, 2 * pad)
    # Replicated pixels, since `cv2.watershed` leaves out the outermost row.
    part = crops.surround(mask[box].astype(np.uint8), pad)
    square = np.ones([2 * math.ceil(radius) + 1] * 2, np.uint8)  # faster than a disc
    markers = np.where(cv2.dilate(part, square) > 0, 0, _OUTSIDE).astype(np.uint8)
    markers[cv2.erode(part, square) > 0] = _INSIDE
    smooth = cv2.GaussianBlur(image[box], (0, 0), 1.0)
    result = np.zeros_like(mask)
    result[box] = _flood(crops.surround(smooth, pad), markers)[pad:-pad, pad:-pad]
    return result
