"""Scoring masks by the kind of their files: suffixes in capitals, colours."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.evaluate import main


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Three annotated frames of one object, and predictions that are the same."""
    labels = np.zeros((20, 40), np.uint8)
    labels[5:11, 8:20] = 1
    folders = {name: tmp_path / name for name in ("truth", "results")}
    for folder in folders.values():
        (folder / "cat").mkdir(parents=True)
        for frame in range(3):
            Image.fromarray(labels).save(folder / "cat" / f"{frame}.png")
    return folders


def run(folders: dict[str, Path]) -> int:
    paths = ["--results_path", folders["results"], "--ground_truth_path", folders["truth"]]
    return main([*map(str, paths), "--num_workers", "1"])


@pytest.mark.parametrize("where", [["truth"], ["results"], ["truth", "results"]])
def test_suffixes_in_capitals(folders: dict[str, Path], where: list[str]) -> None:
    for name in where:
        for path in [*folders[name].rglob("*.png")]:
            path.rename(path.with_suffix(".PNG"))
    assert run(folders) == 0
    with (folders["results"] / "all_results.csv").open() as file:
        last = [*csv.DictReader(file)][-1]
    assert float(last["J-Mean"]) == 1


@pytest.mark.parametrize("where", ["truth", "results"])
def test_masks_in_colours_are_not_scored(
    folders: dict[str, Path], where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folders[where] / "cat" / "1.png"
    Image.open(path).convert("RGB").save(path)
    assert run(folders) == 2
    error = capsys.readouterr().err
    assert f"{path} is not scored, since its pixels are RGB" in error
    assert "save the masks as palette or 8-bit grey PNGs" in error
    assert "write it again" not in error
