"""Clips of two objects, made from static images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from datasets import static
from datasets.static import StaticClips
from util.masks import DAVIS_PALETTE, write_mask

MakeImage = Callable[[int, int], np.ndarray]


def write_objects(folder: Path, image: np.ndarray, *lefts: int) -> tuple[Path, Path]:
    """Write an image and its mask, with an object of 20x30 pixels at each of `lefts`."""
    labels = np.zeros(image.shape[:2], np.uint8)
    for value, left in enumerate(lefts, 3):
        labels[5:35, left : left + 20] = value
    folder.mkdir()
    Image.fromarray(image).save(folder / "a.png")
    write_mask(folder / "m.png", labels, DAVIS_PALETTE)
    return folder / "a.png", folder / "m.png"


def test_second_object_is_from_the_image_or_pasted(tmp_path: Path, smooth_image: MakeImage) -> None:
    pair = write_objects(tmp_path / "two", smooth_image(40, 60), 5, 35)
    clips = StaticClips([pair], 32, num_objects=2)
    num_own = num_two = 0
    for epoch in range(60):
        sample = clips[epoch, 0]
        assert sample.first_masks.shape == (2, 32, 32)
        again = clips[epoch, 0]
        assert torch.equal(sample.images, again.images)
        assert torch.equal(sample.labels, again.labels)
        present = set(sample.labels[0].unique().tolist()) - {0}
        assert present == set(range(1, sample.num_objects + 1))
        for label in (1, 2):
            assert torch.equal(sample.first_masks[label - 1], (sample.labels[0] == label).byte())
        assert sample.labels.max() <= sample.num_objects
        if sample.num_objects == 2:
            x = [torch.nonzero(sample.labels[0] == o)[:, 1].float().mean() for o in (1, 2)]
            num_own, num_two = num_own + bool(abs(x[0] - x[1]) > 14), num_two + 1
    assert num_two > 40
    assert num_own > 10


def test_clips_of_one_object_are_as_before(tmp_path: Path, smooth_image: MakeImage) -> None:
    pair = write_objects(tmp_path / "two", smooth_image(40, 60), 5, 35)
    sample = StaticClips([pair], 32)[0, 0]
    assert sample.first_masks.shape == (1, 32, 32)
    assert sample.num_objects == 1
    assert sample.labels.max() == 1


def erode(mask: np.ndarray) -> np.ndarray:
    """Remove the pixels near an edge of the mask or near the border."""
    return cv2.erode(np.pad(mask, 2).astype(np.uint8), np.ones((5, 5)))[2:-2, 2:-2] > 0


def test_pasted_object_is_in_front_and_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A white object on black in front of a grey image that is completely one object."""
    monkeypatch.setattr(static, "draw_colour", lambda *_: np.eye(3, 4))
    behind = tmp_path / "grey.png", tmp_path / "grey_mask.png"
    Image.new("RGB", (60, 40), (90, 90, 90)).save(behind[0])
    Image.new("L", (60, 40), 255).save(behind[1])
    white = np.zeros((40, 60, 3), np.uint8)
    white[5:35, 20:40] = 255
    clips = StaticClips([behind, write_objects(tmp_path / "front", white, 20)], 64, num_objects=2)
    num_moving = 0
    for epoch in range(30):
        sample = clips[epoch, 0]
        if sample.num_objects < 2 or sample.images.max() < 250:
            continue  # the grey image is pasted in front of itself
        for image, labels in zip(sample.images.numpy(), sample.labels.numpy(), strict=True):
            assert (image[:, erode(labels == 2)] > 200).all()
            assert (abs(image[:, erode(labels == 1)].astype(int) - 90) < 30).all()
        num_moving += not torch.equal(sample.labels[0], sample.labels[2])
    assert num_moving > 5
