"""A comparison of networks or memories on the same videos, as Markdown, CSV and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt

from util.figures import save_figure
from util.files import write_rows


@dataclass(frozen=True)
class Row:
    """What one entry did on all videos.

    Args:
        jf: J&F, of which `region` is J and `boundary` F, in [0, 1]; None where nothing was scored.
        fps: frames over the seconds from a decoded frame to its label map.
        fps_with_io: frames over the seconds by the clock, reading and writing included.
        peak_mib: see util.devices.peak_memory.
        loaded_mib: the same before the first frame.
        largest_memory: memory frames that a video held at its end, at most.
        mean_memory: the same, on average over the videos.
    """

    name: str
    method: str
    jf: float | None
    region: float | None
    boundary: float | None
    fps: float
    fps_with_io: float
    peak_mib: float
    loaded_mib: float
    largest_memory: int
    mean_memory: float
    num_videos: int
    num_frames: int


# Title, field of Row, format. Markdown has those up to the mean of memory frames.
_COLUMNS = (
    ("name", "name", ""),
    ("method", "method", ""),
    ("J&F", "jf", ".3f"),
    ("J", "region", ".3f"),
    ("F", "boundary", ".3f"),
    ("FPS", "fps", ".2f"),
    ("FPS with I/O", "fps_with_io", ".2f"),
    ("peak memory (MiB)", "peak_mib", ".0f"),
    ("memory frames, largest", "largest_memory", "d"),
    ("memory frames, mean", "mean_memory", ".1f"),
    ("loaded (MiB)", "loaded_mib", ".0f"),
    ("videos", "num_videos", "d"),
    ("frames", "num_frames", "d"),
)
_NUM_SHOWN = 10
_SCORES = ("jf", "region", "boundary")


def format_markdown(rows: Sequence[Row], has_scores: bool) -> str:
    """A table; "-" where there is no score.

    Args:
        has_scores: whether there are columns of scores at all.
    """
    columns = [c for c in _COLUMNS[:_NUM_SHOWN] if has_scores or c[1] not in _SCORES]
    lines = [[title for title, _, _ in columns], ["---", "---", *["---:"] * (len(columns) - 2)]]
    for row in rows:
        values = [(getattr(row, field), form) for _, field, form in columns]
        lines.append(["-" if value is None else format(value, form) for value, form in values])
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """A header and a line for each row, with all digits; empty where there is no score."""
    cells = [[getattr(row, field) for _, field, _ in _COLUMNS] for row in rows]
    write_rows(path, [title for title, _, _ in _COLUMNS], cells)


def draw(rows: Sequence[Row], path: Path) -> None:
    """J&F against FPS where rows have scores, else bars of FPS and of peak memory."""
    scored = [(row.fps, row.jf, row.name) for row in rows if row.jf is not None]
    if not scored:
        _draw_bars(rows, path)
        return
    figure, axes = plt.subplots(figsize=(8, 5))
    middle = (min(scored)[0] + max(scored)[0]) / 2
    # Labels go above and below in turn, and towards the middle, where there is room.
    for number, (fps, jf, name) in enumerate(sorted(scored)):
        axes.scatter(fps, jf, s=50)
        up, side = (-16 if number % 2 else 9), ("left" if fps <= middle else "right")
        axes.annotate(name, (fps, jf), (0, up), textcoords="offset points", ha=side, fontsize=8)
    axes.margins(0.15)
    axes.set(xlabel="FPS, without I/O", ylabel="J&F")
    axes.grid(alpha=0.3)
    save_figure(figure, path, dpi=110)


def _draw_bars(rows: Sequence[Row], path: Path) -> None:
    figure, panels = plt.subplots(1, 2, figsize=(10, 1.5 + 0.4 * len(rows)), sharey=True)
    names = [row.name for row in rows]
    for axes, values, title in (
        (panels[0], [row.fps for row in rows], "FPS, without I/O"),
        (panels[1], [row.peak_mib for row in rows], "peak memory (MiB)"),
    ):
        bars = axes.barh(names, values, color=[f"C{number % 10}" for number in range(len(rows))])
        axes.bar_label(bars, fmt="%.4g", padding=3, fontsize=8)
        axes.set(xlabel=title, xlim=(0, 1.2 * max(values)))
    panels[0].invert_yaxis()  # the first row on top
    save_figure(figure, path, dpi=110)
