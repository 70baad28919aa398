"""Clips for the benchmark of the annotator: folders of drawn frames, and a long video file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.synthetic import make_clip
from util.files import atomic_path

_FPS = 25
_SHIFT = 3  # pixels by which the long file moves from frame to frame


def write_frames(folder: Path, num_frames: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Write a drawn clip of one object as JPEG files.

    Args:
        size: (H, W) in pixels.

    Returns:
        The masks of its object, (H, W) bool each.
    """
    folder.mkdir(parents=True)
    masks = []
    for index, (image, labels) in enumerate(make_clip(num_frames, *size, 1, seed=0)):
        Image.fromarray(image).save(folder / f"{index:05d}.jpg", quality=95)
        masks.append(labels == 1)
    return masks


def write_long_file(path: Path, num_frames: int, size: tuple[int, int]) -> None:
    """Write an H.264 file whose frames show one drawn frame that moves sideways.

    It has the encoder's default distance of key frames, 250 frames.

    Args:
        size: (H, W) in pixels, both even.
    """
    import av  # slow, and of this function alone

    image, _ = next(iter(make_clip(1, *size, 3, seed=0)))
    double = np.concatenate([image, image], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_path(path, is_durable=False) as temporary,
        av.open(str(temporary), "w", format="mp4") as file,
    ):
        stream = file.add_stream("libx264", Fraction(_FPS), options={"preset": "ultrafast"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for index in range(num_frames):
            left = index * _SHIFT % size[1]
            view = np.ascontiguousarray(double[:, left : left + size[1]])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(view, "rgb24")))
        file.mux(stream.encode())
