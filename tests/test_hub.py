"""The Python API from another project, by torch.hub: each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LOAD = f"""
import numpy as np, torch
frames = [np.full((48, 64, 3), 9 * t, np.uint8) for t in range(3)]
mask = np.zeros((48, 64), np.uint8)
mask[8:24, 8:24] = 3
hub = lambda name, *args, **options: torch.hub.load(
    {str(ROOT)!r}, name, *args, source="local", device="cpu", **options)
"""
TRACK = """
tracker = hub("tracker", weights=MODEL, size=32)
labels = [tracker.segment(frame, mask if t == 0 else None) for t, frame in enumerate(frames)]
assert labels[0].shape == (48, 64) and set(np.unique(labels[0])) == {0, 3}
clip = hub("clip_session", frames, weights=MODEL)
clip.add_mask(1, mask)
assert [index for index, _ in clip.propagate("both")] == [0, 1, 2]
assert hub("predictor", weights=MODEL).settings.mem_every == 5
"""


def run(folder: Path, code: str, model: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"MODEL = {str(model)!r}\n{code}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_api_works_from_another_folder(tmp_path: Path, tiny_weights: Path) -> None:
    code = LOAD + TRACK + "import sys\nassert 'torchvision' not in sys.modules\n"
    result = run(tmp_path, code, tiny_weights)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_api_works_beside_another_package_called_datasets(
    tmp_path: Path, tiny_weights: Path
) -> None:
    (tmp_path / "datasets.py").write_text("load_dataset = 'of Hugging Face'\n")
    code = "import datasets\n" + LOAD + TRACK + "assert datasets.load_dataset\n"
    result = run(tmp_path, code, tiny_weights)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("name", ["util", "model"])
def test_other_modules_of_the_same_name_are_refused_by_name(
    tmp_path: Path, tiny_weights: Path, name: str
) -> None:
    (tmp_path / f"{name}.py").write_text("")
    result = run(tmp_path, f"import {name}\n{LOAD}hub('predictor', weights=MODEL)", tiny_weights)
    assert result.returncode == 1
    assert f"ImportError: This process has imported other modules named {name}" in result.stderr


def test_an_unknown_option_is_named(tmp_path: Path, tiny_weights: Path) -> None:
    result = run(tmp_path, LOAD + "hub('predictor', weights=MODEL, sise=3)", tiny_weights)
    assert "ValueError: A predictor has no option sise" in result.stderr
