"""Image files: formats, sizes, damage and resizing."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize as torchvision_resize

from util.images import (
    ORIENTATION_TAG,
    image_mode,
    image_size,
    list_frames,
    read_image,
    resize_image,
    working_size,
)


def picture(height: int = 24, width: int = 40) -> np.ndarray:
    """Smooth image (H, W, 3) uint8, so that JPEG changes it little."""
    row, column = np.mgrid[:height, :width]
    channels = [row * 5, column * 4, 200 - row * 2 - column]
    return np.stack(channels, axis=2).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "jpg", "webp", "JPEG"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture()).save(path, quality=95)
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.shape == (24, 40, 3)
    assert np.abs(image.astype(int) - picture()).max() <= (0 if suffix in ("png", "bmp") else 20)
    assert image_size(path) == (24, 40)
    image[0, 0] = 0  # it must be writable, since torch warns about read-only arrays


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "CMYK"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.fromarray(picture()).convert(mode).save(path)
    assert image_mode(path) == mode
    assert read_image(path).shape == (24, 40, 3)


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 24 * 40).reshape(24, 40).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_allclose(image, (grey / 257)[..., None].repeat(3, axis=2), atol=0.51)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise for display
    Image.fromarray(picture()).save(path, exif=exif, quality=100, subsampling=0)
    image = read_image(path)
    assert image_size(path) == image.shape[:2] == (40, 24)
    assert np.abs(image.astype(int) - np.rot90(picture(), -1)).max() < 20


def test_damaged_files_are_rejected(tmp_path: Path) -> None:
    for suffix in ("jpg", "png", "webp"):
        buffer = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(buffer, {"jpg": "JPEG"}.get(suffix, suffix.upper()))
        path = tmp_path / f"00007.{suffix}"
        path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) * 2 // 3])
        with pytest.raises(
            ValueError, match=rf"frame .*00007.{suffix} cannot be read, it is trunc"
        ):
            read_image(path)
    path.write_text("not an image")
    for read in (read_image, image_size):
        with pytest.raises(ValueError, match=r"frame .*00007.webp cannot be read"):
            read(path)
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none.jpg")


def test_floating_point_images_are_rejected(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif has floating-point values"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("size", [(24, 40), (40, 24), (33, 57), (24, 24)])
@pytest.mark.parametrize("shorter_side", [11, 24, 37])
def test_resize_equals_torchvision(size: tuple[int, int], shorter_side: int) -> None:
    image = picture(*size)
    expected = np.array(
        torchvision_resize(Image.fromarray(image), shorter_side, InterpolationMode.BICUBIC)
    )
    assert working_size(size, shorter_side) == expected.shape[:2]
    np.testing.assert_array_equal(resize_image(image, expected.shape[:2]), expected)


def test_equal_size_is_not_resized() -> None:
    image = picture()
    assert resize_image(image, (24, 40)) is image
    assert working_size((24, 40), None) == (24, 40)
    assert working_size((720, 1280), 480) == (480, 853)


def test_list_frames_in_natural_order(tmp_path: Path) -> None:
    for name in ("10.jpg", "2.PNG", "1.jpeg", "notes.txt", ".3.jpg", "frame.bmp"):
        (tmp_path / name).touch()
    names = [path.name for path in list_frames(tmp_path)]
    assert names == ["frame.bmp", "1.jpeg", "2.PNG", "10.jpg"]


def test_list_frames_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"contains no image \(\.jpg"):
        list_frames(tmp_path)
    with pytest.raises(FileNotFoundError, match="gone does not exist"):
        list_frames(tmp_path / "gone")
    (tmp_path / "movie.mp4").touch()
    with pytest.raises(ValueError, match=r"movie\.mp4 is a file, not a folder of frames"):
        list_frames(tmp_path / "movie.mp4")


def test_jpegs_are_decoded_at_a_smaller_scale(
    tmp_path: Path, smooth_image: Callable[[int, int], np.ndarray]
) -> None:
    full = smooth_image(120, 200)
    Image.fromarray(full).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(full).save(tmp_path / "a.png")
    for scale, size in ((1, (120, 200)), (0.51, (120, 200)), (0.5, (60, 100)), (0.2, (30, 50))):
        image = read_image(tmp_path / "a.jpg", scale)
        assert image.shape[:2] == size
        expected = resize_image(full, size)
        assert np.abs(image.astype(int) - expected).mean() < 4
    assert read_image(tmp_path / "a.png", 0.2).shape == full.shape
    rotated = Image.fromarray(full)
    exif = rotated.getexif()
    exif[ORIENTATION_TAG] = 6
    rotated.save(tmp_path / "rotated.jpg", quality=95, exif=exif)
    assert read_image(tmp_path / "rotated.jpg", 0.5).shape[:2] == (100, 60)
