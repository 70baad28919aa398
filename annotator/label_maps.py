"""Label maps as pages and the session's file have them: rectangles and compressed pixels."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from annotator.errors import SessionError


class Box(NamedTuple):
    """A rectangle of pixels."""

    x: int
    y: int
    width: int
    height: int

    def of(self, labels: np.ndarray) -> np.ndarray:
        """The rectangle of a label map (H, W), as a view."""
        return labels[self.y : self.y + self.height, self.x : self.x + self.width]


def bounding_box(mask: np.ndarray) -> Box:
    """Smallest rectangle around the pixels of a mask (H, W) bool; one pixel if there are none."""
    if not mask.any():
        return Box(0, 0, 1, 1)
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    return Box(left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top)


def hide(labels: np.ndarray, removed: Collection[int]) -> np.ndarray:
    """Return a label map without some labels."""
    table = np.arange(256, dtype=np.uint8)
    table[list(removed)] = 0
    return table[labels]


def pack(labels: np.ndarray) -> bytes:
    """Compress a label map (h, w) uint8 with gzip."""
    return gzip.compress(labels.tobytes(), 1, mtime=0)


def unpack(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decompress a label map of a known size (h, w); a copy that may be changed.

    Raises:
        SessionError: it is no gzip data, or has another size. At most h * w bytes are decompressed.
    """
    expected = size[0] * size[1]
    decompressor = zlib.decompressobj(31)
    try:
        content = decompressor.decompress(data, expected + 1)
    except zlib.error as error:
        raise SessionError(f"The pixels are not gzip data ({error}).") from error
    if len(content) != expected:
        found = f"{len(content)}" if len(content) < expected else f"more than {expected}"
        raise SessionError(
            f"The pixels have {found} bytes, but {size[1]}x{size[0]} pixels (width x height) have "
            f"{expected}."
        )
    return np.frombuffer(content, np.uint8).reshape(size).copy()
