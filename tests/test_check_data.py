"""scripts/check_data.py reads all files of the training data and lists the bad ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts import check_data
from util.masks import write_mask


def run(root: Path, *options: object) -> int:
    flags: list[object] = ["--stage", "03", "--static_root", root / "static"]
    flags += ["--davis_root", root / "DAVIS", "--yv_root", root / "YouTube", *options]
    return check_data.main([*map(str, flags)])


@pytest.fixture
def data(synthetic: Path, tmp_path: Path) -> Path:
    for name in ("static", "DAVIS", "YouTube"):
        shutil.copytree(synthetic / name, tmp_path / name)
    return tmp_path


def test_sound_data(synthetic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(synthetic) == 0
    images = len([*(synthetic / "static").rglob("*.jpg")])
    frames = 2 * 11  # two training videos of DAVIS
    youtube = len([*(synthetic / "YouTube" / "train_480p" / "Annotations").rglob("*.png")])
    total = images + frames + youtube
    assert (
        capsys.readouterr().out == f"{total} images with masks were read, 0 problems were found.\n"
    )


@pytest.mark.parametrize("num_workers", [1, 2])
def test_bad_files_are_listed(
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    truncate: Callable[[Path], None],
    num_workers: int,
) -> None:
    monkeypatch.setattr(check_data, "_MIN_FOR_PROCESSES", 0)
    youtube = data / "YouTube" / "train_480p"
    (video,) = sorted((youtube / "JPEGImages").iterdir())[:1]
    frames = sorted(video.iterdir())
    davis = data / "DAVIS" / "2017" / "trainval" / "Annotations" / "480p"
    truncate(data / "static" / "ECSSD" / "image0001.jpg")
    write_mask(data / "static" / "ECSSD" / "image0001.png", np.zeros((48, 68), np.uint8), None)
    truncate(frames[0])
    Image.new("RGB", (70, 48)).save(frames[1])
    mask = davis / "train-000" / "00003.png"
    truncate(mask)
    assert run(data, "--num_workers", num_workers) == 1
    *lines, summary = capsys.readouterr().out.splitlines()
    expected = [
        "static/ECSSD/image0001.jpg cannot be read", "image0001.png contains no object",
        f"{frames[0].name} cannot be read", f"{frames[1]} is 70x48, but its mask is 68x48",
        f"{mask} cannot be read",
    ]  # fmt: skip
    assert len(lines) == len(expected)
    for sentence in expected:
        assert sum(sentence in line for line in lines) == 1
    assert summary.endswith("5 problems were found.")


def test_wrong_options_and_missing_data(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        check_data.main(["--stage", "0", "--bl_root", "x"])
    assert caught.value.code == 2
    assert "check_data.py: error: --bl_root does nothing in stage 0" in capsys.readouterr().err
    shutil.rmtree(data / "DAVIS")
    assert run(data) == 2
    assert "check_data.py: error: Stage 3: " in capsys.readouterr().err
