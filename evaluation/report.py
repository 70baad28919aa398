"""The scores of a set of predicted masks: as values, on screen, as CSV and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.metrics import Statistics
from util.files import write_json, write_rows

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
    """The score of the object with this label in this sequence.

    is_seen: whether its category is in YouTube-VOS' training set; None where that is unknown.
    """

    sequence: str
    label: int
    is_seen: bool | None = None

    @property
    def name(self) -> str:
        return f"{self.sequence}_{self.label}"


@dataclass(frozen=True)
class Scores:
    """The scores of all objects of a split, in the split's order, at least one.

    warnings: sentences on predictions that could be scored but look wrong.
    curves: J and F on each scored frame, (T,) each, by the object's name; NaN before it appears.
    frames: names of the scored frames, by sequence.
    """

    objects: tuple[ObjectScore, ...]
    warnings: tuple[str, ...] = ()
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    frames: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def worst_first(self) -> list[str]:
        """The sequences, the least J&F first."""
        sequences = self.sequences
        return sorted(sequences, key=lambda name: sequences[name].mean)

    @property
    def overall(self) -> Score:
        """The average over objects: a sequence weighs by how many it has, as officially."""
        return average(self.objects)

    @property
    def categories(self) -> dict[str, Score]:
        """The averages over objects of seen and unseen categories, as far as there are such, and G,
        the average of the two; empty where categories are unknown."""
        parts = {}
        for name, is_seen in (("seen", True), ("unseen", False)):
            if objects := [score for score in self.objects if score.is_seen is is_seen]:
                parts[name] = average(objects)
        return {**parts, "G": average([*parts.values()])} if parts else {}

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
            *block("", [("global", scores.overall), *scores.categories.items()]),
        ]
    )


def write_global_csv(path: Path, scores: Scores) -> None:
    """Write the figures over all objects: a header and one row, as the official code does."""
    figures = _figures(scores.overall)
    write_rows(path, GLOBAL_COLUMNS, [[f"{figures[column]:.6f}" for column in GLOBAL_COLUMNS]])


def write_object_csv(path: Path, scores: Scores, *, with_means: bool = False) -> None:
    """Write a header and a row for each object, named <sequence>_<label> as officially.

    with_means: go on with a row for each sequence, then one named "global" and, of YouTube-VOS,
    "seen", "unseen" and "G", whose J&F-Mean is the benchmark's headline.
    """
    rows: list[tuple[str, Score]] = [(score.name, score) for score in scores.objects]
    if with_means:
        rows += [*scores.sequences.items(), ("global", scores.overall), *scores.categories.items()]
    cells = []
    for name, score in rows:
        figures = _figures(score)
        cells.append([name, *(f"{figures[column]:.6f}" for column in OBJECT_COLUMNS[1:])])
    write_rows(path, OBJECT_COLUMNS, cells)


def write_scores_json(path: Path, scores: Scores, record: Mapping[str, Any]) -> None:
    """Write all figures, with J and F of each frame (null before its object), and the record."""
    objects: dict[str, dict[str, Any]] = {}
    sequences = scores.sequences
    for score in scores.objects:
        region, boundary = scores.curves[score.name]
        frames = {"J": _plain(region), "F": _plain(boundary)}
        objects[score.name] = {**_figures(score), "frames": frames}
        if score.is_seen is not None:
            objects[score.name]["is_seen"] = score.is_seen
    content = {
        "global": _figures(scores.overall),
        "categories": {name: _figures(score) for name, score in scores.categories.items()},
        "sequences": {name: _figures(sequences[name]) for name in scores.worst_first},
        "objects": objects,
        "frames": {name: list(frames) for name, frames in scores.frames.items()},
        "warnings": list(scores.warnings),
        **record,
    }
    write_json(path, content)


def _plain(values: np.ndarray) -> list[float | None]:
    """Rounded values; JSON knows no NaN."""
    return [None if math.isnan(value) else round(value, 6) for value in values.tolist()]
