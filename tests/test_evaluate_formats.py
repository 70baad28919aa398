"""scripts/evaluate.py on other kinds of files: suffixes in capitals, colour images."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.evaluate import main


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Ground truth of one object on three frames, and equal predictions."""
    labels = np.zeros((20, 40), np.uint8)
    labels[5:11, 8:20] = 1
    folders = {name: tmp_path / name for name in ("ground_truth", "results")}
    for folder in folders.values():
        (folder / "cat").mkdir(parents=True)
        for frame in range(3):
            Image.fromarray(labels).save(folder / "cat" / f"{frame}.png")
    return folders


def run(folders: dict[str, Path]) -> int:
    paths = ["--results_path", folders["results"], "--ground_truth_path", folders["ground_truth"]]
    return main([*map(str, paths), "--num_workers", "1"])


@pytest.mark.parametrize("names", [["ground_truth"], ["results"], ["ground_truth", "results"]])
def test_suffixes_in_capitals(folders: dict[str, Path], names: list[str]) -> None:
    for name in names:
        for path in [*folders[name].rglob("*.png")]:
            path.rename(path.with_suffix(".PNG"))
    assert run(folders) == 0
    with (folders["results"] / "all_results.csv").open() as file:
        last = [*csv.DictReader(file)][-1]
    assert float(last["J-Mean"]) == 1


@pytest.mark.parametrize("folder", ["ground_truth", "results"])
def test_colour_masks_are_refused(
    folders: dict[str, Path], folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folders[folder] / "cat" / "1.png"
    Image.open(path).convert("RGB").save(path)
    assert run(folders) == 2
    error = capsys.readouterr().err
    assert f"{path} cannot be scored, because its pixels are RGB" in error
    assert "save the masks as palette or 8-bit grey PNGs" in error
    assert "write it again" not in error
