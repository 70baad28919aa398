"""The benchmark of the annotator runs and reports what it should. Speed is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.benchmarks import bench_annotator
from scripts.shared.annotator_page import missing_software

FLAGS = "--heights 64 --size 64 --frames 8 --repeats 2 --device cpu".split()


def test_missing_weights_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_annotator.main(["--model", str(tmp_path / "none.pth")]) == 2
    assert "There are no weights" in capsys.readouterr().err


def test_missing_browsers_are_reported(
    tiny_weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_annotator, "missing_software", lambda: "chromium is missing.")
    assert bench_annotator.main(["--model", str(tiny_weights)]) == 2
    assert capsys.readouterr().err == "error: chromium is missing.\n"


@pytest.mark.parametrize("wrong", ["--heights 10", "--repeats 0", "--frames 2", "--parts dance"])
def test_wrong_options_are_refused(wrong: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench_annotator.main(wrong.split())


@pytest.mark.skipif(bool(missing_software()), reason=f"No browser: {missing_software()}")
def test_all_parts(tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av", reason="PyAV is missing: pip install -r requirements-annotator.txt")
    flags = [*FLAGS, "--model", str(tiny_weights), "--json", str(tmp_path / "times.json")]
    flags += ["--long", str(tmp_path / "long.mp4"), "--long_frames", "40", "--long_height", "64"]
    assert bench_annotator.main(flags) == 0
    rows = json.loads((tmp_path / "times.json").read_text())["rows"]
    assert [(row["part"], row["clip"]) for row in rows if row["part"] != "memory"] == [
        *((part, "64p") for part in ("hint", "refine", "propagate", "fps", "stroke", "seek")),
        ("seek", "64p, 40 frames"),
    ]
    assert all(row["values"] and min(row["values"]) > 0 for row in rows)
    table = capsys.readouterr().out
    assert table.count("\n") == 2 + len(rows)
    assert "| seek to a random frame, ms | 64p, 40 frames |" in table
