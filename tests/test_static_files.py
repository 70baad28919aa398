"""Masks and folders of static images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.static import find_static_pairs, mix_static, read_training_mask
from util.masks import DAVIS_PALETTE, write_mask


def test_grey_masks_are_thresholded_at_half(tmp_path: Path) -> None:
    grey = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    path = tmp_path / "L.png"
    Image.fromarray(grey).save(path)
    labels = read_training_mask(path, (4, 256))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, grey > 127)
    Image.fromarray(grey // 255).save(path)  # values 0 and 1
    np.testing.assert_array_equal(read_training_mask(path, (4, 256)), grey == 255)
    Image.fromarray(grey).convert("1", dither=Image.Dither.NONE).save(tmp_path / "1.png")
    np.testing.assert_array_equal(read_training_mask(tmp_path / "1.png", (4, 256)), grey > 127)


def test_colour_masks_keep_their_objects(tmp_path: Path) -> None:
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[2:6, 1:5] = (128, 0, 0)  # DAVIS colours of labels 1 and 2
    pixels[1:7, 7:11] = (0, 128, 0)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    labels = read_training_mask(tmp_path / "m.png", (8, 12))
    assert (labels[3, 3], labels[3, 8], labels[0, 0]) == (1, 2, 0)


def test_palette_masks_keep_their_labels(tmp_path: Path) -> None:
    labels = np.zeros((8, 12), np.uint8)
    labels[2:6, 1:5], labels[1:7, 7:11] = 2, 130
    path = tmp_path / "m.png"
    write_mask(path, labels, DAVIS_PALETTE)
    np.testing.assert_array_equal(read_training_mask(path, (8, 12)), labels)


def test_invalid_masks_are_rejected(tmp_path: Path, truncate: Callable[[Path], None]) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "some mask.png"
    Image.fromarray(rng.integers(0, 256, (30, 40), dtype=np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"mask .*some mask.png is 40x30, but its image is 20x10"):
        read_training_mask(path, (10, 20))
    truncate(path)
    with pytest.raises(ValueError, match=r"mask .*some mask.png cannot be read, it is truncated"):
        read_training_mask(path, (30, 40))
    path.write_bytes(b"no image at all")
    with pytest.raises(ValueError, match=r"mask .*some mask.png cannot be read"):
        read_training_mask(path, (30, 40))
    for mask in (Image.new("L", (40, 30), 0), Image.new("P", (40, 30), 0)):
        mask.save(path)
        with pytest.raises(ValueError, match=r"mask .*some mask.png contains no object: remove it"):
            read_training_mask(path, (30, 40))


@pytest.mark.parametrize("offset", [-30, -100, -200, -2000])
def test_damage_anywhere_in_a_mask_is_detected(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "some mask.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (80, 80), dtype=np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[offset : offset + 8] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mask .*some mask.png"):
        read_training_mask(path, (80, 80))


# Folders


def make_pairs(root: Path, *names: str) -> None:
    """Make empty image and mask files."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".jpg").touch()
        path.with_suffix(".png").touch()


def test_pairs_are_found_in_nested_folders(tmp_path: Path) -> None:
    make_pairs(tmp_path, "FSS/cat/1", "FSS/cat/2", "FSS/dog/1", "DUTS-TR/b", "DUTS-TR/a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "DUTS-TR" / "alone.png").touch()
    (tmp_path / "readme.txt").touch()
    data_sets = find_static_pairs(tmp_path)
    assert list(data_sets) == ["DUTS-TR", "FSS"]
    assert [image.name for image, _ in data_sets["DUTS-TR"]] == ["a.jpg", "b.jpg"]
    assert len(data_sets["FSS"]) == 3
    for pairs in data_sets.values():
        for image, mask in pairs:
            assert mask == image.with_suffix(".png")
            assert mask.exists()


def test_mixture_repeats_big_and_hrsod_five_times(tmp_path: Path) -> None:
    names = ("BIG_small", "HRSOD_small", "DUTS-TR", "DUTS-TE", "FSS", "ECSSD", "mine")
    make_pairs(tmp_path, *(f"{name}/{i}" for name in names for i in range(2)))
    mixture = mix_static(find_static_pairs(tmp_path))
    for name in names:
        for i in range(2):
            image = tmp_path / name / f"{i}.jpg"
            count = sum(pair[0] == image for pair in mixture)
            assert count == (5 if name in ("BIG_small", "HRSOD_small") else 1)
    assert len(mixture) == 2 * (5 + 5 + 5)


def test_synthetic_layout(synthetic: Path) -> None:
    data_sets = find_static_pairs(synthetic / "static")
    assert {name: len(pairs) for name, pairs in data_sets.items()} == {
        "BIG_small": 2, "DUTS-TE": 2, "DUTS-TR": 2, "ECSSD": 2, "FSS": 4, "HRSOD_small": 2,
    }  # fmt: skip
    assert len(mix_static(data_sets)) == 30


def test_invalid_folders_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"folder .*nowhere does not exist: .*--static_root"):
        find_static_pairs(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"contains no images with masks"):
        find_static_pairs(tmp_path)
    make_pairs(tmp_path, "FSS/cat/1", "FSS/cat/2", "DUTS-TR/a")
    (tmp_path / "FSS" / "cat" / "2.png").unlink()
    with pytest.raises(ValueError, match=r"1 images in .*FSS have no mask .*cat/2\.jpg"):
        find_static_pairs(tmp_path)
