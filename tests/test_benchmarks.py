"""The benchmarks of training run, and say what they should; how fast is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import bench_data, bench_train


def test_samples(synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--static_root", str(synthetic / "static"), "--davis_root", str(synthetic / "DAVIS")]
    flags += [
        "--crop_size",
        "32",
        "--samples",
        "4",
        "--num_workers",
        "0",
        "--json",
        str(tmp_path / "data.json"),
    ]
    assert bench_data.main(flags) == 0
    rows = json.loads((tmp_path / "data.json").read_text())["rows"]
    assert [row["sample"] for row in rows] == ["static", "video"]
    for row in rows:
        assert row["loaded"] > 0
        assert row["units"] == pytest.approx(row["ms"] / row["unit_ms"])
    assert "static" in capsys.readouterr().out


def test_steps(synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--size tiny --crop_size 32 -b 1 --iterations 1 --device cpu --num_workers 0".split()
    flags += ["--static_root", str(synthetic / "static"), "--json", str(tmp_path / "train.json")]
    assert bench_train.main(flags) == 0
    rows = json.loads((tmp_path / "train.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [
        "plain eager float32", "float32", "bfloat16", "float32, images", "bfloat16, images",
    ]  # fmt: skip
    assert all(row["seconds"] > 0 for row in rows)
    assert all(0 <= row["waiting"] <= 1 for row in rows[3:])
    assert "plain eager float32" in capsys.readouterr().out
