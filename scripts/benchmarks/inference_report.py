"""Tables and figures of bench_inference.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scripts.benchmarks.inference_row import STAGES, Row
from util.figures import new_figure, save_figure
from util.presets import METHOD_PRESETS

_NUM_WINDOWS = 40  # points of a curve of times
_RUN_HEADER = f"{'method':7}{'precision':>10}{'objects':>8}{'frames':>7}{'memory':>12}"
HEADER = (
    f"{_RUN_HEADER}{'units':>8}{'publ.':>7}{'median':>8}{'p95':>8}"
    + "".join(f"{stage:>9}" for stage in STAGES)
    + f"{'peak MiB':>10}   (ms per frame)"
)


def describe_capacity(capacity: int | None) -> str:
    """Describe --mem_capacity in words."""
    if capacity is None:
        return "published"
    return f"at most {capacity}" if capacity else "unlimited"


def _describe_run(row: Row) -> str:
    capacity = describe_capacity(row.mem_capacity)
    return f"{row.method:7}{row.precision:>10}{row.objects:8}{row.frames:7}{capacity:>12}"


def format_row(row: Row) -> str:
    """Format one line of the table of times under `HEADER`."""
    published = f"{row.published:7.1f}" if row.published else "      -"
    return (
        f"{_describe_run(row)}{row.units:8.2f}{published}{row.median_ms:8.1f}{row.p95_ms:8.1f}"
        + "".join(f"{row.stages_ms[stage]:9.1f}" for stage in STAGES)
        + f"{row.peak_mib:10.0f}"
    )


def format_growth(rows: Sequence[Row]) -> str:
    """Format the table of memory, and of the times early and late in the clip.

    "peak" is the peak without the loaded network, as in the table of times; "process" includes it.
    """
    lines = [
        f"{_RUN_HEADER}{'stored MiB':>12}{'peak':>9}{'peak - stored':>15}{'process':>9}"
        f"{'2nd tenth ms':>14}{'last tenth ms':>15}{'ratio':>7}"
    ]
    for row in rows:
        stored = row.stored_mib[-1]
        line = f"{_describe_run(row)}{stored:12.1f}{row.peak_mib:9.1f}{row.peak_mib - stored:15.1f}"
        line += f"{row.process_mib:9.1f}"
        if row.tenths_ms is not None:
            second, last = row.tenths_ms
            line += f"{second:14.1f}{last:15.1f}{last / second:7.2f}"
        lines.append(line)
    return "\n".join([*lines, *_compare_lengths(rows)])


def _compare_lengths(rows: Sequence[Row]) -> list[str]:
    """Compare the peaks of the longest and the shortest clip of rows that differ in length only."""
    by_run: dict[str, list[Row]] = {}
    for row in rows:
        capacity = describe_capacity(row.mem_capacity)
        name = f"{row.method}, {row.precision}, {row.objects} objects, memory {capacity}"
        by_run.setdefault(name, []).append(row)
    lines = []
    for name, group in by_run.items():
        shortest, longest = (pick(group, key=lambda row: row.frames) for pick in (min, max))
        if shortest.frames == longest.frames:
            continue
        beyond = [row.process_mib - row.stored_mib[-1] for row in (longest, shortest)]
        lines.append(
            f"{name}: process - stored of {longest.frames} frames / of {shortest.frames} frames = "
            f"{beyond[0] / beyond[1]:.4f}"
        )
    return lines


def draw_speed(rows: Sequence[Row], path: Path) -> None:
    """Draw the units per frame of each row by stage, and those of the published code."""
    figure = new_figure(9, 1 + 0.36 * len(rows))
    axes = figure.subplots()
    positions = np.arange(len(rows))
    left = np.zeros(len(rows))
    for stage in STAGES:
        width = np.array([row.stages_ms[stage] / row.unit_ms for row in rows])
        axes.barh(positions, width, left=left, label=stage)
        left += width
    rest = np.array([row.units for row in rows]) - left
    axes.barh(positions, rest.clip(min=0), left=left, label="other", color="0.7")
    axes.set_yticks(positions, [_label(row, rows) for row in rows])
    for position, row in enumerate(rows):
        if row.published:
            label = "published (float32)" if position == 0 else None
            axes.plot([row.published] * 2, [position - 0.4, position + 0.4], color="k", label=label)
    axes.invert_yaxis()
    axes.set_xlabel("units per frame")
    axes.set_title(_common_settings(rows) or "")
    axes.legend(fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    save_figure(figure, path, dpi=110)


def draw_growth(rows: Sequence[Row], path: Path) -> None:
    """Draw the size of the memory bank and the time per frame over the frames of each row.

    Solid lines have the published capacity, dashed lines another one.
    """
    figure = new_figure(11, 4.5)
    left, right = figure.subplots(1, 2)
    colours = {method: f"C{number}" for number, method in enumerate(METHOD_PRESETS)}
    for row in rows:
        style = {
            "color": colours[row.method],
            "linestyle": "-" if row.mem_capacity is None else "--",
            "label": _label(row, rows),
        }
        window = max(len(row.ms) // _NUM_WINDOWS, 1)
        usable = len(row.ms) // window * window
        medians = np.median(np.reshape(row.ms[:usable], (-1, window)), axis=1)
        left.plot(row.stored_mib, **style)
        right.plot(np.arange(len(medians)) * window, medians, **style)
    left.set(xlabel="frame", ylabel="memory frames stored (MiB)", yscale="log")
    right.set(xlabel="frame", ylabel="time per frame (ms)", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.set_title(_common_settings(rows) or "")
    right.legend(fontsize=7, ncol=2)
    save_figure(figure, path, dpi=110)


def _label(row: Row, rows: Sequence[Row]) -> str:
    """Name a row in a figure by its method and by the settings that differ between the rows."""
    label = row.method
    if _common_settings(rows) is None:
        label += f" {row.precision}, {row.objects} obj."
    if len({other.frames for other in rows if other.method == row.method}) > 1:
        label += f", {row.frames} frames"
    if row.mem_capacity is not None:
        label += f", {describe_capacity(row.mem_capacity)}"
    return label


def _common_settings(rows: Sequence[Row]) -> str | None:
    """Describe precision and objects if all rows share them."""
    settings = {f"{row.precision}, {row.objects} objects" for row in rows}
    return settings.pop() if len(settings) == 1 else None
