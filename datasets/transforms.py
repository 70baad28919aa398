"""Augmentation: all geometry of a frame composed into one map and sampled once; colour likewise.

Geometry is a 3x3 matrix from source pixels to output pixels, colour a 3x4 matrix on RGB. Composing
them costs nothing, so a frame is resampled once and multiplied once, whatever was drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from tps import ThinPlateSpline

# Fill outside the image: the ImageNet mean, so that it is zero after normalisation.
MEAN_COLOUR = (124, 116, 104)

_GREY = np.array([0.299, 0.587, 0.114])
# RGB <-> YIQ, in which a turn of the last two axes turns the hue and keeps the brightness.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
# A thin-plate spline is smooth: it is evaluated on a grid this much coarser than the image.
_SPLINE_STRIDE = 12


def translation(x: float, y: float) -> np.ndarray:
    """Move by (x, y) pixels."""
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def scaling(x: float, y: float) -> np.ndarray:
    """Scale about the corner of the image (pixel centres lie at half-integers)."""
    # Pixel i covers [i, i+1): its centre i + 0.5 goes to (i + 0.5) * scale.
    return translation(-0.5, -0.5) @ np.diag([x, y, 1.0]) @ translation(0.5, 0.5)


def flip(width: int) -> np.ndarray:
    """Mirror left and right."""
    return np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]])


def affine(
    width: float, height: float, degrees: float = 0, scale: float = 1, shear: float = 0
) -> np.ndarray:
    """Rotate, scale and shear (both angles in degrees) about the image's centre."""
    angle, slant = math.radians(degrees), math.radians(shear)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = np.eye(3)
    linear[:2, :2] = scale * turn @ np.array([[1, -math.tan(slant)], [0, 1]])
    x, y = (width - 1) / 2, (height - 1) / 2
    return translation(x, y) @ linear @ translation(-x, -y)


def sample_image(
    image: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int],
    displacement: np.ndarray | None = None,
) -> np.ndarray:
    """The image seen through a map, bicubic.

    Args:
        image: (H, W, 3) uint8.
        matrix: 3x3, source pixels -> output pixels, affine.
        size: (height, width) of the output.
        displacement: (height, width, 2) float32, added to the output's pixels first; see
            `spline_displacement`.
    """
    image, matrix = _shrink(image, matrix)
    return _sample(image, matrix, size, displacement, cv2.INTER_CUBIC, MEAN_COLOUR)


def sample_labels(
    labels: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int],
    displacement: np.ndarray | None = None,
) -> np.ndarray:
    """A label map (H, W) uint8 seen through the same map, nearest; outside is background."""
    return _sample(labels, matrix, size, displacement, cv2.INTER_NEAREST, 0)


def _sample(
    source: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int],
    displacement: np.ndarray | None,
    interpolation: int,
    fill: tuple[int, int, int] | int,
) -> np.ndarray:
    height, width = size
    border = cv2.BORDER_CONSTANT
    if displacement is None:
        return cv2.warpAffine(
            source, matrix[:2], (width, height), None, interpolation, border, fill
        )
    inverse = np.linalg.inv(matrix)[:2].astype(np.float32)
    x = np.arange(width, dtype=np.float32)[None] + displacement[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + displacement[..., 1]
    map_x = inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]
    map_y = inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]
    return cv2.remap(source, map_x, map_y, interpolation, None, border, fill)


def _shrink(image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Halve an image (by area) while the map would shrink it to under half: no aliasing."""
    scale = math.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    while scale < 0.5 and min(image.shape[:2]) >= 4:
        height, width = image.shape[0] // 2, image.shape[1] // 2
        step = scaling(width / image.shape[1], height / image.shape[0])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        matrix = matrix @ np.linalg.inv(step)
        scale *= 2
    return image, matrix


def spline_displacement(
    rng: np.random.Generator, size: tuple[int, int], num_points: int = 12, sigma: float = 0.02
) -> np.ndarray:
    """A thin-plate-spline warp: random control points move by a normal distribution.

    Args:
        size: (height, width); `sigma` is in units of them.

    Returns:
        (height, width, 2) float32: x and y displacements in pixels.
    """
    height, width = size
    points = rng.random((num_points, 2))
    moved = points + rng.normal(scale=sigma, size=points.shape)
    rows, columns = math.ceil(height / _SPLINE_STRIDE), math.ceil(width / _SPLINE_STRIDE)
    x, y = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    grid = np.stack([x.ravel(), y.ravel()], 1)
    # Output positions look up their source, so the spline runs from moved points back.
    shift = ThinPlateSpline().fit(moved, points).transform(grid) - grid
    shift = (shift.reshape(rows, columns, 2) * (width, height)).astype(np.float32)
    return cv2.resize(shift, (width, height), interpolation=cv2.INTER_CUBIC)


@dataclass(frozen=True)
class Jitter:
    """Ranges of random colour changes: factors 1 +- range, hue in turns +- range."""

    brightness: float = 0
    contrast: float = 0
    saturation: float = 0
    hue: float = 0
    grey_probability: float = 0


def draw_colour(rng: np.random.Generator, jitter: Jitter, mean: np.ndarray) -> np.ndarray:
    """Draw a 3x4 colour matrix; `mean` (3,) is the mean colour of the image it will meet."""
    brightness, contrast, saturation = (
        rng.uniform(1 - r, 1 + r) for r in (jitter.brightness, jitter.contrast, jitter.saturation)
    )
    turn = rng.uniform(-jitter.hue, jitter.hue) * 2 * math.pi
    if rng.random() < jitter.grey_probability:
        saturation, turn = 0.0, 0.0
    hue = np.eye(3)
    hue[1:, 1:] = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    matrix = np.zeros((3, 4))
    matrix[:, :3] = _FROM_YIQ @ hue @ _TO_YIQ
    matrix[:, :3] @= saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), _GREY)
    matrix[:, :3] *= brightness * contrast
    # Contrast turns about the mean grey of the brightened image.
    matrix[:, 3] = (1 - contrast) * brightness * float(_GREY @ mean)
    return matrix


def compose_colour(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The 3x4 matrix that does `first`, then `second`."""
    matrix = second[:, :3] @ first
    matrix[:, 3] += second[:, 3]
    return matrix


def apply_colour(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB through a 3x4 matrix, clipped to 0..255."""
    return cv2.transform(image, matrix)
