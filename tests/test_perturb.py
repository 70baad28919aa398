"""Perturbation of the first mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.curriculum import find_data, stage_clips
from datasets.perturb import perturb_mask
from util.parse_settings import parse_train


def disc(size: int = 96) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return ((y - 50) ** 2 + (x - 44) ** 2 < 25**2).astype(np.uint8)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize(("min_iou", "max_iou"), [(0.85, 1.0), (0.5, 0.5), (0.2, 0.6)])
def test_iou_falls_below_a_target_in_the_range(min_iou: float, max_iou: float) -> None:
    mask, ious = disc(), []
    before = mask.copy()
    for seed in range(40):
        perturbed = perturb_mask(np.random.default_rng(seed), mask, min_iou, max_iou)
        assert perturbed.dtype == np.uint8
        assert {*np.unique(perturbed)} <= {0, 1}
        ious.append(iou(mask, perturbed))
    assert np.array_equal(mask, before)
    assert max(ious) < max_iou
    # The last round may go below the target.
    assert min_iou - 0.15 < np.mean(ious) < max_iou


def test_draws_depend_on_the_generator_only() -> None:
    first, again, other = (
        perturb_mask(np.random.default_rng(seed), disc(), 0.6, 0.9) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_empty_full_and_tiny_masks() -> None:
    rng = np.random.default_rng(0)
    empty = np.zeros((40, 40), np.uint8)
    assert not perturb_mask(rng, empty, 0.5, 1).any()
    full = perturb_mask(rng, np.ones((40, 40), np.uint8), 0.9, 0.9)
    assert iou(full, np.ones((40, 40), np.uint8)) < 0.9
    assert perturb_mask(rng, np.ones((1, 1), np.uint8), 0.5, 1).shape == (1, 1)


@pytest.mark.parametrize("stage", ["0", "3"])
def test_first_masks_of_rde_are_perturbed(synthetic: Path, stage: str) -> None:
    roots = {
        "0": ["--static_root", str(synthetic / "static")],
        "3": ["--davis_root", str(synthetic / "DAVIS"), "--yv_root", str(synthetic / "YouTube")],
    }[stage]
    for method, is_perturbed in (("stcn", False), ("rde", True)):
        flags = ["--id", "t", "--method", method, "--stage", stage, "--crop_size", "64", *roots]
        recipe = parse_train(flags)
        clips = stage_clips(recipe[0], find_data(recipe)[0], 1)
        num_differing = 0
        for index in range(6):
            sample = clips[0, index]
            objects = sample.labels[0][None].numpy() == np.array([1, 2])[:, None, None]
            objects = objects[: len(sample.first_masks)]
            assert len(sample.first_masks) == (1 if stage == "0" else 2)
            differs = (sample.first_masks.numpy() != objects).any((1, 2))
            num_differing += differs.sum()
            assert not differs[~objects.any((1, 2))].any(), "an empty mask stays empty"
            if is_perturbed:
                assert len(sample.images) == (3 if stage == "0" else 5)
        assert (num_differing > 3) == is_perturbed
