"""Table and figure of several runs on the same videos: scores, speed and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from util.figures import new_figure, save_figure
from util.files import write_rows


@dataclass(frozen=True)
class Row:
    """Results of one run on all videos.

    Args:
        jf: J&F, in [0, 1]; None if the run was not scored, like `region` and `boundary`.
        region: J.
        boundary: F.
        fps: frames per second of the time from a decoded frame to its label map.
        fps_with_io: frames per second of the whole run, with reading and writing.
        peak_mib: peak memory in MiB; see util.devices.peak_memory.
        loaded_mib: peak memory in MiB before the first frame.
        largest_memory: memory frames at the end of a video, maximum over the videos.
        mean_memory: memory frames at the end of a video, mean over the videos.
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


# Title, field of Row, format. The Markdown table has the first _NUM_MARKDOWN_COLUMNS.
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
_NUM_MARKDOWN_COLUMNS = 10
_MARKERS = "osD^v"  # one per ten points, since there are ten colours
_SCORE_FIELDS = ("jf", "region", "boundary")


def format_markdown(rows: Sequence[Row], has_scores: bool) -> str:
    """Format a Markdown table; "-" marks missing scores.

    Args:
        has_scores: whether the table has the columns J&F, J and F.
    """
    columns = [
        c for c in _COLUMNS[:_NUM_MARKDOWN_COLUMNS] if has_scores or c[1] not in _SCORE_FIELDS
    ]
    lines = [[title for title, _, _ in columns], ["---", "---", *["---:"] * (len(columns) - 2)]]
    for row in rows:
        values = [(getattr(row, field), form) for _, field, form in columns]
        lines.append(["-" if value is None else format(value, form) for value, form in values])
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write a header and one line per row, unrounded; missing scores are empty cells."""
    cells = [[getattr(row, field) for _, field, _ in _COLUMNS] for row in rows]
    write_rows(path, [title for title, _, _ in _COLUMNS], cells)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw a PNG: J&F over FPS if any row has scores, else bars of FPS and peak memory."""
    scored = [(row.fps, row.jf, row.name) for row in rows if row.jf is not None]
    if not scored:
        _draw_bars(rows, path)
        return
    figure = new_figure(8, 5 + 0.2 * len(scored))
    axes = figure.subplots()
    for number, (fps, jf, name) in enumerate(scored):
        marker = _MARKERS[number // 10 % len(_MARKERS)]
        axes.scatter(fps, jf, s=50, c=f"C{number % 10}", marker=marker, label=name)
    axes.margins(0.15)
    axes.set(xlabel="FPS, without I/O", ylabel="J&F")
    axes.grid(alpha=0.3)
    # Names beside the points could be read as those of other points.
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.14), fontsize=8)
    save_figure(figure, path, dpi=110)


def _draw_bars(rows: Sequence[Row], path: Path) -> None:
    figure = new_figure(10, 1.5 + 0.4 * len(rows))
    panels = figure.subplots(1, 2, sharey=True)
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
