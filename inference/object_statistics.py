"""Per-object statistics of a video: frames that show the object, area, predicted quality."""

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
    """Collects statistics of frames, which may come in any order, in constant memory.

    Args:
        labels: labels of the objects.
        frame_names: names of all frames of the video.
    """

    def __init__(self, labels: Sequence[int], frame_names: Sequence[str]) -> None:
        self._labels = [*labels]
        self._names = frame_names
        # By label.
        self._first = np.full(256, len(frame_names))
        self._last = np.full(256, -1)
        self._num_frames = np.zeros(256, np.int64)  # frames that show the object
        self._total = np.zeros(256, np.int64)  # pixels over all frames
        self._largest = np.zeros(256, np.int64)
        self._num_pixels = 1
        self._quality: dict[int, tuple[int, float, float]] = {}  # count, sum, minimum

    def add(self, index: int, labels: np.ndarray, quality: Mapping[int, float]) -> None:
        """Add one frame.

        Args:
            index: position of the frame in the video.
            labels: (H, W) uint8 label map.
            quality: label -> predicted quality of its mask; with direction "both", that of the
                forward propagation.
        """
        areas = histogram(labels)
        is_present = areas > 0
        self._first[is_present] = np.minimum(self._first[is_present], index)
        self._last[is_present] = np.maximum(self._last[is_present], index)
        self._num_frames += is_present
        self._total += areas
        self._largest = np.maximum(self._largest, areas)
        self._num_pixels = labels.size
        for label, value in quality.items():
            count, total, least = self._quality.get(label, (0, 0.0, value))
            self._quality[label] = (count + 1, total + value, min(least, value))

    def rows(self) -> list[list[str]]:
        """One row per object, with the columns COLUMNS.

        Areas are in pixels and percent of the frame. Their means are over the frames that show the
        object. A cell without a value is empty.
        """
        return [self._row(label) for label in self._labels]

    def _row(self, label: int) -> list[str]:
        num_frames = int(self._num_frames[label])
        row = [str(label), "", "", "0", "", "", "", "", ""]
        if num_frames:
            mean = self._total[label] / num_frames
            row[1:7] = [
                self._names[self._first[label]],
                self._names[self._last[label]],
                str(num_frames),
                f"{mean:.1f}",
                str(self._largest[label]),
                f"{100 * mean / self._num_pixels:.3f}",
            ]
        if label in self._quality:
            count, total, least = self._quality[label]
            row[7:] = [f"{total / count:.3f}", f"{least:.3f}"]
        return row


def write_statistics(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write rows of ObjectStatistics as a CSV file."""
    write_rows(path, COLUMNS, rows)


def format_statistics(rows: Sequence[Sequence[str]], max_rows: int = 20) -> str:
    """Format rows of ObjectStatistics as a table; columns of quality only if it was predicted."""
    has_quality = any(row[7] for row in rows)
    num_columns = len(COLUMNS) if has_quality else 7
    lines = [row[:num_columns] for row in (COLUMNS, *rows[:max_rows])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    if len(rows) > max_rows:
        table.append(f"and {len(rows) - max_rows} more objects")
    return "\n".join(table)
