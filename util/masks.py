"""Mask files: strict reading of label images, and writing of palette and grey PNGs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from util.files import atomic_path
from util.images import image_mode, load_image

# A hand-drawn mask may have fewer pixels than this with a label between those of its neighbours.
MIN_BLENDED_PIXELS = 32
# Time and size for a 480p palette mask: level 3 0.5 ms and 5 KB, level 6 1.1 ms and 3 KB, level 9
# 5 ms.
PNG_COMPRESSION = 3


def _voc_palette() -> bytes:
    """PASCAL VOC colours: three bits of the label set one bit each of red, green and blue."""
    colours = np.zeros((256, 3), np.uint8)
    labels = np.arange(256)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((labels >> (3 * bit + channel) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return colours.tobytes()


DAVIS_PALETTE: bytes = _voc_palette()
COLOUR_MODES = ("RGB", "RGBA")  # modes of PIL


@dataclass(frozen=True)
class MaskImage:
    """Labels and palette of a mask file."""

    labels: np.ndarray  # (H, W) uint8, 0 is background
    palette: bytes | None  # 768 bytes; None for grey masks


def labels_of(labels: np.ndarray) -> list[int]:
    """Non-zero values of an (H, W) uint8 array, ascending."""
    return [int(value) for value in np.flatnonzero(histogram(labels)) if value]


def read_mask(
    path: Path,
    size: tuple[int, int] | None = None,
    allow_empty: bool = False,
    palette: bytes = DAVIS_PALETTE,
) -> MaskImage:
    """Read the labels of a mask file, and its palette if it has one.

    - Palette image: the labels are the indices.
    - Grey image (8 bit, or 16 bit with values up to 255): the labels are the values.
    - Bilevel image: the labels are 0 and 255.
    - Colour image: the labels are the indices in `palette` if it contains all colours. Otherwise
      black is background, and the other colours get labels 1, 2, ... in the order of (red, green,
      blue). In an image without black, every colour is an object.

    Fully transparent pixels are always background. 255 is an ordinary label.

    Args:
        path: a PNG, or another lossless image file.
        size: expected size (H, W) of the mask; None allows any.
        allow_empty: accept a mask without objects.
        palette: colours for colour images, 768 bytes. All masks of a video share the palette from
            `colour_palette`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged or a JPEG, its size differs from `size`, it has no object,
            or it was interpolated or compressed with losses (see `_check_interpolation`).
    """
    image = _open(path)
    if size is not None and (image.height, image.width) != tuple(size):
        raise ValueError(
            f"mask {path} is {image.width}x{image.height} (width x height), but its frame is "
            f"{size[1]}x{size[0]}: save the mask at the size of the frame, "
            "resized with nearest-neighbour"
        )
    if image.mode in COLOUR_MODES:
        mask = _read_colours(path, image, palette)
    elif image.mode == "P":
        colours = image.getpalette("RGB")
        assert colours is not None, "a palette image has a palette"
        # A short palette is completed with the DAVIS colours. Otherwise, objects of other masks of
        # the same video would be black.
        labels = np.array(image)
        if "transparency" in image.info:
            labels = _apply_alpha(path, labels, np.asarray(image.convert("RGBA"))[..., 3])
        mask = MaskImage(labels, bytes(colours) + DAVIS_PALETTE[len(colours) :])
    else:
        mask = MaskImage(_read_grey(path, image), None)
    _check_interpolation(path, mask.labels)
    if not allow_empty and not mask.labels.any():
        raise ValueError(
            f"mask {path} has no object, every pixel is background (0, black or transparent): "
            "draw the objects in other colours, or remove the file"
        )
    return mask


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (h, w) uint8 labels to `size` (H, W) with nearest-neighbour and aligned pixel centres.

    A small object that would disappear keeps one pixel.
    """
    if labels.shape == tuple(size):
        return labels
    resized = cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    for label in set(labels_of(labels)) - set(labels_of(resized)):
        rows, columns = np.nonzero(labels == label)
        middle = len(rows) // 2
        row = rows[middle] * size[0] // labels.shape[0]
        resized[row, columns[middle] * size[1] // labels.shape[1]] = label
    return resized


def write_mask(path: Path, labels: np.ndarray, palette: bytes | None) -> None:
    """Write (H, W) uint8 labels as a palette PNG, or as a grey PNG if `palette` is None."""
    assert labels.dtype == np.uint8
    assert labels.ndim == 2
    image = Image.fromarray(labels)
    if palette is not None:
        image.putpalette(palette)
    with atomic_path(path, is_durable=False) as temporary:
        image.save(temporary, format="PNG", compress_level=PNG_COMPRESSION)


def colour_palette(paths: Iterable[Path]) -> bytes:
    """Palette that contains the colours of all colour masks of a video.

    This is DAVIS_PALETTE if it contains all colours or no mask is a colour image. Otherwise it is
    black, followed by the sorted colours of all masks, so that a colour is the same object in all
    masks.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file cannot be read, there are more than 255 colours, or the video has index
            masks and also colour masks with other colours than DAVIS_PALETTE.
    """
    colour_masks: list[Path] = []
    index_masks: list[Path] = []
    for path in paths:
        is_colour = image_mode(path, "mask") in COLOUR_MODES
        (colour_masks if is_colour else index_masks).append(path)
    colours: set[int] = set()
    for path in colour_masks:
        colours.update(np.unique(_colour_codes(path, _open(path))).tolist())
    if colours <= _palette_labels(DAVIS_PALETTE).keys():
        return DAVIS_PALETTE
    if index_masks:
        raise ValueError(
            f"mask {colour_masks[0]} is a colour image and mask {index_masks[0]} an index image, "
            "so the labels of the colours are unknown: save all masks of the video as palette PNGs"
        )
    return _new_palette(colour_masks[0], colours)


def _open(path: Path) -> Image.Image:
    image = load_image(path, "mask")
    if image.format in ("JPEG", "MPO"):
        raise ValueError(
            f"mask {path} is a JPEG, and its compression changes labels at edges: "
            "save the original mask as PNG"
        )
    if image.mode in ("L", "RGB") and "transparency" in image.info:  # one transparent value
        return image.convert("LA" if image.mode == "L" else "RGBA")
    return image


def _read_grey(path: Path, image: Image.Image) -> np.ndarray:
    """Values of a grey or bilevel image, (H, W) uint8."""
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8) * 255
    if image.mode == "L":
        return np.array(image)
    if image.mode == "LA":
        return _apply_alpha(path, np.asarray(image)[..., 0], np.asarray(image)[..., 1])
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 255:
            raise ValueError(
                f"mask {path} has 16-bit values up to {values.max()}, but labels must be from 0 to "
                "255: renumber the objects and save it as an 8-bit PNG"
            )
        return values.astype(np.uint8)
    raise ValueError(
        f"mask {path} has the image mode {image.mode}: save it as a palette or grey PNG"
    )


def _read_colours(path: Path, image: Image.Image, palette: bytes) -> MaskImage:
    codes = _colour_codes(path, image)
    colours = set(np.unique(codes).tolist())
    label_of = _palette_labels(palette)
    if not colours <= label_of.keys():
        palette = _new_palette(path, colours)
        label_of = _palette_labels(palette)
    ordered = np.array(sorted(colours))
    ordered_labels = np.array([label_of[code] for code in ordered.tolist()], np.uint8)
    return MaskImage(ordered_labels[np.searchsorted(ordered, codes)], palette)


def _colour_codes(path: Path, image: Image.Image) -> np.ndarray:
    """Colours of the pixels as numbers 0xRRGGBB, (H, W) int32; transparent pixels are black."""
    pixels = np.asarray(image).astype(np.int32)
    codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    if image.mode == "RGBA":
        return _apply_alpha(path, codes, pixels[..., 3].astype(np.uint8))
    return codes


def _apply_alpha(path: Path, values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Set values with alpha 0 to 0; interpolated alpha values raise a ValueError."""
    _check_interpolation(path, alpha)
    return np.where(alpha > 0, values, 0).astype(values.dtype)


def _palette_labels(palette: bytes) -> dict[int, int]:
    """Labels by colour code; equal colours get the smallest label."""
    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3).astype(int)
    codes = (colours[:, 0] << 16 | colours[:, 1] << 8 | colours[:, 2]).tolist()
    return {code: label for label, code in reversed(list(enumerate(codes)))}


def _new_palette(path: Path, codes: set[int]) -> bytes:
    """Palette of black, the other colours in ascending order, and DAVIS colours up to 768 bytes.

    In this order, a mixture of two colours has a label between theirs, as in grey masks.
    """
    ordered = sorted(codes - {0})
    if len(ordered) > 255:
        raise ValueError(
            f"mask {path} has {len(ordered)} different colours: it is a photograph, or it is "
            "anti-aliased (resized with interpolation or saved as JPEG). Resize it with "
            "nearest-neighbour and save it as PNG with one colour for each object"
        )
    colours = b"".join(code.to_bytes(3, "big") for code in [0, *ordered])
    return colours + DAVIS_PALETTE[len(colours) :]


def histogram(labels: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Number of pixels of each label, (256,) int64.

    Args:
        labels: (H, W) uint8.
        where: (H, W); pixels with value 0 are not counted. None counts all pixels.
    """
    mask = None if where is None else where.astype(np.uint8)
    counts = cv2.calcHist([np.ascontiguousarray(labels)], [0], mask, [256], [0, 256])
    return counts.ravel().astype(np.int64)


def _check_interpolation(path: Path, labels: np.ndarray) -> None:
    """Check that (H, W) uint8 labels were neither interpolated nor compressed with losses.

    There are two tests:

    - Values that occur only along edges. A value is suspicious if none of its pixels has a 3x3
      neighbourhood of the same value, and one of two conditions holds: 80 % of its pixels lie
      between a lower and a higher neighbour, as in interpolation, or its pixels form 4 or more
      components, as in JPEG noise or in a quantised palette. The mask is rejected if at least two
      values, and at least half of all values, are suspicious. Thin and tiny objects are accepted,
      since each is one component without blended pixels. A ring of one pixel around another object
      is accepted, since it is only one value.
    - Interpolated labels. Interpolation between labels 0 and 3 gives labels 1 and 2, which have
      interiors elsewhere. Contours between labels that differ by two or more then rarely touch:
      thin lines of a label in between separate them. The mask is rejected if the pixels of these
      lines (in no 2x2 block of their label, labels with an interior only) exceed half of the
      direct contacts. On 561 hand-drawn masks (BSDS500, DAVIS), the ratio is at most 0.18. After
      interpolation by factors of 0.5 to 3, the ratio of masks with two or more objects exceeds 0.5
      in 63 % (factor 0.7) to 99 % (factors from 1.2) of the cases.

    Raises:
        ValueError: the mask is rejected.
    """
    kernel = np.ones((3, 3), np.uint8)
    lowest, highest = cv2.erode(labels, kernel), cv2.dilate(labels, kernel)
    total = histogram(labels)
    has_interior = histogram(labels, lowest == highest) > 0
    num_values = int(np.count_nonzero(total[1:]))
    between = (lowest < labels) & (labels < highest)

    thin = [value for value in range(1, 256) if total[value] and not has_interior[value]]
    if len(thin) >= max(2, num_values / 2):
        num_between = histogram(labels, between)
        suspicious = [
            value
            for value in thin
            if num_between[value] >= 0.8 * total[value] or _num_components(labels == value) >= 4
        ]
        if len(suspicious) >= max(2, num_values / 2):
            raise ValueError(
                f"mask {path} has {num_values} different values, most of them only along edges: "
                "it looks anti-aliased (resized with interpolation or saved as JPEG). "
                "Resize it with nearest-neighbour and save it as PNG, or threshold it first"
            )

    if np.count_nonzero(between) < MIN_BLENDED_PIXELS:
        return
    num_blended = int(np.count_nonzero(between & has_interior[labels] & ~_in_blocks(labels)))
    num_contacts = sum(
        int(np.count_nonzero(np.abs(np.diff(labels.astype(np.int16), axis=axis)) > 1))
        for axis in (0, 1)
    )
    if num_blended >= MIN_BLENDED_PIXELS and num_blended > num_contacts / 2:
        raise ValueError(
            f"mask {path} has thin lines of other labels along the contours of its objects "
            f"({num_blended} pixels): it looks resized with interpolation. "
            "Resize it with nearest-neighbour and save it as PNG"
        )


def _num_components(mask: np.ndarray) -> int:
    """Number of 8-connected components of an (H, W) bool mask."""
    num_labels, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return num_labels - 1


def _in_blocks(labels: np.ndarray) -> np.ndarray:
    """Pixels that lie in a 2x2 block of their label, (H, W) bool."""
    corner = labels[:-1, :-1]
    uniform = (corner == labels[1:, :-1]) & (corner == labels[:-1, 1:]) & (corner == labels[1:, 1:])
    inside = np.zeros(labels.shape, bool)
    inside[:-1, :-1] |= uniform
    inside[1:, :-1] |= uniform
    inside[:-1, 1:] |= uniform
    inside[1:, 1:] |= uniform
    return inside
