"""Mask files: labels, palettes, and rejection of interpolated masks."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from util.masks import (
    DAVIS_PALETTE,
    colour_palette,
    labels_of,
    read_mask,
    resize_labels,
    write_mask,
)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def save(path: Path, pixels: np.ndarray, palette: bytes | None = None) -> Path:
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette)
    image.save(path)
    return path


def squares(values: list[int], side: int = 6) -> np.ndarray:
    """Row of squares, each with a background margin of 2 pixels."""
    labels = np.zeros((side + 4, len(values) * (side + 4)), np.uint8)
    for index, value in enumerate(values):
        left = index * (side + 4) + 2
        labels[2 : 2 + side, left : left + side] = value
    return labels


def disc(value: int = 255) -> np.ndarray:
    labels = np.zeros((120, 160), np.uint8)
    cv2.circle(labels, (80, 60), 40, value, -1)
    return labels


def three_objects() -> np.ndarray:
    """Objects 1, 2, 3; 3 touches the background and 1, so interpolation gives other labels."""
    labels = np.zeros((120, 160), np.uint8)
    cv2.circle(labels, (50, 60), 35, 1, -1)
    cv2.circle(labels, (120, 40), 30, 2, -1)
    cv2.circle(labels, (80, 80), 30, 3, -1)
    return labels


def compress_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def rescale(pixels: np.ndarray, scale: float, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=interpolation)


def test_davis_palette() -> None:
    colours = [tuple(DAVIS_PALETTE[3 * i : 3 * i + 3]) for i in range(256)]
    assert colours[:5] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]
    assert colours[8] == (64, 0, 0)
    assert colours[255] == (224, 224, 192)
    assert len(set(colours)) == 256


@pytest.mark.parametrize("palette", [DAVIS_PALETTE, None, bytes(range(256)) * 3])
def test_round_trip(tmp_path: Path, palette: bytes | None) -> None:
    labels = squares([1, 2, 3, 7, 200, 255])
    path = tmp_path / "deep" / "mask.png"
    write_mask(path, labels, palette)
    mask = read_mask(path, labels.shape)
    np.testing.assert_array_equal(mask.labels, labels)
    assert mask.labels.dtype == np.uint8
    assert mask.palette == palette
    assert Image.open(path).mode == ("L" if palette is None else "P")
    assert list(path.parent.iterdir()) == [path]


def test_labels_of() -> None:
    assert labels_of(squares([255, 3, 7])) == [3, 7, 255]
    assert labels_of(np.zeros((3, 4), np.uint8)) == []


def test_short_palette_is_completed(tmp_path: Path) -> None:
    mask = read_mask(save(tmp_path / "m.png", squares([1]), bytes([9, 9, 9, 250, 10, 10])))
    assert mask.palette == bytes([9, 9, 9, 250, 10, 10]) + DAVIS_PALETTE[6:]


def test_bilevel_and_16_bit(tmp_path: Path) -> None:
    labels = squares([255])
    Image.fromarray(labels > 0).save(tmp_path / "bilevel.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "bilevel.png").labels, labels)

    labels = squares([1, 9])
    path = save(tmp_path / "deep.png", labels.astype(np.uint16))
    np.testing.assert_array_equal(read_mask(path).labels, labels)
    save(path, labels.astype(np.uint16) * 100)
    with pytest.raises(ValueError, match=r"deep.png has 16-bit values up to 900, but labels"):
        read_mask(path)


def test_davis_colours_get_the_davis_labels(tmp_path: Path) -> None:
    labels = squares([2, 5, 21])
    colours = np.frombuffer(DAVIS_PALETTE, np.uint8).reshape(256, 3)
    mask = read_mask(save(tmp_path / "m.png", colours[labels]))
    np.testing.assert_array_equal(mask.labels, labels)
    assert mask.palette == DAVIS_PALETTE


def test_other_colours_are_numbered_in_order(tmp_path: Path) -> None:
    labels = squares([1, 2, 3])
    colours = np.array([[0, 0, 0], [0, 0, 255], [0, 255, 0], [255, 255, 255]], np.uint8)
    mask = read_mask(save(tmp_path / "m.png", colours[labels]))
    np.testing.assert_array_equal(mask.labels, labels)
    assert mask.palette == colours.tobytes() + DAVIS_PALETTE[12:]

    without_black = np.full((8, 12, 3), (10, 20, 30), np.uint8)
    assert labels_of(read_mask(save(tmp_path / "m.png", without_black)).labels) == [1]


def test_transparent_pixels_are_background(tmp_path: Path) -> None:
    labels = squares([1, 2])
    colours = np.array([[250, 250, 250, 0], [128, 0, 0, 255], [0, 128, 0, 100]], np.uint8)
    np.testing.assert_array_equal(
        read_mask(save(tmp_path / "m.png", colours[labels])).labels, labels
    )
    grey_alpha = Image.fromarray(np.full_like(labels, 7)).convert("LA")
    grey_alpha.putalpha(Image.fromarray(labels.clip(0, 1) * np.uint8(255)))
    grey_alpha.save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "la.png").labels, (labels > 0) * 7)

    soft = np.zeros((120, 160, 4), np.uint8)
    soft[..., 0] = 128
    soft[..., 3] = rescale(rescale(disc(), 0.7), 1 / 0.7)
    with pytest.raises(ValueError, match="looks anti-aliased"):
        read_mask(save(tmp_path / "soft.png", soft))


def test_colour_has_one_label_in_all_masks_of_a_video(tmp_path: Path) -> None:
    red, blue = np.array([255, 0, 0], np.uint8), np.array([0, 0, 255], np.uint8)
    one = save(tmp_path / "1.png", (squares([1, 0])[..., None] > 0) * red)
    two = save(tmp_path / "2.png", (squares([0, 1])[..., None] > 0) * blue)
    palette = colour_palette([one, two])
    assert labels_of(read_mask(one, palette=palette).labels) == [2]
    assert labels_of(read_mask(two, palette=palette).labels) == [1]
    assert read_mask(one, palette=palette).palette == palette

    index = save(tmp_path / "3.png", squares([1]), DAVIS_PALETTE)
    assert colour_palette([index]) == DAVIS_PALETTE
    with pytest.raises(ValueError, match=r"1.png is a colour image and mask .*3.png an index"):
        colour_palette([one, index])


def test_wrong_size_is_rejected(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.ones((10, 20), np.uint8))
    with pytest.raises(ValueError, match=r"m.png is 20x10 \(width x height\).*frame is 21x10"):
        read_mask(path, (10, 21))
    assert read_mask(path, (10, 20)).labels.shape == (10, 20)


def test_empty_mask_is_rejected_by_default(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.zeros((10, 20), np.uint8))
    with pytest.raises(ValueError, match=r"m.png has no object, every pixel is background"):
        read_mask(path)
    assert not read_mask(path, allow_empty=True).labels.any()


def test_damaged_files_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    noise = np.kron(np.random.default_rng(0).integers(0, 9, (20, 20)), np.ones((6, 6)))
    write_mask(path, noise.astype(np.uint8), DAVIS_PALETTE)
    full = path.read_bytes()
    flipped = bytearray(full)
    flipped[-40] ^= 0x55
    for data in (full[: len(full) // 2], full[:-14], full[:20], b"", b"text", bytes(flipped)):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"mask .*m.png cannot be read, it is truncated"):
            read_mask(path)
    with pytest.raises(FileNotFoundError):
        read_mask(tmp_path / "none.png")


def test_jpeg_and_other_modes_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"m.jpg is a JPEG.*save the original mask as PNG"):
        read_mask(save(tmp_path / "m.jpg", disc()))
    with pytest.raises(ValueError, match=r"m.tif has the image mode F: save it as a palette"):
        read_mask(save(tmp_path / "m.tif", disc().astype(np.float32)))


INTERPOLATED = {
    "half": rescale(disc(), 0.5),
    "smaller": rescale(disc(), 0.7),
    "double": rescale(disc(), 2),
    "four times": rescale(disc(), 4),
    "bicubic": rescale(disc(), 1.3, cv2.INTER_CUBIC),
    "area": rescale(disc(), 0.7, cv2.INTER_AREA),
    "label 38": rescale(disc(38), 1.7),
    "blurred": cv2.GaussianBlur(disc(), (3, 3), 0),
    "three grey levels": cv2.GaussianBlur(disc(), (5, 5), 0) // 64 * 85,
    "jpeg 50": compress_jpeg(disc(), 50),
    "jpeg 90": compress_jpeg(disc(), 90),
    "jpeg 95": compress_jpeg(disc(), 95),
}


@pytest.mark.parametrize("name", INTERPOLATED)
def test_interpolated_masks_are_rejected(tmp_path: Path, name: str) -> None:
    num_values = np.unique(INTERPOLATED[name]).size - 1
    message = f"m.png has {num_values} different values, .*looks anti-aliased .* nearest-neighbour"
    with pytest.raises(ValueError, match=message):
        read_mask(save(tmp_path / "m.png", INTERPOLATED[name]))


@pytest.mark.parametrize("scale", [0.5, 1.5, 2, 3])
def test_interpolated_labels_are_rejected(tmp_path: Path, scale: float) -> None:
    path = save(tmp_path / "m.png", rescale(three_objects(), scale), DAVIS_PALETTE)
    with pytest.raises(ValueError, match=r"m.png has thin lines of other labels .* interpolation"):
        read_mask(path)
    nearest = rescale(three_objects(), scale, cv2.INTER_NEAREST)
    assert labels_of(read_mask(save(path, nearest, DAVIS_PALETTE)).labels) == [1, 2, 3]


def test_interpolated_colours_are_rejected(tmp_path: Path) -> None:
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    picture = colours[three_objects()]
    with pytest.raises(ValueError, match=r"m.png has \d+ different colours: .*anti-aliased"):
        read_mask(save(tmp_path / "m.png", compress_jpeg(picture, 75)))
    with pytest.raises(ValueError, match="looks anti-aliased"):
        read_mask(save(tmp_path / "m.png", rescale(picture, 2)))
    quantised = Image.fromarray(compress_jpeg(picture, 90)).quantize(64)
    quantised.save(tmp_path / "m.png")
    with pytest.raises(ValueError, match="looks anti-aliased"):
        read_mask(tmp_path / "m.png")


def lines() -> np.ndarray:
    labels = np.zeros((120, 160), np.uint8)
    for index in range(12):
        cv2.line(labels, (4, 4 + 9 * index), (150, 8 + 9 * index), 20 * (index + 1), 1)
    return labels


def ring(width: int) -> np.ndarray:
    labels = disc(1)
    cv2.circle(labels, (80, 60), 40 - width, 2, -1)
    return labels


def grid(count: int, side: int) -> np.ndarray:
    labels = np.zeros((200, 200), np.uint8)
    for index in range(count):
        row, column = divmod(index, 20)
        labels[row * 10 + 3 :, column * 10 + 3 :][:side, :side] = index + 1
    return labels


VALID = {
    "200 objects of 4x4": grid(200, 4),
    "60 objects of 2x2": grid(60, 2),
    "one pixel each": grid(30, 1),
    "thin lines": lines(),
    "ring of 1": ring(1),
    "ring of 2": ring(2),
    "ring of 3": ring(3),
    "odd values": squares([1, 2, 3, 7, 200, 255], 20),
    "three objects": three_objects(),
    "side by side": np.repeat(np.arange(1, 33, dtype=np.uint8), 4)[None].repeat(40, axis=0),
    "all object": np.full((20, 30), 4, np.uint8),
    "one row": np.repeat(np.array([[0, 2, 5, 0]], np.uint8), 9, axis=1),
}


@pytest.mark.parametrize("name", VALID)
def test_valid_masks_are_read(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "m.png", VALID[name])
    np.testing.assert_array_equal(read_mask(path).labels, VALID[name])


def test_hand_drawn_masks_are_read() -> None:
    paths = sorted((SHARED / "static" / "BSDS_objects").glob("*.png"))
    if not paths:
        pytest.skip("no masks in ../shared/data")
    assert all(labels_of(read_mask(path).labels) for path in paths[::5])


def test_resize_labels_aligns_pixel_centres() -> None:
    labels = three_objects()
    expected = Image.fromarray(labels).resize((113, 71), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(resize_labels(labels, (71, 113)), np.array(expected))
    assert resize_labels(labels, (120, 160)) is labels


def test_resize_labels_keeps_tiny_objects() -> None:
    labels = np.zeros((90, 90), np.uint8)
    labels[30, 61] = 9
    labels[89, 89] = 5
    small = resize_labels(labels, (30, 30))
    assert small[10, 20] == 9
    assert small[29, 29] == 5
    assert np.count_nonzero(small) == 2
