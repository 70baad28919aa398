"""Augmentation: a frame is resampled once and its colours are transformed once.

A geometric transform is a 3x3 matrix from source pixels to output pixels. A colour transform is a
3x4 matrix on RGB. All transforms of a frame are multiplied into one matrix of each kind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

# Fill value outside the image: the ImageNet mean, which becomes zero after normalisation.
MEAN_COLOUR = (124, 116, 104)

_GREY = np.array([0.299, 0.587, 0.114])
# RGB <-> YIQ. A rotation of the last two axes changes the hue and keeps the brightness.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
# A thin-plate spline is smooth, so it is evaluated on a grid with this stride in pixels.
_SPLINE_STRIDE = 12


def translation(x: float, y: float) -> np.ndarray:
    """Translate by (x, y) pixels."""
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def scaling(x: float, y: float) -> np.ndarray:
    """Scale by factors (x, y) about the top left corner of the image."""
    # Pixel i covers [i, i+1): its centre i + 0.5 is mapped to (i + 0.5) * scale.
    return translation(-0.5, -0.5) @ np.diag([x, y, 1.0]) @ translation(0.5, 0.5)


def flip(width: int) -> np.ndarray:
    """Flip horizontally."""
    return np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]])


def affine(
    width: float, height: float, degrees: float = 0, scale: float = 1, shear: float = 0
) -> np.ndarray:
    """Rotate, scale and shear about the centre of the image; both angles are in degrees."""
    angle, slant = math.radians(degrees), math.radians(shear)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = np.eye(3)
    linear[:2, :2] = scale * rotation @ np.array([[1, -math.tan(slant)], [0, 1]])
    x, y = (width - 1) / 2, (height - 1) / 2
    return translation(x, y) @ linear @ translation(-x, -y)


def sample_image(
    image: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int],
    displacement: np.ndarray | None = None,
) -> np.ndarray:
    """Warp an image with bicubic interpolation.

    Args:
        image: (H, W, 3) uint8.
        matrix: 3x3 affine matrix, source pixels -> output pixels.
        size: (height, width) of the output.
        displacement: (height, width, 2) float32 offsets (x, y), added to the output positions
            before the inverse of `matrix` maps them to the source; see `spline_displacement`.

    Returns:
        (height, width, 3) uint8; pixels outside the image are `MEAN_COLOUR`.
    """
    image, matrix = _shrink(image, matrix)
    return _sample(image, matrix, size, displacement, cv2.INTER_CUBIC, MEAN_COLOUR)


def sample_labels(
    labels: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int],
    displacement: np.ndarray | None = None,
) -> np.ndarray:
    """Warp labels (H, W) uint8 with nearest-neighbour interpolation; see `sample_image`.

    Pixels outside the image are background.
    """
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
    """Halve an image by area averaging until the map scales it by at least 0.5.

    This avoids aliasing.

    Returns:
        The smaller image and the matrix adapted to it.
    """
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
    """Draw a thin-plate-spline warp: uniform control points with normally distributed shifts.

    Args:
        rng: generator of all draws.
        size: (height, width) of the output in pixels.
        num_points: number of control points.
        sigma: standard deviation of the shifts, as a share of height and width.

    Returns:
        (height, width, 2) float32: x and y displacements in pixels.
    """
    # Imported when needed: tps imports scipy, a fifth of the start-up of train.py.
    from tps import ThinPlateSpline

    height, width = size
    points = rng.random((num_points, 2))
    moved = points + rng.normal(scale=sigma, size=points.shape)
    rows, columns = math.ceil(height / _SPLINE_STRIDE), math.ceil(width / _SPLINE_STRIDE)
    x, y = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    grid = np.stack([x.ravel(), y.ravel()], 1)
    # The warp needs the source of each output position: the spline maps moved points back.
    shift = ThinPlateSpline().fit(moved, points).transform(grid) - grid
    shift = (shift.reshape(rows, columns, 2) * (width, height)).astype(np.float32)
    return cv2.resize(shift, (width, height), interpolation=cv2.INTER_CUBIC)


@dataclass(frozen=True)
class Jitter:
    """Ranges of random colour changes.

    Brightness, contrast and saturation are factors in 1 +- range. Hue is a rotation in +- range, in
    full turns. grey_probability is the probability of a grey image.
    """

    brightness: float = 0
    contrast: float = 0
    saturation: float = 0
    hue: float = 0
    grey_probability: float = 0


def draw_colour(rng: np.random.Generator, jitter: Jitter, mean: np.ndarray) -> np.ndarray:
    """Draw a 3x4 colour matrix for an image whose mean colour is `mean` (3,)."""
    brightness, contrast, saturation = (
        rng.uniform(1 - r, 1 + r) for r in (jitter.brightness, jitter.contrast, jitter.saturation)
    )
    angle = rng.uniform(-jitter.hue, jitter.hue) * 2 * math.pi
    if rng.random() < jitter.grey_probability:
        saturation, angle = 0.0, 0.0
    hue = np.eye(3)
    hue[1:, 1:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    matrix = np.zeros((3, 4))
    matrix[:, :3] = _FROM_YIQ @ hue @ _TO_YIQ
    matrix[:, :3] @= saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), _GREY)
    matrix[:, :3] *= brightness * contrast
    # Contrast scales the distance to the mean grey value of the brightened image.
    matrix[:, 3] = (1 - contrast) * brightness * float(_GREY @ mean)
    return matrix


def compose_colour(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compose two 3x4 colour matrices; `first` is applied first."""
    matrix = second[:, :3] @ first
    matrix[:, 3] += second[:, 3]
    return matrix


def apply_colour(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a 3x4 colour matrix to an image (H, W, 3) uint8 RGB; values are clipped to 0..255."""
    return cv2.transform(image, matrix)
