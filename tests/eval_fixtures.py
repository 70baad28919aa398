"""Fixtures and helpers of the tests of the eval scripts, on synthetic videos and a tiny network."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

NUM_FRAMES, SIZE = 11, (48, 68)  # as tests/conftest.py makes them
NAMES = [f"{index:05d}" for index in range(NUM_FRAMES)]


class Result(NamedTuple):
    """Exit status and printed text of an eval script."""

    code: int
    out: str
    err: str


Evaluate = Callable[..., Result]


@pytest.fixture
def evaluate(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_weights: Path
) -> Callable[..., Result]:
    """Runs an eval script with tiny weights; the default output is tmp_path/out."""

    def run(script: str, data: Path, *flags: object) -> Result:
        path_flag = {"youtube": "--yv_path", "generic": "--data_path"}.get(script, "--davis_path")
        argv = [path_flag, str(data), *map(str, flags)]
        for flag, value in [("--model", tiny_weights), ("--output", tmp_path / "out")]:
            if flag not in argv:
                argv += [flag, str(value)]
        if "--device" not in argv:
            argv += ["--device", "cpu"]
        if script in ("youtube", "generic") and "--size" not in argv:
            argv += ["--size", "0"]
        capsys.readouterr()
        code = importlib.import_module(f"eval_{script}").main(argv)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def davis(synthetic: Path, tmp_path: Path) -> Path:
    """A copy of DAVIS 2017 that a test may change: val-000 and val-001 of trainval."""
    root = tmp_path / "DAVIS"
    shutil.copytree(synthetic / "DAVIS" / "2017" / "trainval", root / "trainval")
    return root


def frames_of(davis: Path, video: str) -> Path:
    """Folder of the frames of a DAVIS video."""
    return davis / "trainval" / "JPEGImages" / "480p" / video


def masks_of(davis: Path, video: str) -> Path:
    """Folder of the annotations of a DAVIS video."""
    return davis / "trainval" / "Annotations" / "480p" / video


def read_labels(path: Path) -> np.ndarray:
    """Label map (H, W) uint8 of a mask file."""
    return np.array(Image.open(path))


def read_files(folder: Path) -> dict[str, bytes]:
    """All files below a folder except run.json, which holds the time of the run."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


def names_in(folder: Path) -> set[str]:
    """Names in an output folder without the lock file."""
    return {path.name for path in folder.iterdir()} - {".lock"}
