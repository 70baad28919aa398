"""Clips with a second, pasted object: of images and of videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from datasets import static, training_videos
from datasets.clips import ClipSample
from datasets.pasting import PastedObject, paste, shows_both
from datasets.static import StaticClips
from datasets.training_videos import JumpSchedule, VideoClips, VideoSet
from datasets.video_list import TrainingVideo
from util.masks import DAVIS_PALETTE, write_mask

RED, BLUE = (220, 30, 30), (30, 30, 220)
SIDE = 64


def draw_blob(colour: tuple[int, int, int], t: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An ellipse of one colour that moves, in front of grey; (H, W, 3) and (H, W) uint8."""
    mask = np.zeros((80, 100), np.uint8)
    cv2.ellipse(mask, (42 + 3 * t, 40), (22, 15), 20, 0, 360, 1, -1)
    image = np.full((80, 100, 3), 128, np.uint8)
    image[mask > 0] = colour
    return image, mask


def write_pair(stem: Path, colour: tuple[int, int, int]) -> tuple[Path, Path]:
    image, mask = draw_blob(colour)
    paths = stem.with_suffix(".jpg"), stem.with_suffix(".png")
    Image.fromarray(image).save(paths[0], quality=95)
    write_mask(paths[1], mask, DAVIS_PALETTE)
    return paths


def write_video(root: Path, colour: tuple[int, int, int]) -> TrainingVideo:
    for folder in ("frames", "masks"):
        (root / folder).mkdir(parents=True)
    names = [f"{t:05d}" for t in range(6)]
    for t, name in enumerate(names):
        image, mask = draw_blob(colour, t)
        Image.fromarray(image).save(root / f"frames/{name}.png")
        write_mask(root / f"masks/{name}.png", mask, DAVIS_PALETTE)
    return TrainingVideo(root / "frames", root / "masks", ".png", "/".join(names))


def video_clips(videos: list[TrainingVideo], share: float) -> VideoClips:
    return VideoClips([VideoSet("a", videos)], JumpSchedule([2], [], 1), SIDE, paste_share=share)


def is_red(sample: ClipSample, label: int) -> bool:
    """Return True if an object of the first frame is more red than blue."""
    pixels = sample.images[0][:, sample.labels[0] == label].float()
    return bool(pixels[0].mean() > pixels[2].mean())


def test_paste_keeps_what_is_behind() -> None:
    images = [np.full((SIDE, SIDE, 3), 10, np.uint8)] * 2
    labels = [np.zeros((SIDE, SIDE), np.uint8) for _ in range(2)]
    front = [np.zeros((SIDE, SIDE), np.uint8) for _ in range(2)]
    for t in range(2):
        labels[t][10:40, 10:40] = 1
        front[t][20:50, 20 + 5 * t : 50 + 5 * t] = 1
    pasted = PastedObject([np.full((SIDE, SIDE, 3), 200, np.uint8)] * 2, front)
    both = paste(images, labels, pasted)
    assert both is not None
    new_images, new_labels = both
    for t in range(2):
        assert (new_labels[t][front[t] > 0] == 2).all()
        np.testing.assert_array_equal(new_labels[t][front[t] == 0], labels[t][front[t] == 0])
        inside = cv2.erode(front[t], np.ones((3, 3))) > 0
        outside = cv2.dilate(front[t], np.ones((3, 3))) == 0
        assert (new_images[t][inside] == 200).all()
        assert (new_images[t][outside] == 10).all()
    front[0][:] = 1  # the first object is hidden
    assert paste(images, labels, pasted) is None


@pytest.mark.parametrize("twins", [0, 1])
def test_objects_of_images(twins: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twins have the colour of the first object; others often have another one."""
    monkeypatch.setattr(static, "TWIN_PROBABILITY", twins)
    pairs = [write_pair(tmp_path / "red", RED), write_pair(tmp_path / "blue", BLUE)]
    clips = StaticClips(pairs, SIDE, num_objects=2)
    samples = [clips[epoch, index] for epoch in range(20) for index in range(2)]
    samples = [sample for sample in samples if sample.num_objects == 2]
    assert len(samples) > 20
    assert all(shows_both(sample.labels[0].numpy()) for sample in samples)
    equal = [is_red(sample, 1) == is_red(sample, 2) for sample in samples]
    assert all(equal) if twins else 5 < sum(equal) < len(equal) - 5


@pytest.mark.parametrize("twins", [0, 1])
def test_objects_of_videos(twins: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_videos, "TWIN_PROBABILITY", twins)
    videos = [write_video(tmp_path / "red", RED), write_video(tmp_path / "blue", BLUE)]
    plain, clips = video_clips(videos, 0), video_clips(videos, 1)
    equal = []
    for key in [(epoch, index) for epoch in range(20) for index in range(2)]:
        sample, first = clips[key], plain[key]
        assert first.num_objects == 1
        if sample.num_objects == 1:
            assert torch.equal(sample.images, first.images)
            continue
        assert shows_both(sample.labels[0].numpy())
        is_behind = sample.labels != 2
        assert torch.equal(sample.labels[is_behind], first.labels[is_behind])
        again = clips[key]
        assert torch.equal(sample.images, again.images)
        equal.append(is_red(sample, 1) == is_red(sample, 2))
    assert len(equal) > 20
    assert all(equal) if twins else 5 < sum(equal) < len(equal) - 5


def test_share_of_videos(tmp_path: Path) -> None:
    clips = video_clips([write_video(tmp_path / "red", RED)], 0.5)
    numbers = [clips[epoch, 0].num_objects for epoch in range(60)]
    assert 15 <= numbers.count(2) <= 40
