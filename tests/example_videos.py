"""Small videos with masks, in the layouts of the readers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from util.masks import DAVIS_PALETTE, write_mask

SIZE = (24, 36)  # (H, W)


def make_frames(folder: Path, names: list[str], size: tuple[int, int] = SIZE) -> Path:
    """Write frames of one grey value each: 0, 10, 20, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        pixels = np.full((*size, 3), index * 10 % 256, np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def draw_squares(*labels: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Mask (H, W) with a row of 6x6 squares, one for each label."""
    mask = np.zeros(size, np.uint8)
    for index, label in enumerate(labels):
        mask[4:10, 2 + 8 * index : 8 + 8 * index] = label
    return mask


def frame_files(numbers: range, suffix: str = "jpg") -> list[str]:
    """File names with five digits."""
    return [f"{number:05d}.{suffix}" for number in numbers]


def make_video(
    root: Path, name: str, masks: dict[str, np.ndarray], num_frames: int = 4
) -> tuple[Path, Path]:
    """Write a video in the generic layout; returns the folders of frames and masks."""
    frames = make_frames(root / "JPEGImages" / name, frame_files(range(num_frames)))
    for stem, mask in masks.items():
        write_mask(root / "Annotations" / name / f"{stem}.png", mask, DAVIS_PALETTE)
    return frames, root / "Annotations" / name


def make_davis(base: Path, imset: str, sequences: dict[str, np.ndarray]) -> None:
    """Write sequences of three frames and three equal masks in the layout of DAVIS."""
    for name, mask in sequences.items():
        make_frames(base / "JPEGImages" / "480p" / name, frame_files(range(3)))
        for frame in range(3):
            path = base / "Annotations" / "480p" / name / f"{frame:05d}.png"
            write_mask(path, mask, DAVIS_PALETTE)
    list_path = base / "ImageSets" / imset
    list_path.parent.mkdir(parents=True, exist_ok=True)
    list_path.write_text("\n".join(sequences) + "\n")


def make_youtube(root: Path) -> None:
    """Write one video in the layout of YouTube-VOS; object 5 appears on frame 00014."""
    make_frames(
        root / "all_frames" / "valid_all_frames" / "JPEGImages" / "a1",
        frame_files(range(10, 15)) + frame_files(range(20, 22)),
    )
    for stem, mask in (("00010", draw_squares(2)), ("00014", draw_squares(2, 5))):
        write_mask(root / "valid" / "Annotations" / "a1" / f"{stem}.png", mask, DAVIS_PALETTE)
    objects = {
        "2": {"category": "cat", "frames": ["00010", "00014", "00020"]},
        "5": {"category": "dog", "frames": ["00014", "00021"]},
    }
    write_meta(root, {"a1": {"objects": objects}})


def write_meta(root: Path, videos: object) -> None:
    """Write meta.json of YouTube-VOS."""
    (root / "valid" / "meta.json").write_text(json.dumps({"videos": videos}))
