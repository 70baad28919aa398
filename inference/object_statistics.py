"""What became of each object of a video: when it was seen, how large, how good its masks look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from util.files import write_rows
from util.masks import histogram

COLUMNS = (
    "object", "first_frame", "last_frame", "frames_seen", "mean_area", "largest_area",
    "mean_percent", "mean_quality", "least_quality",
)  # fmt: skip


class ObjectStatistics:
    """Collects frames in any order; nothing it holds grows with them.

    Args:
        labels: of the objects.
        frame_names: of the whole video.
    """

    def __init__(self, labels: Sequence[int], frame_names: Sequence[str]) -> None:
        self._labels = [*labels]
        self._names = frame_names
        self._first = np.full(256, len(frame_names))
        self._last = np.full(256, -1)
        self._num_seen = np.zeros(256, np.int64)
        self._total = np.zeros(256, np.int64)  # pixels over all frames
        self._largest = np.zeros(256, np.int64)
        self._num_pixels = 1
        self._quality: dict[int, tuple[int, float, float]] = {}  # number, sum, least

    def add(self, index: int, labels: np.ndarray, quality: Mapping[int, float]) -> None:
        """Count a frame: its label map (H, W) uint8, and scores of its masks by label (of two
        passes, the second one's)."""
        areas = histogram(labels)
        is_seen = areas > 0
        self._first[is_seen] = np.minimum(self._first[is_seen], index)
        self._last[is_seen] = np.maximum(self._last[is_seen], index)
        self._num_seen += is_seen
        self._total += areas
        self._largest = np.maximum(self._largest, areas)
        self._num_pixels = labels.size
        for label, score in quality.items():
            number, total, least = self._quality.get(label, (0, 0.0, score))
            self._quality[label] = (number + 1, total + score, min(least, score))

    def rows(self) -> list[list[str]]:
        """A row for each object, as COLUMNS: frames by name, areas in pixels over the frames that
        show it, percent of the frame; empty where there is nothing to say."""
        return [self._row(label) for label in self._labels]

    def _row(self, label: int) -> list[str]:
        seen = int(self._num_seen[label])
        row = [str(label), "", "", "0", "", "", "", "", ""]
        if seen:
            mean = self._total[label] / seen
            row[1:7] = [
                self._names[self._first[label]],
                self._names[self._last[label]],
                str(seen),
                f"{mean:.1f}",
                str(self._largest[label]),
                f"{100 * mean / self._num_pixels:.3f}",
            ]
        if label in self._quality:
            number, total, least = self._quality[label]
            row[7:] = [f"{total / number:.3f}", f"{least:.3f}"]
        return row


def write_statistics(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write rows of ObjectStatistics as CSV."""
    write_rows(path, COLUMNS, rows)


def format_statistics(rows: Sequence[Sequence[str]], most: int = 20) -> str:
    """Rows of ObjectStatistics as a table to print, cut after `most` objects."""
    filled = [*range(len(COLUMNS))]
    if not any(row[7] for row in rows):
        filled = filled[:7]
    lines = [[COLUMNS[at] for at in filled], *([row[at] for at in filled] for row in rows[:most])]
    widths = [max(len(line[at]) for line in lines) for at in filled]
    table = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    if len(rows) > most:
        table.append(f"and {len(rows) - most} more objects")
    return "\n".join(table)
