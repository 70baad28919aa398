"""Score predicted masks with the measures of the DAVIS benchmark.

The official semi-supervised protocol of davis2017-evaluation: the first and the last frame are not
scored. DAVIS 2017: the objects are the labels of the first frame's annotation; 255 (void) is no
object, so those pixels count as background in the truth, as in the official code. DAVIS 2016: one
object, where the annotation is above 127 and where the prediction is not 0, so that a prediction
may hold 1 or 255 for it, or several labels; values on both sides of 127 are refused as soft.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import progressbar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.davis import at_480p
from datasets.predictions import (
    SequenceFiles,
    find_sequences,
    find_split,
    read_prediction,
    read_truth,
)
from util.images import read_image
from util.masks import labels_of
from util.metrics import evaluate_sequence, statistics
from util.report import (
    ObjectScore,
    Scores,
    format_table,
    write_global_csv,
    write_object_csv,
    write_scores_json,
)
from util.score_figures import draw_curves, draw_worst

MANY_FRAMES = 300  # fewer are scored before another process has started


class Measured(NamedTuple):
    """J and F of a sequence, (O, T) each, and what labels were met until an object's was."""

    region: np.ndarray
    boundary: np.ndarray
    seen: set[int]


def evaluate_davis(
    results_path: Path | str,
    davis_path: Path | str,
    year: int = 2017,
    split: str = "val",
    num_workers: int = 1,
) -> Scores:
    """Score the masks results_path/<sequence>/<frame>.png of all sequences of a split.

    num_workers: processes that score sequences side by side.
    davis_path: for 2017 the folder that holds `trainval`, or `trainval` itself; for 2016 the
    folder that holds `2016/Annotations` and `2017/trainval/ImageSets/2016`.
    Raises ValueError when something is missing, unreadable or of another size than its
    annotation; presence and size of all frames are checked before any is scored.
    """
    assert year in (2016, 2017)
    annotations, names = find_split(Path(davis_path), year, split)
    sequences = find_sequences(Path(results_path), annotations, names, year)
    return _summarise(sequences, _measure_all(sequences, year, num_workers))


def _measure_all(sequences: Sequence[SequenceFiles], year: int, num_workers: int) -> list[Measured]:
    """All sequences, in their order, with a progress bar of frames."""
    widgets = [
        *(progressbar.Percentage(), " ", progressbar.Bar(), " ", progressbar.ETA(), " "),
        progressbar.FileTransferSpeed(unit="frames", prefixes=("",)),
    ]
    num_frames = sum(len(sequence.truths) for sequence in sequences)
    with progressbar.ProgressBar(max_value=num_frames, widgets=widgets) as bar:
        if num_workers <= 1 or num_frames < MANY_FRAMES:
            return [_measure(sequence, year, bar) for sequence in sequences]
        # Started afresh: a process that was forked from one with threads may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(num_workers, len(sequences)), context) as pool:
            futures = {pool.submit(_measure, s, year): s for s in sequences}
            for future in as_completed(futures):
                future.result()
                bar.increment(len(futures[future].truths))
            return [future.result() for future in futures]


def _measure(
    sequence: SequenceFiles, year: int, bar: progressbar.ProgressBar | None = None
) -> Measured:
    seen: set[int] = set()
    predictions = _read_predictions(sequence, year, seen)
    truths = (read_truth(path, year) for path in sequence.truths)
    counted = predictions if bar is None else _count(predictions, bar)
    return Measured(*evaluate_sequence(counted, truths, sequence.labels), seen)


def _summarise(sequences: Sequence[SequenceFiles], measured: Sequence[Measured]) -> Scores:
    objects: list[ObjectScore] = []
    warnings: list[str] = []
    curves = {}
    for sequence, found in zip(sequences, measured, strict=True):
        for label, region, boundary in zip(sequence.labels, *found[:2], strict=True):
            score = ObjectScore(statistics(region), statistics(boundary), sequence.name, label)
            objects.append(score)
            curves[score.name] = (region, boundary)
        if found.seen and found.seen.isdisjoint(sequence.labels):
            warnings.append(_unknown_labels_warning(sequence, found.seen))
    frames = {s.name: tuple(path.stem for path in s.truths) for s in sequences}
    return Scores(tuple(objects), tuple(warnings), curves, frames)


def _read_predictions(sequence: SequenceFiles, year: int, seen: set[int]) -> Iterator[np.ndarray]:
    """Yield the label maps; add to `seen` the labels met, until one of them is an object's."""
    for path in sequence.predictions:
        labels = read_prediction(path, year)
        if seen.isdisjoint(sequence.labels):
            seen.update(labels_of(labels))
        yield labels


def _count(maps: Iterable[np.ndarray], bar: progressbar.ProgressBar) -> Iterator[np.ndarray]:
    for labels in maps:
        yield labels
        bar.increment()


def _unknown_labels_warning(sequence: SequenceFiles, seen: set[int]) -> str:
    return (
        f"The predictions of {sequence.name} in {sequence.predictions[0].parent} hold only the "
        f"labels {sorted(seen)}, none of the annotation's {list(sequence.labels)}, and count as "
        "empty; write the masks with the annotation's labels."
    )


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--results_path",
        type=Path,
        required=True,
        help="folder with <sequence>/<frame>.png, palette or grey",
    )
    parser.add_argument(
        "--davis_path",
        type=Path,
        required=True,
        help="2017: the folder with trainval in it, or trainval itself; 2016: the folder with "
        "2016/Annotations and 2017/trainval/ImageSets/2016",
    )
    parser.add_argument("--year", type=int, choices=(2016, 2017), default=2017)
    parser.add_argument("--split", default="val", help="name of the list in ImageSets")
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="write rows of objects, sequences and the whole here, instead of "
        "all_results-<split>.csv and the two official files in the results folder",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="also write all figures, those of every frame, and the settings of the run that made "
        "the masks",
    )
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="DIR",
        help="also draw J and F over the frames of each sequence, and worst.png, a contact sheet "
        "of the worst frames of the worst sequences (prediction above truth)",
    )
    parser.add_argument(
        "--num_workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes that score sequences side by side",
    )
    return parser.parse_args(argv)


def _write_csv(args: argparse.Namespace, scores: Scores) -> list[Path]:
    """Write the CSV files asked for and return their paths."""
    overall = args.results_path / f"global_results-{args.split}.csv"
    per_object = args.results_path / f"per-sequence_results-{args.split}.csv"
    everything = args.csv or args.results_path / f"all_results-{args.split}.csv"
    paths = [everything] if args.csv is not None else [everything, overall, per_object]
    try:
        write_object_csv(everything, scores, with_means=True)
        if args.csv is None:
            write_global_csv(overall, scores)
            write_object_csv(per_object, scores)
    except OSError as error:
        raise ValueError(
            f"The scores cannot be written to {paths[0]}: {error.strerror}; choose another place "
            "with --csv."
        ) from error
    return paths


def _draw(args: argparse.Namespace, scores: Scores) -> list[Path]:
    """Curves of all sequences, and their worst frames."""
    annotations, _ = find_split(args.davis_path, args.year, args.split)
    frames = at_480p(
        next(p for p in annotations.parents if (p / "JPEGImages").is_dir()) / "JPEGImages"
    )

    def read(sequence: str, frame: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image = read_image(next((frames / sequence).glob(f"{frame}.*")))
        predicted = read_prediction(args.results_path / sequence / f"{frame}.png", args.year)
        return image, predicted, read_truth(annotations / sequence / f"{frame}.png", args.year)

    worst = args.figures / "worst.png"
    draw_worst(scores, read, worst)
    return [worst, *draw_curves(scores, args.figures)]


def _read_run(results_path: Path) -> dict[str, Any]:
    """What an eval script noted of the run that made the masks, if one did."""
    try:
        runs = json.loads((results_path / "run.json").read_text())["runs"]
        return {"run": runs[-1]}
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return {"run": None}


def main(argv: list[str] | None = None) -> int:
    """Score and report; return the exit code: 0, or 2 for something the user can set right."""
    args = _parse_args(argv)
    started = time.perf_counter()
    try:
        scores = evaluate_davis(
            args.results_path, args.davis_path, args.year, args.split, args.num_workers
        )
        print(format_table(scores))
        for warning in scores.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        written = _write_csv(args, scores)
        if args.json is not None:
            write_scores_json(args.json, scores, _read_run(args.results_path))
            written.append(args.json)
        if args.figures is not None:
            drawn = _draw(args, scores)
            written.append(drawn[0])
    except StopIteration:
        print(f"error: {args.davis_path} lacks frames, which --figures draws on.", file=sys.stderr)
        return 2
    except (ValueError, FileNotFoundError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Scored {len(scores.objects)} objects in {time.perf_counter() - started:.1f} s.")
    worst = scores.worst_first[:3]
    if len(scores.sequences) > len(worst):
        print("Worst: " + ", ".join(f"{n} {scores.sequences[n].mean:.3f}" for n in worst) + ".")
    print("Saved " + " and ".join(map(str, written)) + ".")
    return 0


if __name__ == "__main__":
    sys.exit(main())
