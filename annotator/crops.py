"""Crops of images at reduced size, and checks of images, masks and points."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

Polyline = Sequence[tuple[float, float]]


def surround(image: np.ndarray, pad: int) -> np.ndarray:
    """Replicate the border of an image by `pad` pixels on each side."""
    return cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REPLICATE)


def reduction_factor(size: float, target: float) -> int:
    """Whole factor by which both sides shrink, so that an area `size` becomes about `target`."""
    return max(round(math.sqrt(size / target)), 1)


def pad_to_multiple(image: np.ndarray, factor: int) -> np.ndarray:
    """Replicate the last row and column until both sides are multiples of `factor`."""
    bottom, right = -image.shape[0] % factor, -image.shape[1] % factor
    return cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)


def reduce(image: np.ndarray, factor: int) -> np.ndarray:
    """Means of blocks of `factor` x `factor` pixels; a whole factor is fast in OpenCV."""
    padded = pad_to_multiple(image, factor)
    size = padded.shape[1] // factor, padded.shape[0] // factor
    return cv2.resize(padded, size, interpolation=cv2.INTER_AREA)


def upsample(mask: np.ndarray, factor: int, size: tuple[int, ...]) -> np.ndarray:
    """Upsample a reduced mask (h, w) bool to `size` (H, W) with a smooth outline."""
    soft = mask.astype(np.uint8) * np.uint8(255)
    padded = mask.shape[1] * factor, mask.shape[0] * factor
    full = cv2.resize(soft, padded, interpolation=cv2.INTER_LINEAR) > 127
    return full[: size[0], : size[1]]


def crop_box(lowest: np.ndarray, highest: np.ndarray, size: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns from (x, y) `lowest` to `highest` within `size` (H, W), at least one."""
    height, width = size[:2]
    left, top = (int(v) for v in np.clip(np.floor(lowest), 0, (width - 1, height - 1)))
    right, bottom = (
        int(v) for v in np.clip(np.ceil(highest), (left + 1, top + 1), (width, height))
    )
    return slice(top, bottom), slice(left, right)


def surrounding_box(
    mask: np.ndarray, margin: float, relative_margin: float = 0
) -> tuple[slice, slice]:
    """Rows and columns of the pixels of a mask (H, W) bool, with a margin within the image.

    Args:
        margin: in pixels.
        relative_margin: further margin, relative to the longer side of the mask.
    """
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    margin += relative_margin * max(width, height)
    lowest, highest = np.array([x, y]) - margin, np.array([x + width, y + height]) + margin
    return crop_box(lowest, highest, mask.shape)


def draw_lines(
    canvas: np.ndarray, lines: Sequence[np.ndarray], width: float, value: int
) -> np.ndarray:
    """Draw polylines (N, 2) into (h, w) uint8 in place; a line of one point is a dot."""
    for line in lines:
        points = np.round(line[[0, 0]] if len(line) == 1 else line).astype(np.int32)
        cv2.polylines(canvas, [points.reshape(-1, 1, 2)], False, value, max(round(width), 1))
    return canvas


def line_points(line: Polyline, image: np.ndarray) -> np.ndarray:
    """Points as (N, 2) float64, at most one image size away from the image."""
    points = np.asarray(line, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError("A line must be a list of points (x, y) in pixels.")
    far = np.array([image.shape[1], image.shape[0]])
    return np.clip(points, -far, 2 * far)


def check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"An image must be (H, W, 3) uint8; it is {image.shape} {image.dtype}.")


def check_mask(mask: np.ndarray, size: tuple[int, ...] | None = None) -> None:
    if mask.ndim != 2 or mask.dtype != np.bool_ or not mask.size:
        raise ValueError(f"A mask must be (H, W) bool; it is {mask.shape} {mask.dtype}.")
    if size is not None and mask.shape != size:
        raise ValueError(
            f"The mask is {mask.shape[1]}x{mask.shape[0]} (width x height), but the image is "
            f"{size[1]}x{size[0]}."
        )


def check_pixels(pixels: float) -> None:
    if not 0 <= pixels < math.inf:
        raise ValueError(f"The number of pixels must be 0 or more; it is {pixels}.")
