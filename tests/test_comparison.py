"""Tables and figures of a comparison, with and without scores."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from evaluation.comparison import Row, draw, format_markdown


def row(name: str, jf: float | None, fps: float) -> Row:
    return Row(name, "stcn", jf, jf, jf, fps, fps / 2, 900.0, 800.0, 9, 4.5, 2, 40)


def test_tables_with_and_without_scores() -> None:
    rows = [row("a|b", 0.7654, 12.345), row("c", None, 3)]
    assert format_markdown(rows, has_scores=True).splitlines()[2:] == [
        r"| a\|b | stcn | 0.765 | 0.765 | 0.765 | 12.35 | 6.17 | 900 | 9 | 4.5 |",
        "| c | stcn | - | - | - | 3.00 | 1.50 | 900 | 9 | 4.5 |",
    ]
    assert format_markdown(rows, has_scores=False).splitlines()[3:] == [
        "| c | stcn | 3.00 | 1.50 | 900 | 9 | 4.5 |"
    ]


def test_figures_with_and_without_scores(tmp_path: Path) -> None:
    sizes = []
    for name, rows in {
        "points": [row("a", 0.7, 12), row("b", 0.7, 12), row("c", None, 1)],
        "bars": [row("a", None, 12), row("b", None, 3)],
    }.items():
        draw(rows, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            sizes.append(image.size)
    assert sizes[0] != sizes[1]
