"""scripts/verify_reference.py: all files pass, and wrong probabilities fail."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.methods import METHODS
from scripts import verify_reference

HERE = Path(__file__).parent / "reference"
SHORT = 2  # frames


@pytest.fixture(autouse=True, scope="module")
def _one_network() -> Iterator[None]:
    """Build each base network once for all tests, which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        cached = functools.lru_cache(verify_reference.reference_network)
        patch.setattr(verify_reference, "reference_network", cached)
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for .npz files, and the names of the published tensors above it."""
    shutil.copy(HERE / "stcn_state_dict.json", tmp_path)
    (tmp_path / "inference").mkdir()
    return tmp_path / "inference"


@pytest.fixture
def short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the first two frames, and one network for all folders."""
    build = functools.partial(verify_reference.reference_network, HERE)
    monkeypatch.setattr(verify_reference, "reference_network", lambda _, *rest: build(*rest))
    rewrite(folder / "short.npz")
    return folder / "short.npz"


def rewrite(path: Path, noise: float = 0, **changes: object) -> None:
    """Write the first frames of a file, with an error of `noise` in one pixel."""
    with np.load(HERE / "inference" / "davis_stcn_mem_every-5_top_k-20_90x150_k2.npz") as content:
        config = json.loads(str(content["config"]))
        prob = content["prob"][:, :SHORT].copy()
    prob[1, 1, 5, 10] += noise
    config = {**config, "num_frames": SHORT, **changes}
    np.savez(path, prob=prob, config=json.dumps(config))


def test_all_reference_files_pass(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted((HERE / "inference").glob("*.npz"))
    assert {path.name.split("_")[1] for path in files} == {*METHODS}
    assert verify_reference.main([str(HERE / "inference")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(files) + 1
    for path, line in zip(files, lines[:-1], strict=True):
        name, difference, verdict = line.split()
        assert name == f"{path.name}:"
        assert float(difference) < 1e-4
        assert verdict == "pass"
    assert lines[-1] == f"{len(files)} passed, 0 failed"


@pytest.mark.parametrize("noise", [0.01, -0.01, float("nan")])
def test_wrong_probabilities_fail(
    short: Path, noise: float, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(short.with_name("wrong.npz"), noise)
    assert verify_reference.main([str(short.parent)]) == 1
    first, second, summary = capsys.readouterr().out.splitlines()
    assert first.startswith("short.npz: ")
    assert first.endswith(" pass")
    name, difference, verdict = second.split()
    assert (name, verdict) == ("wrong.npz:", "FAIL")
    assert float(difference) == pytest.approx(abs(noise), abs=1e-4, nan_ok=True)
    assert summary == "1 passed, 1 failed"


def test_tolerance(short: Path) -> None:
    rewrite(short, noise=0.01)
    assert verify_reference.main([str(short.parent)]) == 1
    assert verify_reference.main([str(short.parent), "--tolerance", "0.02"]) == 0


def test_wrong_setting_fails(short: Path) -> None:
    """With another seed, the clip is another."""
    rewrite(short, seed=1)
    assert verify_reference.main([str(short.parent)]) == 1


def test_unknown_system_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(folder / "other.npz", system="xmem")
    assert verify_reference.main([str(folder)]) == 2
    assert "other.npz cannot be compared: " in capsys.readouterr().err


def test_empty_folder_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        assert verify_reference.main([str(folder)]) == 2
        assert f"there are no .npz files in {folder}" in capsys.readouterr().err


def test_error_names_a_damaged_file(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = short.read_bytes()
    for damaged in (content[: len(content) // 2], b"no archive", b""):
        short.write_bytes(damaged)
        assert verify_reference.main([str(short.parent)]) == 2
        assert f"error: {short} cannot be compared: " in capsys.readouterr().err
    rewrite(short, num_frames=SHORT + 1)
    assert verify_reference.main([str(short.parent)]) == 2
    assert "prob is (3, 2, 12, 20) instead of (3, 3, 12, 20)" in capsys.readouterr().err
    rewrite(short, core="oxford")
    assert verify_reference.main([str(short.parent)]) == 2
    assert "oxford" in capsys.readouterr().err


def test_missing_tensor_names_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(tmp_path / "lonely.npz")
    assert verify_reference.main([str(tmp_path)]) == 2
    assert "stcn_state_dict.json" in capsys.readouterr().err
