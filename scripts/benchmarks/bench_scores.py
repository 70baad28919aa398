"""Measure the time of scoring one object on one frame, in one process, as scripts/evaluate.py does.

    python scripts/benchmarks/bench_scores.py --davis_path data/DAVIS

The predictions are the annotations of three frames before. The script scores DAVIS 2016 and 2017,
if they are present. Each time is the minimum of several runs, of which the first one fills the
disk cache. The table has wall-clock time and processor time, which depends less on other programs.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.shared.paths import output_file
from util.command_line import script_parser

TOLERANCE = 1e-6


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument(
        "--davis_path", type=Path, required=True, help="folder that contains 2016, 2017 or both"
    )
    parser.add_argument(
        "--split", default="val", help="name of the list in ImageSets (default: val)"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=5,
        help="number of runs; the fastest is reported (default: 5)",
    )
    parser.add_argument(
        "--expected",
        type=Path,
        metavar="FILE",
        help="JSON file with the expected scores of these predictions; exit with status 1 if a "
        f"score differs by more than {TOLERANCE:g}",
    )
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="also write the results here"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import numpy as np

from datasets.davis import at_480p, find_2017
from evaluation.metrics import evaluate_frame
from evaluation.predictions import Selection, list_masks
from evaluation.protocols import find_split, select_davis
from evaluation.report import ObjectScore, Scores
from evaluation.scoring import score
from util.files import write_json

DELAY = 3  # frames


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a table.

    Returns:
        The exit status: 0, 1 if scores differ from the expected ones, or 2 for wrong input.
    """
    arguments = parse(argv)
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
            content["rows"].append(average(content["rows"]))
        print("ms per object and frame:      reading and measuring   measuring alone")
        print("            object-frames     wall    processor          processor")
        for row in content["rows"]:
            print(
                f"{row['name']:12}{row['count']:13}{row['ms']:9.2f}{row['cpu_ms']:13.2f}"
                f"{row['measuring_cpu_ms']:19.2f}"
            )
        if arguments.expected is not None:
            expected = json.loads(arguments.expected.read_text())["sequences"]
            content["difference"] = find_difference(objects, expected)
            print(f"largest difference from {arguments.expected}: {content['difference']:.2g}")
        if arguments.json is not None:
            write_json(arguments.json, content)
    except KeyError as error:
        print(f"error: {arguments.expected} lacks {error}.", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if content.get("difference", 0) <= TOLERANCE else 1


def find_years(davis_path: Path, split: str) -> list[int]:
    """List the editions of DAVIS in a folder.

    Raises:
        FileNotFoundError: the folder contains neither edition.
    """
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
    """Measure milliseconds per object and frame.

    Args:
        results: folder to write the predictions to.

    Returns:
        A row of the table, and the scores.
    """
    link_delayed(davis_path, year, split, results)
    wall, processor, measuring = [], [], []
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        selection = select_davis(results, davis_path, year, split)
        scores = score(selection)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_cpu)
        measuring.append(time_measuring(selection))
    count = sum(region.size for region, _ in scores.curves.values())
    times = {"ms": wall, "cpu_ms": processor, "measuring_cpu_ms": measuring}
    per_object = {name: 1000 * min(seconds) / count for name, seconds in times.items()}
    return {"name": f"DAVIS {year}", "count": count, **per_object}, scores


def link_delayed(davis_path: Path, year: int, split: str, results: Path) -> None:
    """Link the annotation of frame max(t - 3, 0) as the prediction of frame t in each sequence."""
    base, names = find_split(davis_path, year, split)
    for name in names:
        annotated = list_masks(at_480p(base / "Annotations") / name)
        (results / name).mkdir(parents=True)
        for index, path in enumerate(annotated):
            earlier = annotated[max(index - DELAY, 0)]
            (results / name / path.name).symlink_to(earlier.absolute())


def time_measuring(selection: Selection) -> float:
    """Processor seconds of J and F of all objects and frames, without reading."""
    seconds = 0.0
    for sequence in selection.sequences:
        for index in range(len(sequence)):
            maps = sequence[index]
            start = time.process_time()
            evaluate_frame(*maps, sequence.labels)
            seconds += time.process_time() - start
    return seconds


def average(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average rows, weighted by their counts."""
    count = sum(row["count"] for row in rows)
    means = {
        name: sum(row[name] * row["count"] for row in rows) / count
        for name in ("ms", "cpu_ms", "measuring_cpu_ms")
    }
    return {"name": "all", "count": count, **means}


def find_difference(
    objects: Sequence[ObjectScore], expected: Mapping[str, Sequence[Mapping[str, float]]]
) -> float:
    """Return the largest absolute difference of mean, recall and decay of J and F.

    Args:
        expected: sequence -> scores of each object, such as {"object": 1, "J_mean": 0.5, ...}.

    Raises:
        ValueError: the objects are not the same.
        KeyError: a score is missing in `expected`.
    """
    computed = {(score.sequence, score.label): score for score in objects}
    reference = {
        (name, int(values["object"])): values
        for name, of_objects in expected.items()
        for values in of_objects
    }
    if computed.keys() != reference.keys():
        names = ", ".join(f"{name} {label}" for name, label in sorted({*computed} ^ {*reference}))
        raise ValueError(f"The scored and the expected objects are not the same: {names}.")
    differences = [
        abs(value - reference[key][f"{letter}_{name}"])
        for key, score in computed.items()
        for letter, part in (("J", score.region), ("F", score.boundary))
        for name, value in vars(part).items()
    ]
    return float(np.max(differences))  # NaN if a difference is NaN


if __name__ == "__main__":
    sys.exit(main())
