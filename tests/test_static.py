"""Clips made from static images."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from datasets import clips as clips_module
from datasets import static, transforms
from datasets.clips import ClipSample
from datasets.sampler import ClipBatches
from datasets.static import StaticClips, draw_object, find_static_pairs, mix_static
from util.images import read_image
from util.masks import DAVIS_PALETTE, write_mask

MakeImage = Callable[[int, int], np.ndarray]
WritePair = Callable[[Path, np.ndarray, Image.Image], tuple[Path, Path]]


def write_labels(path: Path, labels: np.ndarray) -> Path:
    write_mask(path, labels, DAVIS_PALETTE)
    return path


@pytest.fixture
def blob(tmp_path: Path) -> tuple[Path, Path]:
    """A white ellipse on black and its mask, both as PNG, so that they agree exactly."""
    mask = np.zeros((90, 120), np.uint8)
    cv2.ellipse(mask, (55, 48), (34, 22), 25, 0, 360, 255, -1)
    paths = tmp_path / "blob.png", tmp_path / "blob_mask.png"
    Image.fromarray(mask).convert("RGB").save(paths[0])
    Image.fromarray(mask).save(paths[1])
    return paths


@pytest.fixture
def plain(tmp_path: Path, smooth_image: MakeImage) -> tuple[Path, Path]:
    """A small image that is covered by its object, so that every crop shows the object."""
    Image.fromarray(smooth_image(24, 40)).save(tmp_path / "plain.png")
    Image.new("L", (40, 24), 255).save(tmp_path / "plain_mask.png")
    return tmp_path / "plain.png", tmp_path / "plain_mask.png"


class Spy:
    """Replaces functions of a module and records their arguments and results."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.calls: dict[str, list[tuple[tuple, dict[str, Any], Any]]] = {n: [] for n in names}
        for name in names:
            module = static if hasattr(static, name) else clips_module
            monkeypatch.setattr(module, name, self._record(name, getattr(module, name)))

    def _record(self, name: str, function: Callable) -> Callable:
        def recorded(*args: Any, **options: Any) -> Any:
            result = function(*args, **options)
            self.calls[name].append((args, options, result))
            return result

        return recorded


def disable_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "draw_colour", lambda rng, jitter, mean: np.eye(3, 4))


def same(a: ClipSample, b: ClipSample) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


def test_shapes_and_types(synthetic: Path) -> None:
    pairs = mix_static(find_static_pairs(synthetic / "static"))
    clips = StaticClips(pairs, crop_size=32, seed=5)
    assert len(clips) == len(pairs)
    for index in range(4):
        sample = clips[0, index]
        assert sample.images.shape == (3, 3, 32, 32)
        assert sample.images.dtype == torch.uint8
        assert sample.labels.shape == (3, 32, 32)
        assert sample.labels.dtype == torch.uint8
        assert sample.num_objects == 1
        assert sample.labels[0].any()
        assert set(sample.labels.unique().tolist()) <= {0, 1}
        assert len({sample.images[t].sum().item() for t in range(3)}) == 3
        image = pairs[index][0]
        assert sample.name == f"{image.parent.name}/{image.stem}"


def test_number_of_frames(blob: tuple[Path, Path]) -> None:
    sample = StaticClips([blob], 48, num_frames=5)[0, 0]
    assert sample.images.shape == (5, 3, 48, 48)
    assert sample.labels.shape == (5, 48, 48)


def test_sample_depends_on_seed_epoch_and_index_only(blob: tuple[Path, Path]) -> None:
    pairs = [blob] * 3
    clips = StaticClips(pairs, 32, seed=1)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002, the test detects its use
    expected = clips[2, 1]
    torch.manual_seed(9)
    np.random.seed(9)  # noqa: NPY002
    other = StaticClips(pairs, 32, seed=1)
    for key in ((0, 0), (2, 2), (5, 1)):
        assert not same(other[key], expected)
    assert same(other[2, 1], expected)
    assert not same(StaticClips(pairs, 32, seed=2)[2, 1], expected)
    for key in ((1, 1), (2, 0), (1, 2)):
        assert not same(clips[key], expected)


def test_samples_do_not_depend_on_workers(blob: tuple[Path, Path]) -> None:
    clips = StaticClips([blob] * 3, 32, seed=1)

    def load(num_workers: int) -> list[ClipSample]:
        batches = ClipBatches(3, 2, range(4))
        return list(DataLoader(clips, batch_sampler=batches, num_workers=num_workers))

    without_workers, with_workers = load(0), load(2)
    assert len(without_workers) == len(with_workers) == 4
    for a, b in zip(without_workers, with_workers, strict=True):
        assert a.images.shape == (2, 3, 3, 32, 32)
        assert a.num_objects.tolist() == [1, 1]  # type: ignore[attr-defined]
        assert same(a, b)


@pytest.mark.parametrize("crop_size", [32, 144])
def test_image_and_mask_move_together(
    monkeypatch: pytest.MonkeyPatch, blob: tuple[Path, Path], crop_size: int
) -> None:
    """With all geometric augmentations, for a smaller and a larger output."""
    disable_colour(monkeypatch)
    monkeypatch.setattr(transforms, "MEAN_COLOUR", (0, 0, 0))  # outside is background
    spy = Spy(monkeypatch, "flip", "spline_displacement")
    clips = StaticClips([blob], crop_size, seed=3)
    kernel = np.ones((3, 3), np.uint8)
    for epoch in range(12):
        sample = clips[epoch, 0]
        for image, labels in zip(sample.images.numpy(), sample.labels.numpy(), strict=True):
            edge = cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)
            wrong = ((image[0] > 127) != (labels > 0)) & ~edge
            assert not wrong.any()
            assert labels.any()
    assert spy.calls["flip"]
    assert spy.calls["spline_displacement"]


def test_distributions_are_as_published(
    monkeypatch: pytest.MonkeyPatch, plain: tuple[Path, Path]
) -> None:
    spy = Spy(monkeypatch, "affine", "flip", "spline_displacement", "draw_colour")
    clips = StaticClips([plain], 16, seed=0)
    num_clips = 300
    for epoch in range(num_clips):
        clips[epoch, 0]

    drawn = [options for _, options, _ in spy.calls["affine"]]
    shared = [options for options in drawn if "degrees" not in options]
    own = [options for options in drawn if "degrees" in options]
    assert len(shared) == num_clips
    assert len(own) == 3 * num_clips
    assert all(options.keys() == {"scale"} for options in shared)
    for options, name, low, high in [
        (shared, "scale", 0.8, 1.5), (own, "degrees", -20, 20), (own, "shear", -10, 10),
        (own, "scale", 0.9, 1.1),
    ]:  # fmt: skip
        values = np.array([option[name] for option in options])
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.05 * (high - low))
        assert values.std() == pytest.approx((high - low) / math.sqrt(12), rel=0.06)

    assert 0.42 < len(spy.calls["flip"]) / num_clips < 0.58
    assert 0.28 < len(spy.calls["spline_displacement"]) / (3 * num_clips) < 0.385
    assert all(not options for _, options, _ in spy.calls["spline_displacement"])

    jitters = [args[1] for args, _, _ in spy.calls["draw_colour"]]
    assert len(jitters) == 4 * num_clips
    first = jitters[0]
    assert (first.brightness, first.contrast, first.saturation) == (0.1, 0.05, 0.05)
    assert (first.hue, first.grey_probability) == (0.05, 0.05)
    for jitter in jitters[1:4]:
        assert (jitter.brightness, jitter.contrast, jitter.saturation) == (0.1, 0.05, 0.05)
        assert (jitter.hue, jitter.grey_probability) == (0, 0)


def test_frames_share_the_flip_and_differ_in_the_rest(
    monkeypatch: pytest.MonkeyPatch, plain: tuple[Path, Path]
) -> None:
    spy = Spy(monkeypatch, "sample_image", "sample_labels", "apply_colour")
    StaticClips([plain], 16, seed=0)[0, 0]
    matrices = [args[1] for args, _, _ in spy.calls["sample_image"]]
    assert len({matrix.tobytes() for matrix in matrices}) == 3
    for matrix, (args, _, _) in zip(matrices, spy.calls["sample_labels"], strict=True):
        np.testing.assert_array_equal(matrix, args[1])
    for (image, _, _), (labels, _, _) in zip(
        spy.calls["sample_image"], spy.calls["sample_labels"], strict=True
    ):
        assert (image[3] is None) == (labels[3] is None)
        assert image[3] is None or np.array_equal(image[3], labels[3])
    flips = {np.linalg.det(matrix[:2, :2]) < 0 for matrix in matrices}
    assert len(flips) == 1
    assert len({args[1].tobytes() for args, _, _ in spy.calls["apply_colour"]}) == 3


def test_order_of_transforms(monkeypatch: pytest.MonkeyPatch, plain: tuple[Path, Path]) -> None:
    """Shared transforms first, then those of the frame about the same centre, then the crop."""
    spy = Spy(monkeypatch, "affine", "flip", "sample_image")
    clips = StaticClips([plain], 16, seed=0)
    for epoch in range(8):
        for calls in spy.calls.values():
            calls.clear()
        clips[epoch, 0]
        shared, *own = (result for _, _, result in spy.calls["affine"])
        for _, _, flip in spy.calls["flip"]:
            shared = flip @ shared
        for (args, _, _), matrix in zip(spy.calls["sample_image"], own, strict=True):
            crop = args[1] @ np.linalg.inv(matrix @ shared)
            np.testing.assert_allclose(crop[:2, :2], np.eye(2) * 16 / 24, atol=1e-9)
            left, top = (crop @ (-0.5, -0.5, 1))[:2]
            assert -11.51 < left < -0.49  # the scaled image is 27 pixels wide
            assert top == pytest.approx(-0.5)


@pytest.mark.parametrize("size", [(24, 40), (40, 24), (32, 32)])
def test_crops_are_inside_the_image(size: tuple[int, int], tmp_path: Path) -> None:
    """The shorter side fills the crop; along the longer side, every position occurs."""
    height, width = size
    clips = StaticClips([], crop_size=16)
    rng = np.random.default_rng(0)
    positions = []
    for _ in range(300):
        inverse = np.linalg.inv(clips._draw_crop(rng, height, width))
        left, top, _ = inverse @ (-0.5, -0.5, 1)  # corners of the crop in the image
        right, bottom, _ = inverse @ (15.5, 15.5, 1)
        assert right - left == pytest.approx(min(size))
        assert bottom - top == pytest.approx(min(size))
        assert left > -0.51
        assert top > -0.51
        assert right < width - 0.49 + 0.5 * min(size) / 16
        assert bottom < height - 0.49 + 0.5 * min(size) / 16
        positions.append((left, top))
    num_positions = round(16 * max(size) / min(size)) - 16 + 1
    assert len(set(positions)) == num_positions


def test_first_frames_without_the_object_are_drawn_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, smooth_image: MakeImage
) -> None:
    """Crops of a wide image often miss an object at its border."""
    labels = np.zeros((24, 96), np.uint8)
    labels[8:16, 18:28] = 1
    Image.fromarray(smooth_image(24, 96)).save(tmp_path / "a.png")
    pair = tmp_path / "a.png", write_labels(tmp_path / "m.png", labels)
    spy = Spy(monkeypatch, "sample_labels")
    clips = StaticClips([pair], 16, seed=0)
    num_clips = 40
    num_visible = sum(bool(clips[epoch, 0].labels[0].any()) for epoch in range(num_clips))
    num_tries = len(spy.calls["sample_labels"]) - 2 * num_clips  # draws of the first frame
    assert 2 * num_clips < num_tries < num_clips * 5
    assert num_visible / num_clips > 0.7


def test_one_object_is_drawn_at_random(tmp_path: Path, smooth_image: MakeImage) -> None:
    labels = np.zeros((40, 60), np.uint8)
    for value, left in ((3, 2), (7, 22), (255, 42)):
        labels[5:35, left : left + 15] = value
    rng = np.random.default_rng(0)
    counts = {3: 0, 7: 0, 255: 0}
    for _ in range(300):
        mask = draw_object(rng, labels)
        assert mask.dtype == np.uint8
        (value,) = np.unique(labels[mask == 1])
        assert ((labels == value) == (mask == 1)).all()
        counts[int(value)] += 1
    assert min(counts.values()) > 70

    Image.fromarray(smooth_image(40, 60)).save(tmp_path / "a.png")
    clips = StaticClips([(tmp_path / "a.png", write_labels(tmp_path / "m.png", labels))], 32)
    samples = [clips[epoch, 0] for epoch in range(4)]
    assert all(set(sample.labels.unique().tolist()) <= {0, 1} for sample in samples)
    assert all(sample.num_objects == 1 for sample in samples)


def test_large_jpegs_are_decoded_at_a_smaller_scale(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, smooth_image: MakeImage, write_pair: WritePair
) -> None:
    mask = np.zeros((400, 601), np.uint8)
    mask[100:300, 200:400] = 255
    pair = write_pair(tmp_path / "large", smooth_image(400, 601), Image.fromarray(mask))
    clips, sizes = StaticClips([pair], 64, seed=4), []

    def record_size(path: Path, scale: float = 1) -> np.ndarray:
        image = read_image(path, scale)
        sizes.append(image.shape[:2])
        return image

    monkeypatch.setattr(clips_module, "read_image", record_size)
    reduced = [clips[epoch, 0] for epoch in range(6)]
    assert {*sizes} <= {(200, 301), (100, 151)}
    monkeypatch.setattr(clips_module, "read_image", lambda path, scale: read_image(path))
    for epoch, sample in enumerate(reduced):
        full = clips[epoch, 0]
        assert torch.equal(full.labels, sample.labels)
        difference = (full.images.float() - sample.images.float()).abs().mean()
        assert difference < 4


def test_invalid_images_are_rejected(
    tmp_path: Path,
    smooth_image: MakeImage,
    write_pair: WritePair,
    truncate: Callable[[Path], None],
) -> None:
    pair = write_pair(tmp_path / "cut", smooth_image(60, 80), Image.new("L", (80, 60), 255))
    truncate(pair[0])
    with pytest.raises(ValueError, match=r"cut\.jpg cannot be read"):
        StaticClips([pair], 32)[0, 0]
    pair = write_pair(tmp_path / "large", smooth_image(60, 80), Image.new("L", (80, 61), 255))
    with pytest.raises(ValueError, match=r"large\.png is 80x61, but its image is 80x60"):
        StaticClips([pair], 32)[0, 0]
