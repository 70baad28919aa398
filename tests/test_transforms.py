"""Geometric and colour augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as torchvision

from datasets import transforms
from datasets.transforms import (
    MEAN_COLOUR,
    Jitter,
    affine,
    apply_colour,
    compose_colour,
    draw_colour,
    flip,
    sample_image,
    sample_labels,
    scaling,
    spline_displacement,
    translation,
)

HEIGHT, WIDTH = 61, 84
SIZE = (HEIGHT, WIDTH)
MakeImage = Callable[[int, int], np.ndarray]


def difference(a: np.ndarray, b: np.ndarray, margin: int = 0) -> int:
    """Largest absolute difference, without a margin."""
    inside = slice(margin, -margin or None)
    return int(np.abs(a.astype(int) - b.astype(int))[inside, inside].max())


def disc(height: int, width: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return (np.hypot(y - height * 0.55, x - width * 0.4) < radius).astype(np.uint8)


def count_mismatches(image: np.ndarray, labels: np.ndarray) -> int:
    """Pixels where a thresholded image differs from a mask, apart from pixels at contours."""
    kernel = np.ones((3, 3), np.uint8)
    edge = cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)
    return int(np.count_nonzero(((image > 127) != (labels > 0)) & ~edge))


# Geometry


def test_identity(smooth_image: MakeImage) -> None:
    image, labels = smooth_image(*SIZE), disc(*SIZE, 20) * 9
    for displacement in (None, np.zeros((*SIZE, 2), np.float32)):
        assert difference(sample_image(image, np.eye(3), SIZE, displacement), image) == 0
        assert difference(sample_labels(labels, np.eye(3), SIZE, displacement), labels) == 0
    np.testing.assert_allclose(affine(WIDTH, HEIGHT), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(scaling(1, 1), np.eye(3), atol=1e-12)


@pytest.mark.parametrize("width", [84, 61])
def test_flip_is_exact(smooth_image: MakeImage, width: int) -> None:
    image, labels = smooth_image(HEIGHT, width), disc(HEIGHT, width, 17)
    size = (HEIGHT, width)
    assert difference(sample_image(image, flip(width), size), image[:, ::-1]) == 0
    assert difference(sample_labels(labels, flip(width), size), labels[:, ::-1]) == 0
    np.testing.assert_allclose(flip(width) @ flip(width), np.eye(3), atol=1e-12)


def test_translation_by_whole_pixels(smooth_image: MakeImage) -> None:
    image = smooth_image(*SIZE)
    moved = sample_image(image, translation(5, -3), SIZE)
    assert difference(moved[:-3, 5:], image[3:, :-5]) == 0
    assert (moved[:, :5] == MEAN_COLOUR).all()
    assert (moved[-3:] == MEAN_COLOUR).all()
    assert not sample_labels(np.ones(SIZE, np.uint8), translation(5, -3), SIZE)[:, :5].any()


def test_displacement_is_added_to_output_positions(smooth_image: MakeImage) -> None:
    image = smooth_image(*SIZE)
    shift = np.full((*SIZE, 2), (4, 7), np.float32)
    warped = sample_image(image, np.eye(3), SIZE, shift)
    assert difference(warped[:-7, :-4], image[7:, 4:]) == 0
    # It is added to the output position before the inverse matrix is applied.
    warped = sample_image(image, translation(-2, 0), SIZE, shift)
    assert difference(warped[:-7, :-6], image[7:, 6:]) == 0


@pytest.mark.parametrize("scale", [0.9, 1.3])
def test_affine_keeps_the_centre(scale: float) -> None:
    matrix = affine(WIDTH, HEIGHT, degrees=17, scale=scale, shear=8)
    centre = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2, 1])
    np.testing.assert_allclose(matrix @ centre, centre, atol=1e-9)
    linear = matrix[:2, :2]
    assert np.linalg.det(linear) == pytest.approx(scale**2)
    assert math.degrees(math.atan2(linear[1, 0], linear[0, 0])) == pytest.approx(17)
    angle = math.degrees(math.acos(linear[:, 0] @ linear[:, 1] / np.prod(np.hypot(*linear))))
    assert abs(90 - angle) == pytest.approx(8)


def test_rotation_by_90_degrees_is_exact(smooth_image: MakeImage) -> None:
    image = smooth_image(60, 60)
    rotated = sample_image(image, affine(60, 60, degrees=90), (60, 60))
    assert difference(rotated, np.rot90(image, -1)) <= 1


def test_composed_matrix_equals_consecutive_warps(smooth_image: MakeImage) -> None:
    """One warp with the product of the matrices equals one warp per matrix."""
    image = smooth_image(*SIZE)
    steps = [
        affine(WIDTH, HEIGHT, degrees=-13, scale=1.2, shear=7),
        flip(WIDTH),
        affine(WIDTH, HEIGHT, degrees=9, scale=0.95, shear=-6),
        scaling(1.4, 1.4),
        translation(-11.5, -8),
    ]
    product = np.eye(3)
    stepwise = image
    inside: np.ndarray = np.full(SIZE, 255, np.uint8)
    for step in steps:
        product = step @ product
        stepwise = cv2.warpAffine(stepwise, step[:2], (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
        inside = cv2.warpAffine(inside, step[:2], (WIDTH, HEIGHT))
    inside = cv2.erode(inside, np.ones((9, 9), np.uint8), borderValue=0) == 255
    assert inside.mean() > 0.3
    for displacement in (None, np.zeros((*SIZE, 2), np.float32)):
        composed = sample_image(image, product, SIZE, displacement)
        assert np.abs(composed.astype(int) - stepwise.astype(int))[inside].max() <= 6
        assert np.abs(composed.astype(int) - stepwise.astype(int))[inside].mean() < 1


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_warp_equals_pil(smooth_image: MakeImage, offset: float) -> None:
    """PIL takes the inverse matrix, with pixel centres at half-integers."""
    image = smooth_image(*SIZE)
    matrix = translation(offset, 2) @ affine(WIDTH, HEIGHT, degrees=20, scale=1.4, shear=-10)
    centres = translation(0.5, 0.5) @ matrix @ translation(-0.5, -0.5)
    inverse = np.linalg.inv(centres)[:2].ravel().tolist()
    pil = Image.fromarray(image).transform(
        (WIDTH, HEIGHT), Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC
    )
    assert difference(sample_image(image, matrix, SIZE), np.array(pil), margin=16) <= 4


@pytest.mark.parametrize("factor", [0.5, 0.31, 0.12])
def test_downscaling_is_aligned_and_anti_aliased(smooth_image: MakeImage, factor: float) -> None:
    height, width = 403, 517
    image = smooth_image(height, width)
    image = cv2.GaussianBlur(image, (0, 0), 4 / factor)
    size = (round(height * factor), round(width * factor))
    matrix = scaling(size[1] / width, size[0] / height)
    pil = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    assert difference(sample_image(image, matrix, size), np.array(pil), margin=2) <= 6

    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    ideal = np.array(Image.fromarray(noise).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    naive = cv2.warpAffine(noise, matrix[:2], (size[1], size[0]), flags=cv2.INTER_CUBIC)
    result = sample_image(noise, matrix, size)[2:-2, 2:-2]
    if factor < 0.5:
        assert result.std() < (naive.std() + ideal.std()) / 2


@pytest.mark.parametrize("scale", [0.2, 0.45, 0.7, 1.0, 1.6])
@pytest.mark.parametrize("has_spline", [False, True])
def test_image_and_mask_move_together(
    monkeypatch: pytest.MonkeyPatch, scale: float, has_spline: bool
) -> None:
    monkeypatch.setattr(transforms, "MEAN_COLOUR", (0, 0, 0))  # outside is background
    rng = np.random.default_rng(1)
    height, width = 181, 243
    labels = disc(height, width, 50)
    image = np.repeat(labels[..., None] * np.uint8(255), 3, 2)
    for _ in range(5):
        size = (96, 112)
        own = affine(width, height, rng.uniform(-20, 20), rng.uniform(0.9, 1.1), rng.uniform(-9, 9))
        matrix = translation(-width * scale / 2 + 56, -height * scale / 2 + 48)
        matrix = matrix @ scaling(scale, scale) @ own
        displacement = spline_displacement(rng, size) if has_spline else None
        warped = sample_image(image, matrix, size, displacement)[..., 0]
        mask = sample_labels(labels, matrix, size, displacement)
        assert 100 < mask.sum() < mask.size
        assert count_mismatches(warped, mask) == 0


def test_labels_are_not_interpolated() -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[10:40, 10:40], labels[20:50, 35:70] = 3, 200
    rng = np.random.default_rng(0)
    warped = sample_labels(
        labels, affine(WIDTH, HEIGHT, 15, 1.3, 5), SIZE, spline_displacement(rng, SIZE)
    )
    assert set(np.unique(warped)) == {0, 3, 200}


# Spline


def test_spline_passes_through_its_control_points() -> None:
    """The displacement at a moved control point is known exactly."""
    size = (120, 168)
    height, width = size
    errors, displacements = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        points = rng.random((12, 2))
        moved = points + rng.normal(scale=0.02, size=points.shape)
        displacement = spline_displacement(np.random.default_rng(seed), size)
        assert displacement.shape == (*size, 2)
        assert displacement.dtype == np.float32
        x, y = moved[:, 0] * width - 0.5, moved[:, 1] * height - 0.5
        inside = (x > 12) & (x < width - 13) & (y > 12) & (y < height - 13)
        positions = np.stack([x, y], -1)[inside][None].astype(np.float32)
        sampled = cv2.remap(displacement, positions, np.empty(0), cv2.INTER_LINEAR)[0]
        expected = ((points - moved) * (width, height))[inside]
        errors.append(np.abs(sampled - expected))
        displacements.append(sampled / (width, height))
    error = np.concatenate(errors)
    assert error.mean() < 0.25  # pixels; displacements are about 3 pixels
    assert np.percentile(error, 95) < 1
    values = np.concatenate(displacements)
    assert values.std() == pytest.approx(0.02, rel=0.1)
    assert abs(values.mean()) < 0.003


def test_spline_is_smooth_and_scales_with_sigma() -> None:
    size = (120, 168)
    deviations = []
    for seed in range(10):
        field = spline_displacement(np.random.default_rng(seed), size)
        curvature = max(np.abs(np.diff(field, 2, axis)).max() for axis in (0, 1))
        assert curvature < 0.5
        deviations.append(field.std())
    larger = spline_displacement(np.random.default_rng(0), size, sigma=0.06)
    assert larger.std() > 2 * deviations[0]
    assert not spline_displacement(np.random.default_rng(0), size, sigma=0).round(3).any()


def test_spline_draws_depend_on_the_generator() -> None:
    rng = np.random.default_rng(0)
    first, second = (spline_displacement(rng, (48, 48)) for _ in range(2))
    again = spline_displacement(np.random.default_rng(0), (48, 48))
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_array_equal(first, again)


# Colour


class FixedDraws:
    """Random generator that returns given values."""

    def __init__(self, *values: float, random: float = 1.0) -> None:
        self.values = [*values]
        self.random_value = random

    def uniform(self, low: float, high: float) -> float:
        value = self.values.pop(0)
        assert low - 1e-9 <= value <= high + 1e-9
        return value

    def random(self) -> float:
        return self.random_value


def colour(image: np.ndarray, *values: float, random: float = 1.0) -> np.ndarray:
    """Apply a fixed brightness, contrast, saturation and hue rotation to an image."""
    rng = cast(np.random.Generator, FixedDraws(*values, random=random))
    matrix = draw_colour(rng, Jitter(0.3, 0.3, 0.3, 1, grey_probability=0.5), mean_of(image))
    return apply_colour(image, matrix)


def mean_of(image: np.ndarray) -> np.ndarray:
    return image.reshape(-1, 3).mean(0)


def test_colours_without_jitter(smooth_image: MakeImage) -> None:
    image = smooth_image(*SIZE)
    matrix = draw_colour(np.random.default_rng(0), Jitter(), mean_of(image))
    np.testing.assert_allclose(matrix, np.eye(3, 4), atol=1e-9)
    assert difference(apply_colour(image, matrix), image) == 0


def test_brightness_contrast_and_saturation_equal_torchvision(smooth_image: MakeImage) -> None:
    image = smooth_image(*SIZE)
    tensor = torch.from_numpy(image).permute(2, 0, 1)

    def to_array(adjusted: torch.Tensor) -> np.ndarray:
        return adjusted.permute(1, 2, 0).numpy()

    for factor in (0.8, 1.15):
        bright = to_array(torchvision.adjust_brightness(tensor, factor))
        assert difference(colour(image, factor, 1, 1, 0), bright) <= 1
        contrast = to_array(torchvision.adjust_contrast(tensor, factor))
        assert difference(colour(image, 1, factor, 1, 0), contrast) <= 2
        saturation = to_array(torchvision.adjust_saturation(tensor, factor))
        assert difference(colour(image, 1, 1, factor, 0), saturation) <= 2
    all_three = torchvision.adjust_brightness(tensor, 0.8)
    all_three = torchvision.adjust_contrast(all_three, 1.2)
    all_three = torchvision.adjust_saturation(all_three, 0.7)
    assert difference(colour(image, 0.8, 1.2, 0.7, 0), to_array(all_three)) <= 3


def test_hue_keeps_grey_and_brightness(smooth_image: MakeImage) -> None:
    image = smooth_image(*SIZE) // 2 + 64  # no clipping
    rotated = colour(image, 1, 1, 1, 0.1)
    assert difference(rotated, image) > 15
    weights = [0.299, 0.587, 0.114]
    assert np.abs(rotated @ weights - image @ weights).max() < 1.5
    assert difference(colour(image, 1, 1, 1, 1), image) <= 1  # a full rotation
    grey = np.repeat(image[..., :1], 3, 2)
    assert difference(colour(grey, 1, 1, 1, 0.3), grey) <= 2


def test_grey_makes_the_channels_equal(smooth_image: MakeImage) -> None:
    image = smooth_image(*SIZE)
    grey = colour(image, 1, 1, 1.2, 0.4, random=0.1)
    assert difference(grey[..., 0], grey[..., 1]) <= 1
    assert difference(grey[..., 0], grey[..., 2]) <= 1
    pil = np.array(Image.fromarray(image).convert("L"))
    assert difference(grey[..., 0], pil) <= 1
    assert difference(colour(image, 1, 1, 1, 0, random=0.9), image) <= 1


def test_draws_stay_in_their_ranges() -> None:
    rng = np.random.default_rng(0)
    mean = np.array([100.0, 120, 90])
    matrices = [draw_colour(rng, Jitter(0.1), mean) for _ in range(400)]
    factors = np.array([matrix[0, 0] for matrix in matrices])
    assert 0.9 <= factors.min() < 0.905
    assert 1.095 < factors.max() <= 1.1
    assert factors.mean() == pytest.approx(1, abs=0.01)
    grey = [
        np.allclose(draw_colour(rng, Jitter(grey_probability=0.05), mean)[0, 0], 0.299)
        for _ in range(2000)
    ]
    assert 0.035 < np.mean(grey) < 0.065


def test_composed_colour_matrix() -> None:
    rng = np.random.default_rng(0)
    jitter = Jitter(0.1, 0.1, 0.1, 0.05)
    mean = np.array([90.0, 120, 140])
    first, second = (draw_colour(rng, jitter, mean) for _ in range(2))
    pixels = rng.uniform(0, 255, (50, 3))
    once = pixels @ first[:, :3].T + first[:, 3]
    expected = once @ second[:, :3].T + second[:, 3]
    composed = compose_colour(first, second)
    np.testing.assert_allclose(pixels @ composed[:, :3].T + composed[:, 3], expected, atol=1e-9)


def test_colours_are_clipped() -> None:
    image = np.array([[[250, 5, 128]]], np.uint8)
    brighter = np.eye(3, 4) * 2
    assert apply_colour(image, brighter).tolist() == [[[255, 10, 255]]]
    darker = np.eye(3, 4)
    darker[:, 3] = -20
    assert apply_colour(image, darker).tolist() == [[[230, 0, 108]]]
