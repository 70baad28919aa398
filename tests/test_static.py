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
from datasets.static import (
    StaticClips,
    draw_object,
    find_static_pairs,
    mix_static,
    read_training_mask,
)
from util.images import read_image
from util.masks import DAVIS_PALETTE, write_mask

MakeImage = Callable[[int, int], np.ndarray]
WritePair = Callable[[Path, np.ndarray, Image.Image], tuple[Path, Path]]


def write_labels(path: Path, labels: np.ndarray) -> Path:
    write_mask(path, labels, DAVIS_PALETTE)
    return path


@pytest.fixture
def blob(tmp_path: Path) -> tuple[Path, Path]:
    """A white ellipse on black, and its mask: both PNG, so that they agree to the pixel."""
    mask = np.zeros((90, 120), np.uint8)
    cv2.ellipse(mask, (55, 48), (34, 22), 25, 0, 360, 255, -1)
    paths = tmp_path / "blob.png", tmp_path / "blob_mask.png"
    Image.fromarray(mask).convert("RGB").save(paths[0])
    Image.fromarray(mask).save(paths[1])
    return paths


@pytest.fixture
def plain(tmp_path: Path, smooth_image: MakeImage) -> tuple[Path, Path]:
    """A small picture that is object everywhere, so that a first draw always shows it."""
    Image.fromarray(smooth_image(24, 40)).save(tmp_path / "plain.png")
    Image.new("L", (40, 24), 255).save(tmp_path / "plain_mask.png")
    return tmp_path / "plain.png", tmp_path / "plain_mask.png"


class Spy:
    """Stands in for functions of a module, and keeps what each call was given and gave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.calls: dict[str, list[tuple[tuple, dict[str, Any], Any]]] = {n: [] for n in names}
        for name in names:
            module = static if hasattr(static, name) else clips_module
            monkeypatch.setattr(module, name, self._watched(name, getattr(module, name)))

    def _watched(self, name: str, function: Callable) -> Callable:
        def watched(*args: Any, **options: Any) -> Any:
            result = function(*args, **options)
            self.calls[name].append((args, options, result))
            return result

        return watched


def no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "draw_colour", lambda rng, jitter, mean: np.eye(3, 4))


def same(a: ClipSample, b: ClipSample) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


# Samples


def test_a_sample(synthetic: Path) -> None:
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


def test_clips_may_have_other_lengths(blob: tuple[Path, Path]) -> None:
    sample = StaticClips([blob], 48, num_frames=5)[0, 0]
    assert sample.images.shape == (5, 3, 48, 48)
    assert sample.labels.shape == (5, 48, 48)


def test_a_sample_depends_on_seed_epoch_and_index_alone(blob: tuple[Path, Path]) -> None:
    pairs = [blob] * 3
    clips = StaticClips(pairs, 32, seed=1)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002, since hidden use of it is what is looked for
    wanted = clips[2, 1]
    torch.manual_seed(9)
    np.random.seed(9)  # noqa: NPY002
    other = StaticClips(pairs, 32, seed=1)
    for key in ((0, 0), (2, 2), (5, 1)):
        assert not same(other[key], wanted)
    assert same(other[2, 1], wanted)
    assert not same(StaticClips(pairs, 32, seed=2)[2, 1], wanted)
    for key in ((1, 1), (2, 0), (1, 2)):
        assert not same(clips[key], wanted)


def test_workers_change_nothing(blob: tuple[Path, Path]) -> None:
    clips = StaticClips([blob] * 3, 32, seed=1)

    def load(num_workers: int) -> list[ClipSample]:
        batches = ClipBatches(3, 2, range(4))
        return list(DataLoader(clips, batch_sampler=batches, num_workers=num_workers))

    alone, helped = load(0), load(2)
    assert len(alone) == len(helped) == 4
    for a, b in zip(alone, helped, strict=True):
        assert a.images.shape == (2, 3, 3, 32, 32)
        assert a.num_objects.tolist() == [1, 1]  # type: ignore[attr-defined]
        assert same(a, b)


@pytest.mark.parametrize("crop_size", [32, 144])
def test_image_and_mask_move_together(
    monkeypatch: pytest.MonkeyPatch, blob: tuple[Path, Path], crop_size: int
) -> None:
    """Through everything that is drawn, flips and splines too, shrunk and enlarged."""
    no_colour(monkeypatch)
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


def test_what_is_drawn_is_distributed_as_published(
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
    one = jitters[0]
    assert (one.brightness, one.contrast, one.saturation, one.hue) == (0.1, 0.05, 0.05, 0.05)
    assert one.grey_probability == 0.05
    for jitter in jitters[1:4]:
        assert (jitter.brightness, jitter.contrast, jitter.saturation) == (0.1, 0.05, 0.05)
        assert (jitter.hue, jitter.grey_probability) == (0, 0)


def test_frames_share_some_draws_and_not_others(
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
    mirrored = {np.linalg.det(matrix[:2, :2]) < 0 for matrix in matrices}
    assert len(mirrored) == 1
    assert len({args[1].tobytes() for args, _, _ in spy.calls["apply_colour"]}) == 3


def test_a_frame_is_cropped_last(monkeypatch: pytest.MonkeyPatch, plain: tuple[Path, Path]) -> None:
    """Shared changes, then the frame's own about the same centre, then the crop."""
    spy = Spy(monkeypatch, "affine", "flip", "sample_image")
    clips = StaticClips([plain], 16, seed=0)
    for epoch in range(8):
        for calls in spy.calls.values():
            calls.clear()
        clips[epoch, 0]
        shared, *own = (result for _, _, result in spy.calls["affine"])
        for _, _, mirror in spy.calls["flip"]:
            shared = mirror @ shared
        for (args, _, _), moved in zip(spy.calls["sample_image"], own, strict=True):
            crop = args[1] @ np.linalg.inv(moved @ shared)
            np.testing.assert_allclose(crop[:2, :2], np.eye(2) * 16 / 24, atol=1e-9)
            left, top = (crop @ (-0.5, -0.5, 1))[:2]
            assert -11.51 < left < -0.49  # of the 27 pixels that the picture is then wide
            assert top == pytest.approx(-0.5)


@pytest.mark.parametrize("size", [(24, 40), (40, 24), (32, 32)])
def test_crops_lie_anywhere_inside(size: tuple[int, int], tmp_path: Path) -> None:
    """The shorter side fills the crop, along the longer one it lies at every place."""
    height, width = size
    clips = StaticClips([], crop_size=16)
    rng = np.random.default_rng(0)
    places = []
    for _ in range(300):
        back = np.linalg.inv(clips._draw_crop(rng, height, width))
        left, top, _ = back @ (-0.5, -0.5, 1)  # the crop's corners in the source
        right, bottom, _ = back @ (15.5, 15.5, 1)
        assert right - left == pytest.approx(min(size))
        assert bottom - top == pytest.approx(min(size))
        assert left > -0.51
        assert top > -0.51
        assert right < width - 0.49 + 0.5 * min(size) / 16
        assert bottom < height - 0.49 + 0.5 * min(size) / 16
        places.append((left, top))
    free = round(16 * max(size) / min(size)) - 16 + 1
    assert len(set(places)) == free


def test_a_first_frame_without_the_object_is_drawn_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, smooth_image: MakeImage
) -> None:
    """An object in the corner of a long image is often cropped away."""
    labels = np.zeros((24, 96), np.uint8)
    labels[8:16, 18:28] = 1
    Image.fromarray(smooth_image(24, 96)).save(tmp_path / "a.png")
    pair = tmp_path / "a.png", write_labels(tmp_path / "m.png", labels)
    spy = Spy(monkeypatch, "sample_labels")
    clips = StaticClips([pair], 16, seed=0)
    num_clips = 40
    shown = sum(bool(clips[epoch, 0].labels[0].any()) for epoch in range(num_clips))
    tries = len(spy.calls["sample_labels"]) - 2 * num_clips  # of the first frame
    assert 2 * num_clips < tries < num_clips * 5
    assert shown / num_clips > 0.7


def test_one_of_several_objects_is_drawn(tmp_path: Path, smooth_image: MakeImage) -> None:
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


# Masks


def test_soft_masks_are_cut_at_half(tmp_path: Path) -> None:
    soft = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    path = tmp_path / "L.png"
    Image.fromarray(soft).save(path)
    labels = read_training_mask(path, (4, 256))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, soft > 127)
    Image.fromarray(soft // 255).save(path)  # values 0 and 1
    np.testing.assert_array_equal(read_training_mask(path, (4, 256)), soft == 255)
    Image.fromarray(soft).convert("1", dither=Image.Dither.NONE).save(tmp_path / "1.png")
    np.testing.assert_array_equal(read_training_mask(tmp_path / "1.png", (4, 256)), soft > 127)


def test_colour_masks_keep_their_objects(tmp_path: Path) -> None:
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[2:6, 1:5] = (128, 0, 0)  # DAVIS's colours of 1 and 2
    pixels[1:7, 7:11] = (0, 128, 0)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    labels = read_training_mask(tmp_path / "m.png", (8, 12))
    assert (labels[3, 3], labels[3, 8], labels[0, 0]) == (1, 2, 0)


def test_palette_masks_keep_their_labels(tmp_path: Path) -> None:
    labels = np.zeros((8, 12), np.uint8)
    labels[2:6, 1:5], labels[1:7, 7:11] = 2, 130
    path = write_labels(tmp_path / "m.png", labels)
    np.testing.assert_array_equal(read_training_mask(path, (8, 12)), labels)


def test_masks_that_are_refused(tmp_path: Path, truncate: Callable[[Path], None]) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "some mask.png"
    Image.fromarray(rng.integers(0, 256, (30, 40), dtype=np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"mask .*some mask.png is 40x30, but its image is 20x10"):
        read_training_mask(path, (10, 20))
    truncate(path)
    with pytest.raises(ValueError, match=r"mask .*some mask.png cannot be read, it is cut short"):
        read_training_mask(path, (30, 40))
    path.write_bytes(b"no image at all")
    with pytest.raises(ValueError, match=r"mask .*some mask.png cannot be read"):
        read_training_mask(path, (30, 40))
    for mask in (Image.new("L", (40, 30), 0), Image.new("P", (40, 30), 0)):
        mask.save(path)
        with pytest.raises(ValueError, match=r"mask .*some mask.png shows no object: remove it"):
            read_training_mask(path, (30, 40))


@pytest.mark.parametrize("place", [-30, -100, -200, -2000])
def test_a_damaged_mask_is_named_wherever_the_damage_is(tmp_path: Path, place: int) -> None:
    path = tmp_path / "some mask.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (80, 80), dtype=np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[place : place + 8] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mask .*some mask.png"):
        read_training_mask(path, (80, 80))


def test_images_that_are_refused(
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


# Folders


def make_pairs(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".jpg").touch()
        path.with_suffix(".png").touch()


def test_pairs_are_found_in_folders_of_folders(tmp_path: Path) -> None:
    make_pairs(tmp_path, "FSS/cat/1", "FSS/cat/2", "FSS/dog/1", "DUTS-TR/b", "DUTS-TR/a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "DUTS-TR" / "alone.png").touch()
    (tmp_path / "readme.txt").touch()
    found = find_static_pairs(tmp_path)
    assert list(found) == ["DUTS-TR", "FSS"]
    assert [image.name for image, _ in found["DUTS-TR"]] == ["a.jpg", "b.jpg"]
    assert len(found["FSS"]) == 3
    for pairs in found.values():
        for image, mask in pairs:
            assert mask == image.with_suffix(".png")
            assert mask.exists()


def test_the_mixture_repeats_the_small_fine_sets(tmp_path: Path) -> None:
    names = ("BIG_small", "HRSOD_small", "DUTS-TR", "DUTS-TE", "FSS", "ECSSD", "mine")
    make_pairs(tmp_path, *(f"{name}/{i}" for name in names for i in range(2)))
    mixture = mix_static(find_static_pairs(tmp_path))
    for name in names:
        for i in range(2):
            image = tmp_path / name / f"{i}.jpg"
            times = sum(pair[0] == image for pair in mixture)
            assert times == (5 if name in ("BIG_small", "HRSOD_small") else 1)
    assert len(mixture) == 2 * (5 + 5 + 5)


def test_the_synthetic_layout_is_read(synthetic: Path) -> None:
    found = find_static_pairs(synthetic / "static")
    assert {name: len(pairs) for name, pairs in found.items()} == {
        "BIG_small": 2, "DUTS-TE": 2, "DUTS-TR": 2, "ECSSD": 2, "FSS": 4, "HRSOD_small": 2,
    }  # fmt: skip
    assert len(mix_static(found)) == 30


def test_folders_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no folder .*nowhere: .*--static_root"):
        find_static_pairs(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no images with masks"):
        find_static_pairs(tmp_path)
    make_pairs(tmp_path, "FSS/cat/1", "FSS/cat/2", "DUTS-TR/a")
    (tmp_path / "FSS" / "cat" / "2.png").unlink()
    with pytest.raises(ValueError, match=r"1 images below .*FSS have no mask .*cat/2\.jpg"):
        find_static_pairs(tmp_path)


def test_large_jpegs_are_decoded_smaller_and_look_alike(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, smooth_image: MakeImage, write_pair: WritePair
) -> None:
    mask = np.zeros((400, 601), np.uint8)
    mask[100:300, 200:400] = 255
    pair = write_pair(tmp_path / "large", smooth_image(400, 601), Image.fromarray(mask))
    clips, sizes = StaticClips([pair], 64, seed=4), []

    def watched(path: Path, scale: float = 1) -> np.ndarray:
        image = read_image(path, scale)
        sizes.append(image.shape[:2])
        return image

    monkeypatch.setattr(clips_module, "read_image", watched)
    reduced = [clips[epoch, 0] for epoch in range(6)]
    assert {*sizes} <= {(200, 301), (100, 151)}
    monkeypatch.setattr(clips_module, "read_image", lambda path, scale: read_image(path))
    for epoch, sample in enumerate(reduced):
        whole = clips[epoch, 0]
        assert torch.equal(whole.labels, sample.labels)
        difference = (whole.images.float() - sample.images.float()).abs().mean()
        assert difference < 4
