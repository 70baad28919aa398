"""The scores of predicted masks: sequences measured side by side, then put together."""

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

MANY_FRAMES = 300  # fewer are scored before another process has started


class Measured(NamedTuple):
    """What was found in one sequence.

    curves: by label, (2, T): J and F on each frame; NaN where the object is not scored.
    met: labels of objects that the annotations show.
    predicted: labels that the predictions show; once all the objects' are met, no further ones.
    """

    curves: dict[int, np.ndarray]
    met: list[int]
    predicted: set[int]


def score(selection: Selection, num_workers: int = 1) -> Scores:
    """Score all sequences, with a progress bar.

    num_workers: processes that score sequences side by side.
    Raises ValueError for a mask that cannot be read, and where no object is left to score.
    """
    return _summarise(selection, _measure_all(selection.sequences, num_workers))


def _measure_all(sequences: Sequence[SequenceFiles], num_workers: int) -> list[Measured]:
    """All sequences, in their order."""
    widgets = [
        *(progressbar.Percentage(), " ", progressbar.Bar(), " ", progressbar.ETA(), " "),
        progressbar.FileTransferSpeed(unit="frames", prefixes=("",)),
    ]
    num_frames = sum(len(sequence) for sequence in sequences)
    with progressbar.ProgressBar(max_value=num_frames, widgets=widgets) as bar:
        if num_workers <= 1 or num_frames < MANY_FRAMES:
            return [_measure(sequence, bar) for sequence in sequences]
        # Started afresh: a process that was forked from one with threads may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(num_workers, len(sequences)), context) as pool:
            futures = {pool.submit(_measure, sequence): sequence for sequence in sequences}
            try:
                for future in as_completed(futures):
                    future.result()
                    bar.increment(len(futures[future]))
            except BaseException:
                pool.shutdown(cancel_futures=True)  # not to go on with the others for minutes
                raise
            return [future.result() for future in futures]


def _measure(sequence: SequenceFiles, bar: progressbar.ProgressBar | None = None) -> Measured:
    # glibc gives arrays of a mask's size back to the system, to get them page by page again, until
    # a larger block was freed. It then keeps them: a fifth of the time at 480p.
    np.empty(2**24, np.uint8)
    num_frames = len(sequence)
    objects = [*sequence.labels]
    curves: dict[int, np.ndarray] = {}
    predicted: set[int] = set()
    for index, (prediction, ground_truth) in enumerate(prefetch(sequence)):
        if not predicted.issuperset(objects):
            predicted.update(labels_of(prediction))
        measures = evaluate_frame(prediction, ground_truth, objects)
        for label, values in zip(objects, measures, strict=True):
            if label not in curves:
                curves[label] = np.full((2, num_frames), np.nan)
            curves[label][:, index] = values
        if sequence.later:
            new = {*labels_of(ground_truth)} - {*objects}
            objects += [label for label in sorted(new) if label in sequence.later]
        if bar is not None:
            bar.increment()
    if sequence.convention is Convention.GIVEN and len(objects) > 1 and VOID in objects:
        objects.remove(VOID)
        curves.pop(VOID, None)
    return Measured(dict(sorted(curves.items())), objects, predicted)


def _summarise(selection: Selection, measured: Sequence[Measured]) -> Scores:
    objects: list[ObjectScore] = []
    warnings = [*selection.warnings]
    curves = {}
    frames = {}
    for sequence, found in zip(selection.sequences, measured, strict=True):
        for label, (region, boundary) in found.curves.items():
            is_seen = sequence.is_seen.get(label)
            parts = statistics(region), statistics(boundary)
            objects.append(ObjectScore(*parts, sequence.name, label, is_seen))
            curves[objects[-1].name] = (region, boundary)
        if found.curves:
            frames[sequence.name] = tuple(path.stem for path in sequence.ground_truths)
        warnings += _find_oddities(sequence, found)
    if not objects:
        raise ValueError("\n- ".join(["Nothing can be scored:", *warnings]))
    return Scores(tuple(objects), tuple(warnings), curves, frames)


def _find_oddities(sequence: SequenceFiles, found: Measured) -> list[str]:
    """Sentences on objects that are not scored, and on those that no prediction shows."""
    name, folder = sequence.name, sequence.predictions[0].parent
    warnings = []
    left_out = sorted({*found.met, *sequence.is_seen} - found.curves.keys())
    if left_out:
        warnings.append(
            f"The labels {left_out} of {name} are left out: no annotated frame follows one that "
            "shows them."
        )
    absent = sorted(found.curves.keys() - found.predicted)
    if found.predicted and found.predicted.isdisjoint(found.curves):
        warnings.append(
            f"The predictions of {name} in {folder} hold only the labels "
            f"{sorted(found.predicted)}, none of the annotation's {[*found.curves]}, and count as "
            "empty; write the masks with the annotation's labels."
        )
    elif absent:
        warnings.append(
            f"The predictions of {name} in {folder} never show the labels {absent}, which count "
            "as empty."
        )
    return warnings
