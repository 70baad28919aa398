"""Scores of objects, sequences and a whole split, and their text table, CSV and JSON files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np

from evaluation.metrics import Statistics
from util.files import write_json, write_rows

# Column names of the official files.
GLOBAL_COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
# The official file has the first three columns only.
OBJECT_COLUMNS = (
    *("Sequence", "J-Mean", "F-Mean"),
    *("J-Recall", "J-Decay", "F-Recall", "F-Decay", "J&F-Mean"),
)


@dataclass(frozen=True)
class Score:
    """Region similarity J and boundary accuracy F of one object, or their average over objects."""

    region: Statistics
    boundary: Statistics

    @property
    def mean(self) -> float:
        """J&F, the average of mean J and mean F."""
        return (self.region.mean + self.boundary.mean) / 2


@dataclass(frozen=True)
class ObjectScore(Score):
    """Score of one object of a sequence.

    is_seen: whether its category is in the training set of YouTube-VOS; None if unknown.
    """

    sequence: str
    label: int
    is_seen: bool | None = None

    @property
    def name(self) -> str:
        return f"{self.sequence}_{self.label}"


@dataclass(frozen=True)
class Scores:
    """Scores of all objects of a split, at least one, in the order of the split.

    warnings: sentences about predictions that look wrong, and about objects that are not scored.
    curves: object name -> J and F of each scored frame, (T,) each; NaN before the object appears.
    frames: sequence name -> names of the scored frames.
    """

    objects: tuple[ObjectScore, ...]
    warnings: tuple[str, ...] = ()
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    frames: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def worst_first(self) -> list[str]:
        """Names of the sequences, lowest J&F first."""
        sequences = self.sequences
        return sorted(sequences, key=lambda name: sequences[name].mean)

    @property
    def overall(self) -> Score:
        """Average over all objects, as in the official code."""
        return average(self.objects)

    @property
    def categories(self) -> dict[str, Score]:
        """Averages over the objects of "seen" and "unseen" categories, and their average "G".

        A category without objects is missing. Empty if the categories are unknown.
        """
        parts = {}
        for name, is_seen in (("seen", True), ("unseen", False)):
            if objects := [score for score in self.objects if score.is_seen is is_seen]:
                parts[name] = average(objects)
        return {**parts, "G": average([*parts.values()])} if parts else {}

    @property
    def sequences(self) -> dict[str, Score]:
        """Sequence name -> average over its objects."""
        by_sequence = groupby(self.objects, key=attrgetter("sequence"))
        return {name: average(list(objects)) for name, objects in by_sequence}


def average(scores: Sequence[Score]) -> Score:
    """Average all statistics over one or more scores."""
    return Score(
        region=_average([score.region for score in scores]),
        boundary=_average([score.boundary for score in scores]),
    )


def _average(parts: Sequence[Statistics]) -> Statistics:
    mean, recall, decay = np.mean([dataclasses.astuple(part) for part in parts], axis=0)
    return Statistics(float(mean), float(recall), float(decay))


def _values(score: Score) -> dict[str, float]:
    """Column name -> value."""
    return {
        "J&F-Mean": score.mean,
        **{f"J-{name.title()}": value for name, value in vars(score.region).items()},
        **{f"F-{name.title()}": value for name, value in vars(score.boundary).items()},
    }


def format_table(scores: Scores) -> str:
    """Format a text table of all objects, all sequences and the averages over all objects."""
    objects = [(score.name, score) for score in scores.objects]
    sequences = list(scores.sequences.items())
    names = ["sequence", "global", *(name for name, _ in objects)]
    width = max(map(len, names))

    def line(name: str, cells: Iterable[str]) -> str:
        return "  ".join([name.ljust(width), *(cell.rjust(8) for cell in cells)])

    def block(title: str, rows: Iterable[tuple[str, Score]]) -> list[str]:
        lines = [
            line(name, (f"{value:.3f}" for value in _values(score).values()))
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
    """Write the averages over all objects: a header and one row, as in the official file."""
    values = _values(scores.overall)
    write_rows(path, GLOBAL_COLUMNS, [[f"{values[column]:.6f}" for column in GLOBAL_COLUMNS]])


def write_object_csv(path: Path, scores: Scores, *, with_means: bool = False) -> None:
    """Write a header and one row per object, named <sequence>_<label> as in the official file.

    with_means: add one row per sequence, a row "global" and, for YouTube-VOS, the rows "seen",
        "unseen" and "G". J&F-Mean of "G" is the main score of YouTube-VOS.
    """
    rows: list[tuple[str, Score]] = [(score.name, score) for score in scores.objects]
    if with_means:
        rows += [*scores.sequences.items(), ("global", scores.overall), *scores.categories.items()]
    cells = []
    for name, score in rows:
        values = _values(score)
        cells.append([name, *(f"{values[column]:.6f}" for column in OBJECT_COLUMNS[1:])])
    write_rows(path, OBJECT_COLUMNS, cells)


def write_scores_json(path: Path, scores: Scores, record: Mapping[str, object]) -> None:
    """Write all scores, and J and F of every frame (null before the object appears).

    record: further items of the file, such as the settings.
    """
    objects: dict[str, dict[str, object]] = {}
    sequences = scores.sequences
    for score in scores.objects:
        region, boundary = scores.curves[score.name]
        frames = {"J": _to_json(region), "F": _to_json(boundary)}
        objects[score.name] = {**_values(score), "frames": frames}
        if score.is_seen is not None:
            objects[score.name]["is_seen"] = score.is_seen
    content = {
        "global": _values(scores.overall),
        "categories": {name: _values(score) for name, score in scores.categories.items()},
        "sequences": {name: _values(sequences[name]) for name in scores.worst_first},
        "objects": objects,
        "frames": {name: list(frames) for name, frames in scores.frames.items()},
        "warnings": list(scores.warnings),
        **record,
    }
    write_json(path, content)


def _to_json(values: np.ndarray) -> list[float | None]:
    """Round to six digits; None for NaN, which JSON does not have."""
    return [None if math.isnan(value) else round(value, 6) for value in values.tolist()]
