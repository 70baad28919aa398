"""Small ground truth of DAVIS 2017 and predictions, for the tests of scripts/evaluate.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.evaluate import main

NUM_FRAMES = 5
SIZE = (20, 30)
ANNOTATIONS = Path("trainval", "Annotations", "480p")


def save_mask(path: Path, labels: np.ndarray, palette: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8))
    if palette:
        image.putpalette(list(range(256)) * 3)  # Pillow stores fewer bits with a shorter palette
    image.save(path)


def draw_boxes(*labels: int) -> np.ndarray:
    """Draw a 6x6 box for each label, side by side."""
    mask = np.zeros(SIZE, dtype=np.uint8)
    for index, label in enumerate(labels):
        mask[5:11, 2 + 8 * index : 8 + 8 * index] = label
    return mask


def write_davis(root: Path) -> Path:
    """Write ground truth of cat (objects 1 and 2) and dog (object 1), 5 frames each."""
    listing = root / "trainval" / "ImageSets" / "2017" / "val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("cat\ndog\n\n")
    for frame in range(NUM_FRAMES):
        for name, labels in (("cat", (1, 2)), ("dog", (1,))):
            save_mask(root / ANNOTATIONS / name / f"{frame:05d}.png", draw_boxes(*labels))
    return root


def write_perfect_results(folder: Path, davis: Path) -> Path:
    """Copy the ground truth as predictions."""
    return shutil.copytree(davis / ANNOTATIONS, folder)


def run(results: Path, davis: Path, *options: str) -> int:
    return main(["--results_path", str(results), "--davis_path", str(davis), *options])


def fail(capsys: pytest.CaptureFixture[str], results: Path, davis: Path, *options: str) -> str:
    """Check that nothing is scored, and return the error message."""
    assert run(results, davis, *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err[captured.err.index("error: ") :]
