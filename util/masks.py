"""Mask files: reading label images strictly, and writing palette and grey PNGs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from util.files import atomic_path
from util.images import image_mode, load_image

# Fewer thin in-between pixels than this can be a few strokes of a hand-drawn mask.
MIN_BLENDED_PIXELS = 32
# A 480p palette mask: level 3 takes 0.5 ms and 5 KB, 6 takes 1.1 ms and 3 KB, 9 takes 5 ms.
PNG_COMPRESSION = 3


def _voc_palette() -> bytes:
    """The PASCAL VOC colours: the bits of the label, three at a time, from the top bit down."""
    colours = np.zeros((256, 3), np.uint8)
    labels = np.arange(256)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((labels >> (3 * bit + channel) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return colours.tobytes()


DAVIS_PALETTE: bytes = _voc_palette()
COLOUR_MODES = ("RGB", "RGBA")  # of PIL


@dataclass(frozen=True)
class MaskImage:
    """The labels of a mask file, and the colours they are shown in."""

    labels: np.ndarray  # (H, W) uint8, 0 is background
    palette: bytes | None  # 768 bytes; None for grey masks


def labels_of(labels: np.ndarray) -> list[int]:
    """The non-zero values of an (H, W) uint8 array, ascending."""
    return [int(value) for value in np.flatnonzero(histogram(labels)) if value]


def read_mask(
    path: Path,
    size: tuple[int, int] | None = None,
    allow_empty: bool = False,
    palette: bytes = DAVIS_PALETTE,
) -> MaskImage:
    """Read a mask file: its labels, and its palette where it has one.

    Palette images: the indices are the labels. Grey images (8 bit, or 16 bit with values up to
    255): the values are the labels. Bilevel images: 0 and 255. Colour images: where `palette`
    holds every colour, its indices are the labels; else black is background and the other colours
    are labelled 1, 2, ... in the order of (red, green, blue). In a colour image without black every
    colour is an object. Fully transparent pixels are background in all of them. 255 is a label like
    any other.

    Args:
        path: a PNG, or another lossless image file.
        size: the (H, W) the mask must have; None: any.
        allow_empty: whether a mask without any object is fine.
        palette: the colours known so far, 768 bytes; only colour images are looked up in it. The
            masks of one video share the one that `colour_palette` finds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is a JPEG, has another size than `size`, has no object, or
            has values that betray interpolation or lossy compression (`_refuse_blends`).
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
        # The colours a short palette leaves out are those of DAVIS: objects of other masks of the
        # same video would be black otherwise.
        labels = np.array(image)
        if "transparency" in image.info:
            labels = _masked_by_alpha(path, labels, np.asarray(image.convert("RGBA"))[..., 3])
        mask = MaskImage(labels, bytes(colours) + DAVIS_PALETTE[len(colours) :])
    else:
        mask = MaskImage(_read_grey(path, image), None)
    _refuse_blends(path, mask.labels)
    if not allow_empty and not mask.labels.any():
        raise ValueError(
            f"mask {path} has no object, every pixel is background (0, black or transparent): "
            "draw the objects in other colours, or remove the file"
        )
    return mask


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (h, w) uint8 labels to `size` (H, W) with nearest-neighbour, pixel centres matched.

    An object so small that it would vanish keeps one pixel.
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
    """Write (H, W) uint8 labels as a palette PNG, or as a grey one where `palette` is None."""
    assert labels.dtype == np.uint8
    assert labels.ndim == 2
    image = Image.fromarray(labels)
    if palette is not None:
        image.putpalette(palette)
    with atomic_path(path, is_durable=False) as temporary:
        image.save(temporary, format="PNG", compress_level=PNG_COMPRESSION)


def colour_palette(paths: Iterable[Path]) -> bytes:
    """The palette in which every colour mask among `paths` finds its colours.

    DAVIS_PALETTE where it holds them all, or where no mask is a colour image; else black and then
    the colours of all the masks in order, so that a colour is the same object in all of them.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file cannot be read; there are more than 255 colours; or index masks stand
            beside colour masks whose colours are not the DAVIS ones, so that no label is common.
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
            f"mask {colour_masks[0]} is a colour image and mask {index_masks[0]} an index image: "
            "which colour is which label is unknown; save all masks of the video as palette PNGs"
        )
    return _own_palette(colour_masks[0], colours)


def _open(path: Path) -> Image.Image:
    image = load_image(path, "mask")
    if image.format in ("JPEG", "MPO"):
        raise ValueError(
            f"mask {path} is a JPEG, which changes the labels along edges: "
            "save the mask as PNG from its source"
        )
    if image.mode in ("L", "RGB") and "transparency" in image.info:  # one value or colour of them
        return image.convert("LA" if image.mode == "L" else "RGBA")
    return image


def _read_grey(path: Path, image: Image.Image) -> np.ndarray:
    """The values of a grey or bilevel image as (H, W) uint8."""
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8) * 255
    if image.mode == "L":
        return np.array(image)
    if image.mode == "LA":
        return _masked_by_alpha(path, np.asarray(image)[..., 0], np.asarray(image)[..., 1])
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 255:
            raise ValueError(
                f"mask {path} has 16-bit values up to {values.max()}, labels go from 0 to 255: "
                "number the objects anew and save it as an 8-bit PNG"
            )
        return values.astype(np.uint8)
    raise ValueError(
        f"mask {path} is an image of the kind {image.mode}: save it as a palette or grey PNG"
    )


def _read_colours(path: Path, image: Image.Image, palette: bytes) -> MaskImage:
    codes = _colour_codes(path, image)
    colours = set(np.unique(codes).tolist())
    known = _palette_labels(palette)
    if not colours <= known.keys():
        palette = _own_palette(path, colours)
        known = _palette_labels(palette)
    ordered = np.array(sorted(colours))
    labels_in_order = np.array([known[code] for code in ordered.tolist()], np.uint8)
    return MaskImage(labels_in_order[np.searchsorted(ordered, codes)], palette)


def _colour_codes(path: Path, image: Image.Image) -> np.ndarray:
    """Every pixel's colour as one number, 0xRRGGBB; transparent pixels are black."""
    pixels = np.asarray(image).astype(np.int32)
    codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    if image.mode == "RGBA":
        return _masked_by_alpha(path, codes, pixels[..., 3].astype(np.uint8))
    return codes


def _masked_by_alpha(path: Path, values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """`values` where `alpha` is not 0; soft edges may hide in the alpha channel too."""
    _refuse_blends(path, alpha)
    return np.where(alpha > 0, values, 0).astype(values.dtype)


def _palette_labels(palette: bytes) -> dict[int, int]:
    """From colour code to label; the first of equal colours counts."""
    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3).astype(int)
    codes = (colours[:, 0] << 16 | colours[:, 1] << 8 | colours[:, 2]).tolist()
    return {code: label for label, code in reversed(list(enumerate(codes)))}


def _own_palette(path: Path, codes: set[int]) -> bytes:
    """Black, then the other colours in order, filled up with DAVIS colours to 768 bytes.

    In this order a mixture of two colours has a label between theirs, as in grey masks.
    """
    ordered = sorted(codes - {0})
    if len(ordered) > 255:
        raise ValueError(
            f"mask {path} has {len(ordered)} different colours: it is a photograph, or it is "
            "anti-aliased (resized with interpolation or saved as JPEG). Save it with "
            "nearest-neighbour resizing as PNG, one colour for each object"
        )
    colours = b"".join(code.to_bytes(3, "big") for code in [0, *ordered])
    return colours + DAVIS_PALETTE[len(colours) :]


def histogram(labels: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """How many pixels each of the 256 values has; only those where `where` is non-zero."""
    mask = None if where is None else where.astype(np.uint8)
    counts = cv2.calcHist([np.ascontiguousarray(labels)], [0], mask, [256], [0, 256])
    return counts.ravel().astype(np.int64)


def _refuse_blends(path: Path, labels: np.ndarray) -> None:
    """Refuse (H, W) uint8 labels that interpolation or lossy compression has touched.

    Two signs, each with a rule that real masks stay far from:

    - Values that live only along edges. A value is suspicious when none of its pixels has a 3x3
      neighbourhood of its own value, and either nearly all of its pixels (80 %) lie between a lower
      and a higher neighbour, as blends do, or they fall apart into 4 or more pieces, as the noise
      of JPEG does, and blends in a quantised palette. Two suspicious values that make up half of
      all values are refused. A thin or tiny object is one piece and no blend, however many of them
      there are; one ring of a single pixel around another object may be meant.
    - Interpolated labels. Between objects 0 and 3 the values 1 and 2 are other objects', with
      interiors elsewhere. Then contours between labels two or more apart seldom touch: they pass
      through thin lines of a label in between. Refused where the pixels of such lines (in no
      2x2 block of their label, of labels with an interior) outnumber half of the direct contacts.
      On 561 hand-drawn masks (BSDS500, DAVIS) this share is at most 0.18. Of those with two or more
      objects, interpolated by 0.5 to 3, it exceeds 0.5 in 63 % (at 0.7) to 99 % (from 1.2 on).
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
            if num_between[value] >= 0.8 * total[value] or _num_pieces(labels == value) >= 4
        ]
        if len(suspicious) >= max(2, num_values / 2):
            raise ValueError(
                f"mask {path} has {num_values} different values, most of them only along edges: "
                "it looks anti-aliased (resized with interpolation or saved as JPEG). "
                "Save it with nearest-neighbour resizing as PNG, or threshold it first"
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


def _num_pieces(selected: np.ndarray) -> int:
    num_components, _ = cv2.connectedComponents(selected.astype(np.uint8), connectivity=8)
    return num_components - 1


def _in_blocks(labels: np.ndarray) -> np.ndarray:
    """Whether each pixel lies in some 2x2 block of its own label, (H, W) bool."""
    corner = labels[:-1, :-1]
    uniform = (corner == labels[1:, :-1]) & (corner == labels[:-1, 1:]) & (corner == labels[1:, 1:])
    inside = np.zeros(labels.shape, bool)
    inside[:-1, :-1] |= uniform
    inside[1:, :-1] |= uniform
    inside[:-1, 1:] |= uniform
    inside[1:, 1:] |= uniform
    return inside
