"""The DAVIS benchmark's scores of a set of predicted masks: as values, on screen and as CSV."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from util.files import atomic_path, write_json
from util.metrics import Statistics

# The official names.
GLOBAL_COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
# The official file has the first three; readers that look them up by name find them here too.
OBJECT_COLUMNS = (
    *("Sequence", "J-Mean", "F-Mean"),
    *("J-Recall", "J-Decay", "F-Recall", "F-Decay", "J&F-Mean"),
)


@dataclass(frozen=True)
class Score:
    """Region similarity J and boundary accuracy F of one object, or averaged over several."""

    region: Statistics
    boundary: Statistics

    @property
    def mean(self) -> float:
        """J&F: the mean of the means, the benchmark's headline."""
        return (self.region.mean + self.boundary.mean) / 2


@dataclass(frozen=True)
class ObjectScore(Score):
    """The score of the object with this label in this sequence."""

    sequence: str
    label: int

    @property
    def name(self) -> str:
        return f"{self.sequence}_{self.label}"


@dataclass(frozen=True)
class Scores:
    """The scores of all objects of a split, in the split's order, at least one.

    warnings: sentences on predictions that could be scored but look wrong.
    curves: J and F on each scored frame, (T,) each, by the object's name.
    frames: names of the scored frames, by sequence.
    """

    objects: tuple[ObjectScore, ...]
    warnings: tuple[str, ...] = ()
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    frames: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def worst_first(self) -> list[str]:
        """The sequences, the least J&F first."""
        return sorted(self.sequences, key=lambda name: self.sequences[name].mean)

    @property
    def overall(self) -> Score:
        """The average over objects: a sequence weighs by how many it has, as officially."""
        return average(self.objects)

    @property
    def sequences(self) -> dict[str, Score]:
        """The average over the objects of each sequence."""
        by_sequence = groupby(self.objects, key=attrgetter("sequence"))
        return {name: average(list(objects)) for name, objects in by_sequence}


def average(scores: Sequence[Score]) -> Score:
    """Average each figure over `scores`, at least one."""
    return Score(
        region=_average([score.region for score in scores]),
        boundary=_average([score.boundary for score in scores]),
    )


def _average(parts: Sequence[Statistics]) -> Statistics:
    mean, recall, decay = np.mean([dataclasses.astuple(part) for part in parts], axis=0)
    return Statistics(float(mean), float(recall), float(decay))


def _figures(score: Score) -> dict[str, float]:
    return {
        "J&F-Mean": score.mean,
        **{f"J-{name.title()}": value for name, value in vars(score.region).items()},
        **{f"F-{name.title()}": value for name, value in vars(score.boundary).items()},
    }


def format_table(scores: Scores) -> str:
    """Return the lines to show: each object, the mean of each sequence, the whole."""
    objects = [(score.name, score) for score in scores.objects]
    sequences = list(scores.sequences.items())
    names = ["sequence", "global", *(name for name, _ in objects)]
    width = max(map(len, names))

    def line(name: str, cells: Iterable[str]) -> str:
        return "  ".join([name.ljust(width), *(cell.rjust(8) for cell in cells)])

    def block(title: str, rows: Iterable[tuple[str, Score]]) -> list[str]:
        lines = [
            line(name, (f"{value:.3f}" for value in _figures(score).values()))
            for name, score in rows
        ]
        return [line(title, GLOBAL_COLUMNS), *lines, ""]

    return "\n".join(
        [
            *block("object", objects),
            *block("sequence", sequences),
            *block("", [("global", scores.overall)]),
        ]
    )


def write_global_csv(path: Path, scores: Scores) -> None:
    """Write the figures over all objects: a header and one row, as the official code does."""
    figures = _figures(scores.overall)
    write_rows(path, GLOBAL_COLUMNS, [[f"{figures[column]:.6f}" for column in GLOBAL_COLUMNS]])


def write_object_csv(path: Path, scores: Scores, *, with_means: bool = False) -> None:
    """Write a header and a row for each object, named <sequence>_<label> as officially.

    with_means: go on with a row for each sequence, and close with a row named "global".
    """
    rows: list[tuple[str, Score]] = [(score.name, score) for score in scores.objects]
    if with_means:
        rows += [*scores.sequences.items(), ("global", scores.overall)]
    cells = []
    for name, score in rows:
        figures = _figures(score)
        cells.append([name, *(f"{figures[column]:.6f}" for column in OBJECT_COLUMNS[1:])])
    write_rows(path, OBJECT_COLUMNS, cells)


def write_scores_json(path: Path, scores: Scores, record: Mapping[str, Any]) -> None:
    """Write all figures, with J and F of each frame, and what made the masks."""
    objects = {}
    for score in scores.objects:
        region, boundary = scores.curves[score.name]
        rounded = {"J": region.round(6).tolist(), "F": boundary.round(6).tolist()}
        objects[score.name] = {**_figures(score), "frames": rounded}
    content = {
        "global": _figures(scores.overall),
        "sequences": {name: _figures(scores.sequences[name]) for name in scores.worst_first},
        "objects": objects,
        "frames": {name: list(frames) for name, frames in scores.frames.items()},
        "warnings": list(scores.warnings),
        **record,
    }
    write_json(path, content)


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
