"""Time of scoring an object on a frame, in one process, as scripts/evaluate.py does it.

    python scripts/benchmarks/bench_scores.py --davis_path data/DAVIS

The predictions are the annotations of three frames before. DAVIS 2016 and 2017 are scored,
whichever is there. Each time is the least of several runs, the first of which warms the disk's
cache. Times are given by the clock and of the processor, which other programs slow down less.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets.davis import at_480p, find_2017
from evaluation.metrics import evaluate_frame
from evaluation.predictions import Selection, list_masks
from evaluation.protocols import find_split, select_davis
from evaluation.report import ObjectScore, Scores
from evaluation.scoring import score
from util.files import write_json

DELAY = 3  # frames
TOLERANCE = 1e-6


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return 1 where figures differ from the expected ones, 2 for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--davis_path", type=Path, required=True, help="folder with 2016, 2017 or both in it"
    )
    parser.add_argument("--split", default="val", help="name of the list in ImageSets")
    parser.add_argument("--repeats", type=int, default=5, help="runs, of which the fastest counts")
    parser.add_argument(
        "--expected",
        type=Path,
        metavar="FILE",
        help="JSON with the figures of these predictions; fail where one is off by more than "
        f"{TOLERANCE:g}",
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args(argv)
    try:
        content: dict[str, Any] = {"settings": vars(arguments), "rows": []}
        objects: list[ObjectScore] = []
        with tempfile.TemporaryDirectory() as folder:
            for year in find_years(arguments.davis_path, arguments.split):
                results = Path(folder, str(year))
                row, scores = measure(
                    arguments.davis_path, year, arguments.split, results, max(arguments.repeats, 1)
                )
                content["rows"].append(row)
                objects += scores.objects
        if len(content["rows"]) > 1:
            content["rows"].append(add_up(content["rows"]))
        print("ms of an object on a frame:   reading and measuring   measuring alone")
        print("            object-frames    clock    processor          processor")
        for row in content["rows"]:
            print(
                f"{row['name']:12}{row['count']:13}{row['ms']:9.2f}{row['cpu_ms']:13.2f}"
                f"{row['measuring_cpu_ms']:19.2f}"
            )
        if arguments.expected is not None:
            expected = json.loads(arguments.expected.read_text())["sequences"]
            content["difference"] = find_difference(objects, expected)
            print(f"largest difference to {arguments.expected}: {content['difference']:.2g}")
        if arguments.json is not None:
            write_json(arguments.json, content)
    except KeyError as error:
        print(f"error: {arguments.expected} lacks {error}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if content.get("difference", 0) <= TOLERANCE else 1


def find_years(davis_path: Path, split: str) -> list[int]:
    """The years of DAVIS that are there; raises FileNotFoundError where there is none."""
    years = [2016] if (davis_path / "2016" / "Annotations").is_dir() else []
    try:
        find_2017(davis_path, split)
    except FileNotFoundError:
        if not years:
            raise
        return years
    return [*years, 2017]


def measure(
    davis_path: Path, year: int, split: str, results: Path, repeats: int
) -> tuple[dict[str, Any], Scores]:
    """Milliseconds of an object on a frame, and the scores; `results` receives the predictions."""
    link_delayed(davis_path, year, split, results)
    clock, processor, measuring = [], [], []
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        selection = select_davis(results, davis_path, year, split)
        scores = score(selection)
        clock.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_cpu)
        measuring.append(time_measuring(selection))
    count = sum(region.size for region, _ in scores.curves.values())
    times = {"ms": clock, "cpu_ms": processor, "measuring_cpu_ms": measuring}
    per_object = {name: 1000 * min(seconds) / count for name, seconds in times.items()}
    return {"name": f"DAVIS {year}", "count": count, **per_object}, scores


def link_delayed(davis_path: Path, year: int, split: str, results: Path) -> None:
    """Link the annotation of frame max(t - 3, 0) as the prediction of frame t, in all sequences."""
    base, names = find_split(davis_path, year, split)
    for name in names:
        annotated = list_masks(at_480p(base / "Annotations") / name)
        (results / name).mkdir(parents=True)
        for index, path in enumerate(annotated):
            given = annotated[max(index - DELAY, 0)]
            (results / name / path.name).symlink_to(given.absolute())


def time_measuring(selection: Selection) -> float:
    """Seconds of the processor that J and F of all objects and frames take, without reading."""
    seconds = 0.0
    for sequence in selection.sequences:
        for index in range(len(sequence)):
            maps = sequence[index]
            start = time.process_time()
            evaluate_frame(*maps, sequence.labels)
            seconds += time.process_time() - start
    return seconds


def add_up(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of all rows, by their counts."""
    count = sum(row["count"] for row in rows)
    means = {
        name: sum(row[name] * row["count"] for row in rows) / count
        for name in ("ms", "cpu_ms", "measuring_cpu_ms")
    }
    return {"name": "all", "count": count, **means}


def find_difference(
    objects: Sequence[ObjectScore], expected: Mapping[str, Sequence[Mapping[str, float]]]
) -> float:
    """The largest absolute difference of mean, recall and decay of J and F.

    expected: by sequence, the figures of each object, such as {"object": 1, "J_mean": 0.5, ...}.
    Raises ValueError where an object is expected that was not scored, or the other way round.
    """
    found = {(score.sequence, score.label): score for score in objects}
    wanted = {
        (name, int(figures["object"])): figures
        for name, several in expected.items()
        for figures in several
    }
    if found.keys() != wanted.keys():
        names = ", ".join(f"{name} {label}" for name, label in sorted({*found} ^ {*wanted}))
        raise ValueError(f"The objects scored and those expected are not the same: {names}.")
    differences = [
        abs(value - wanted[key][f"{letter}_{name}"])
        for key, score in found.items()
        for letter, part in (("J", score.region), ("F", score.boundary))
        for name, value in vars(part).items()
    ]
    return float(np.max(differences))  # NaN where one is


if __name__ == "__main__":
    sys.exit(main())
