"""scripts/plot_log.py: curves of one or more runs from their log.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts import plot_log


def write_log(folder: Path, num_lines: int = 5, end: str = "") -> Path:
    folder.mkdir(parents=True)
    values = {"total_loss": 1.0, "iou": 0.5, "lr": 1e-5}
    lines = [json.dumps({"iteration": 10 * (i + 1), **values}) for i in range(num_lines)]
    (folder / "log.jsonl").write_text("".join(f"{line}\n" for line in lines) + end)
    return folder


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Figures that are drawn; they are also saved."""
    drawn: list[Any] = []
    save = plot_log.save_figure

    def record(figure: Any, path: Path) -> None:
        drawn.append(figure)
        save(figure, path)

    monkeypatch.setattr(plot_log, "save_figure", record)
    return drawn


@pytest.mark.parametrize(("flags", "ends"), [([], [50, 80]), (["--compare"], [50, 30])])
def test_runs_in_sequence_and_over_each_other(
    flags: list[str], ends: list[int], tmp_path: Path, figures: list[Any]
) -> None:
    runs = [write_log(tmp_path / "a", 5, end='{"iteration": 6'), write_log(tmp_path / "b", 3)]
    output = tmp_path / "new" / "curves.png"
    assert plot_log.main([*map(str, runs), "--output", str(output), *flags]) == 0
    assert output.stat().st_size > 1000
    (figure,) = figures
    loss, _, rate = figure.axes
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["a", "b"]
    for panel in (loss, rate):
        lines = [line for line in panel.lines if not line.get_label().startswith("_")]
        assert [line.get_xdata()[-1] for line in lines] == ends


def test_runs_of_the_same_name_have_different_labels(tmp_path: Path, figures: list[Any]) -> None:
    runs = [str(write_log(tmp_path / name / "run")) for name in "ab"]
    assert plot_log.main([*runs, "--output", str(tmp_path / "curves.png"), "--compare"]) == 0
    legend = figures[0].axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == runs


def test_resumes_are_marked(tmp_path: Path, figures: list[Any]) -> None:
    runs = [write_log(tmp_path / name) for name in "ab"]
    for run, starts in zip(runs, ([0, 20], [0]), strict=True):
        starts_of_run = [{"iteration": start} for start in starts]
        (run / "environment.json").write_text(json.dumps(starts_of_run))
    output = tmp_path / "curves.png"
    assert plot_log.main([*map(str, runs), "--output", str(output)]) == 0
    dotted = [line for line in figures[0].axes[0].lines if line.get_linestyle() == ":"]
    assert [list(line.get_xdata()) for line in dotted] == [[20, 20]]
    (runs[0] / "environment.json").write_text("{}")
    assert plot_log.main([*map(str, runs), "--output", str(output)]) == 0
    (runs[0] / "environment.json").write_text("[1]")
    assert plot_log.main([*map(str, runs), "--output", str(output)]) == 2


def test_smoothing() -> None:
    values = np.array([1.0, 2.0, 6.0])
    np.testing.assert_allclose(plot_log.smooth(values, 1), [4 / 3, 3, 14 / 3])
    np.testing.assert_allclose(plot_log.smooth(values, 0), values)


def test_wrong_input_ends_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "log.jsonl").write_text('{"iteration": 1}\n')
    flags = ["--output", str(tmp_path / "curves.png")]
    for name, message in (
        ("none", "give the folder of a run, <save_dir>/<id>"),
        ("other", "has no values of total_loss, iou, lr"),
    ):
        assert plot_log.main([str(tmp_path / name), *flags]) == 2
        assert message in capsys.readouterr().err
    run = write_log(tmp_path / "empty", 0)
    assert plot_log.main([str(run), *flags]) == 2
    assert "log.jsonl is empty" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        plot_log.main([str(run), *flags, "--window", "-1"])
    assert "--window must be at least 0; it is -1" in capsys.readouterr().err
