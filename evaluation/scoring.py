"""Scores of predicted masks, computed by several processes in parallel."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import NamedTuple

import numpy as np
import progressbar

from evaluation.metrics import evaluate_frame, statistics
from evaluation.predictions import VOID, Convention, Selection, SequenceFiles
from evaluation.report import ObjectScore, Scores
from util.frames import prefetch
from util.masks import labels_of

MIN_FRAMES_FOR_PROCESSES = 300  # below this number, one process is faster than starting several


class SequenceResult(NamedTuple):
    """Scores of one sequence.

    curves: label -> (2, T), J and F of each frame; NaN where the object is not scored.
    labels: objects that the ground truth shows.
    predicted: labels that the predictions show.
    """

    curves: dict[int, np.ndarray]
    labels: list[int]
    predicted: set[int]


def score(selection: Selection, num_workers: int = 1) -> Scores:
    """Score all sequences and show a progress bar.

    num_workers: number of processes; each scores one sequence at a time.

    Raises ValueError if a mask cannot be read or if there is no object to score.
    """
    return _summarise(selection, _score_sequences(selection.sequences, num_workers))


def _score_sequences(sequences: Sequence[SequenceFiles], num_workers: int) -> list[SequenceResult]:
    widgets = [
        *(progressbar.Percentage(), " ", progressbar.Bar(), " ", progressbar.ETA(), " "),
        progressbar.FileTransferSpeed(unit="frames", prefixes=("",)),
    ]
    num_frames = sum(len(sequence) for sequence in sequences)
    with progressbar.ProgressBar(max_value=num_frames, widgets=widgets) as bar:
        if num_workers <= 1 or num_frames < MIN_FRAMES_FOR_PROCESSES:
            return [_score_sequence(sequence, bar) for sequence in sequences]
        # A process forked from one with threads may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(num_workers, len(sequences)), context) as pool:
            futures = {pool.submit(_score_sequence, sequence): sequence for sequence in sequences}
            try:
                for future in as_completed(futures):
                    future.result()
                    bar.increment(len(futures[future]))
            except BaseException:
                pool.shutdown(cancel_futures=True)  # the others can take minutes
                raise
            return [future.result() for future in futures]


def _score_sequence(
    sequence: SequenceFiles, bar: progressbar.ProgressBar | None = None
) -> SequenceResult:
    # glibc returns freed arrays of a mask's size to the system until a larger block was freed.
    # Freeing one here saves a fifth of the time at 480p.
    np.empty(2**24, np.uint8)
    num_frames = len(sequence)
    objects = [*sequence.labels]
    curves: dict[int, np.ndarray] = {}
    predicted: set[int] = set()
    for index, (prediction, ground_truth) in enumerate(prefetch(sequence)):
        predicted.update(labels_of(prediction))
        frame_scores = evaluate_frame(prediction, ground_truth, objects)
        for label, values in zip(objects, frame_scores, strict=True):
            if label not in curves:
                curves[label] = np.full((2, num_frames), np.nan)
            curves[label][:, index] = values
        if sequence.later_labels:
            new = {*labels_of(ground_truth)} - {*objects}
            objects += [label for label in sorted(new) if label in sequence.later_labels]
        if bar is not None:
            bar.increment()
    if sequence.convention is Convention.LABELS and len(objects) > 1 and VOID in objects:
        objects.remove(VOID)
        curves.pop(VOID, None)
    return SequenceResult(dict(sorted(curves.items())), objects, predicted)


def _summarise(selection: Selection, results: Sequence[SequenceResult]) -> Scores:
    objects: list[ObjectScore] = []
    warnings = [*selection.warnings]
    curves = {}
    frames = {}
    for sequence, result in zip(selection.sequences, results, strict=True):
        for label, (region, boundary) in result.curves.items():
            is_seen = sequence.is_seen.get(label)
            parts = statistics(region), statistics(boundary)
            objects.append(ObjectScore(*parts, sequence.name, label, is_seen))
            curves[objects[-1].name] = (region, boundary)
        if result.curves:
            frames[sequence.name] = tuple(path.stem for path in sequence.ground_truths)
        warnings += _list_warnings(sequence, result)
    if not objects:
        raise ValueError("\n- ".join(["There is no object to score:", *warnings]))
    return Scores(tuple(objects), tuple(warnings), curves, frames)


def _list_warnings(sequence: SequenceFiles, result: SequenceResult) -> list[str]:
    """Warn about labels that only the ground truth or only the predictions show."""
    name, folder = sequence.name, sequence.predictions[0].parent
    warnings = []
    known = {*result.labels, *sequence.is_seen}
    not_scored = sorted(known - result.curves.keys())
    if not_scored:
        warnings.append(
            f"The labels {not_scored} of {name} are not scored: there is no ground-truth mask "
            "after the first one that shows them."
        )
    absent = sorted(result.curves.keys() - result.predicted)
    if result.predicted and result.predicted.isdisjoint(result.curves):
        warnings.append(
            f"The predictions of {name} in {folder} contain only the labels "
            f"{sorted(result.predicted)}, none of the ground truth's {[*result.curves]}, and count "
            "as empty: write the masks with the labels of the ground truth."
        )
        return warnings
    if absent:
        warnings.append(
            f"The predictions of {name} in {folder} never contain the labels {absent}, which count "
            "as empty."
        )
    if extra := sorted(result.predicted - known):
        warnings.append(
            f"The predictions of {name} in {folder} contain the labels {extra}, which the ground "
            "truth does not have: they count as background."
        )
    return warnings
