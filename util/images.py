"""Image files: strict decoding to RGB arrays, sizes, resizing, and the frames of a folder."""

from __future__ import annotations

import contextlib
import io
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
# PIL tells damage by these, depending on where in the file it is.
DAMAGE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
# PNG is left out: its orientation may stand behind the pixels, out of a header's reach.
ORIENTED_FORMATS = ("JPEG", "MPO", "WEBP")
ORIENTATION_TAG = 0x0112


def load_image(path: Path, kind: str = "image", scale: float = 1) -> Image.Image:
    """Decode a whole image file; `kind` is what an error calls it, such as "mask".

    A `scale` under 1 lets a JPEG be decoded at a half, a quarter or an eighth of its size, whatever
    is nearest to the scale from above: a fraction of the time.

    Decoding is PIL's: OpenCV takes a third of the time (0.9 against 2.6 ms for a 480p JPEG) and
    gives the same pixels, but fills the lost part of a truncated JPEG with grey without a word.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, damaged, or no image.
    """
    with _naming_damage(path, kind):
        data = Path(path).read_bytes()
        # Decoding does not look at PNG checksums; verify does, and ends the life of its image.
        with Image.open(io.BytesIO(data)) as image:
            image.verify()
        image = Image.open(io.BytesIO(data))
        if scale < 1:
            factor = next(f for f in (8, 4, 2, 1) if scale * f <= 1 or f == 1)
            # JPEGs alone can do it; PIL leaves other formats as they are.
            image.draft(None, (max(image.width // factor, 1), max(image.height // factor, 1)))
        image.load()
        return image


def read_image(path: Path, scale: float = 1) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB; smaller where `scale` allows: see `load_image`.

    The EXIF orientation is applied, as every viewer does: masks are drawn on what is displayed.
    (Frames of the benchmarks carry none.) Grey and palette images become RGB, transparency is
    dropped, and 16-bit values are scaled down to 8 bits. Of a TIFF with several pages the first
    is read.

    Raises:
        FileNotFoundError, ValueError: as `load_image`.
    """
    image = load_image(path, "frame", scale)
    if image.format in ORIENTED_FORMATS:
        with _naming_damage(path, "frame"):
            image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        # PIL would clip the values at 255.
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        grey8 = ((grey * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey8[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError(f"frame {path} has floating-point values: save it as a PNG or JPEG")
    return np.array(image.convert("RGB"))


def image_size(path: Path) -> tuple[int, int]:
    """The (H, W) that `read_image` would give, from the header only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the header is damaged, or the file is no image.
    """
    with _naming_damage(path, "frame"), Image.open(path) as image:
        if image.format == "TIFF":
            image.load()  # PIL turns these itself, and knows the size from then on
        is_turned = (
            image.format in ORIENTED_FORMATS and image.getexif().get(ORIENTATION_TAG, 1) >= 5
        )
        return (image.width, image.height) if is_turned else (image.height, image.width)


def image_mode(path: Path, kind: str = "image") -> str:
    """PIL's name for the kind of pixels of a file, such as "P", from the header only.

    Raises:
        FileNotFoundError, ValueError: as `image_size`.
    """
    with _naming_damage(path, kind), Image.open(path) as image:
        return image.mode


def working_size(size: tuple[int, int], shorter_side: int | None) -> tuple[int, int]:
    """The (H, W) after scaling the shorter side to `shorter_side`; None leaves the size alone.

    The longer side is rounded down, as torchvision's Resize does.
    """
    height, width = size
    if shorter_side is None:
        return height, width
    if height <= width:
        return shorter_side, int(shorter_side * width / height)
    return int(shorter_side * height / width), shorter_side


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an (h, w, 3) uint8 image to `size` (H, W): bicubic, with antialiasing on the way down.

    This is torchvision's Resize on a PIL image. An image of that size is returned as it is.
    """
    if image.shape[:2] == tuple(size):
        return image
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.array(resized)


def resize_shorter_side(image: np.ndarray, size: int) -> np.ndarray:
    """Resize an (h, w, 3) uint8 image so that its shorter side is `size` pixels."""
    return resize_image(image, working_size((image.shape[0], image.shape[1]), size))


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder in natural order (2 before 10); hidden files are left out."""
    found = [
        path
        for path in Path(folder).iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    return sorted(found, key=lambda path: natural_key(path.name))


def list_frames(folder: Path) -> list[Path]:
    """The frames of a video: the image files of `folder` in natural order, at least one.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is a file, or it holds no image.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"the frames folder {folder} does not exist")
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is a file, not a folder of frames: extract the frames of the video as images"
        )
    frames = list_images(folder)
    if not frames:
        raise ValueError(
            f"the frames folder {folder} holds no image ({', '.join(IMAGE_SUFFIXES)}): "
            "put the frames of the video there"
        )
    return frames


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """A sorting key under which numbers inside names count as numbers."""
    parts = re.findall(r"\d+|\D+", name)
    # Pairs, since a number and a word in the same place could not be compared.
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


@contextlib.contextmanager
def _naming_damage(path: Path, kind: str) -> Iterator[None]:
    """Turn what PIL raises on a damaged file into a sentence that names it."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except DAMAGE_ERRORS as error:
        # Of what is no image at all it says the address of a buffer.
        said = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise ValueError(
            f"{kind} {path} cannot be read, it is cut short, damaged, or not an image{said}: save "
            "or download it again"
        ) from error
