"""Curves of scores, and the figure of a comparison: what their texts say."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation import comparison, figures
from evaluation.metrics import Statistics
from evaluation.report import ObjectScore, Scores
from tests.test_comparison import row


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Figures that are drawn instead of saved."""
    result: list[Any] = []
    for module in (figures, comparison):
        monkeypatch.setattr(module, "save_figure", lambda figure, *_, **__: result.append(figure))
    return result


@pytest.mark.parametrize(
    ("num_frames", "named"),
    [(1, ["00005"]), (43, [f"{5 + index:05d}" for index in range(0, 43, 5)])],
)
def test_curves_name_their_frames(
    drawn: list[Any], tmp_path: Path, num_frames: int, named: list[str]
) -> None:
    frames = tuple(f"{5 + index:05d}" for index in range(num_frames))
    statistics = Statistics(0.5, 0.5, 0)
    curve = np.full(num_frames, 0.5)
    scores = Scores(
        (ObjectScore(statistics, statistics, "cat", 1),),
        curves={"cat_1": (curve, curve)},
        frames={"cat": frames},
    )
    with warnings.catch_warnings():  # of line styles, for example
        warnings.simplefilter("error")
        figures.draw_curves(scores, tmp_path)
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.get_xticklabels()] == named
    assert [frames[int(at)] for at in axes.get_xticks()] == named


def test_the_points_of_a_comparison_are_named_in_a_legend(drawn: list[Any], tmp_path: Path) -> None:
    rows = [row(f"entry {number}", 0.7, 12) for number in range(12)]
    comparison.draw([*rows, row("not scored", None, 1)], tmp_path / "compare.png")
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [r.name for r in rows]
    looks = {
        (tuple(points.get_facecolor()[0]), points.get_paths()[0].vertices.tobytes())
        for points in axes.collections
    }
    assert len(looks) == len(rows)
