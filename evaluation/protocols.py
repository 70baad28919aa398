"""Objects and frames to score: DAVIS, YouTube-VOS, or any folder of ground-truth masks.

Outside DAVIS, an object may appear on any frame. The first ground-truth mask that shows it is its
annotation. The object is scored on all later frames with ground truth, including the last one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from datasets.davis import at_480p, find_2016, find_2017, read_sequences
from datasets.video import ProblemsError
from datasets.youtube import MetaObject, read_meta
from evaluation.predictions import (
    VOID,
    Convention,
    Selection,
    SequenceFiles,
    check_predictions,
    list_masks,
    read_ground_truth,
)
from util.images import natural_key
from util.masks import labels_of

ALL_LABELS = range(1, 256)
# Places of the training set's meta.json, relative to --yv_path.
TRAIN_META_FILES = ("train/meta.json", "train_480p/meta.json")


def find_split(davis_path: Path, year: int, split: str) -> tuple[Path, list[str]]:
    """Find the folder that contains Annotations, and the sequences of a split of DAVIS.

    The arguments and errors are those of `select_davis`.
    """
    base, listing = find_2016(davis_path, split) if year == 2016 else find_2017(davis_path, split)
    return base, read_sequences(listing)


def select_davis(
    results_path: Path, davis_path: Path, year: int = 2017, split: str = "val", resize: bool = False
) -> Selection:
    """Select the frames of the official semi-supervised protocol: all but the first and the last.

    Predictions are results_path/<sequence>/<frame>.png. Only file headers and the annotations of
    the first frames are read.

    Args:
        davis_path: folder of the dataset. 2017: contains `trainval`, or is `trainval` itself. 2016:
            contains `2016/Annotations` and `2017/trainval/ImageSets/2016`.
        resize: accept predictions of another size than their ground truth.

    Raises:
        FileNotFoundError: a folder or the list of sequences is missing.
        ValueError: files are missing, unreadable or of another size. Names all of them.
    """
    base, names = find_split(davis_path, year, split)
    annotations, images = at_480p(base / "Annotations"), at_480p(base / "JPEGImages")
    convention = Convention(year)
    sequences: list[SequenceFiles] = []
    problems: list[str] = []
    for name in names:
        masks = list_masks(annotations / name)
        if len(masks) < 3:
            problems.append(
                f"{annotations / name} has {len(masks)} ground-truth masks, but scoring needs at "
                "least 3, because the first and the last frame are not scored."
            )
            continue
        labels = [1] if year == 2016 else _read_objects(masks[0], convention)
        if not labels:
            problems.append(
                f"The annotation {masks[0]} shows no object: the objects to score are those of "
                "the first frame."
            )
            continue
        files = _pair(name, labels, masks[1:-1], results_path / name, convention)
        sequences.append(replace(files, image_folder=images / name))
    return _check(results_path, sequences, problems, [], resize)


def select_folders(
    results_path: Path,
    ground_truth_path: Path,
    image_path: Path | None = None,
    resize: bool = False,
) -> Selection:
    """Select all frames with ground truth, ground_truth_path/<sequence>/<frame>.png.

    The masks of a single sequence may also be directly in ground_truth_path. results_path and
    image_path have the same layout. Frames without ground truth are not scored. 255 is an object if
    a sequence has no other object.

    Args:
        image_path: images for the contact sheet; None if there are none.
        resize: accept predictions of another size than their ground truth.

    Raises:
        ValueError: as `select_davis`; or no object can be scored.
    """
    if not ground_truth_path.is_dir():
        raise ValueError(
            f"The folder {ground_truth_path} does not exist: pass a folder of ground-truth masks "
            "to --ground_truth_path."
        )
    folders = sorted(
        (
            path.name
            for path in ground_truth_path.iterdir()
            if path.is_dir() and path.name[0] != "."
        ),
        key=natural_key,
    )
    masks = {name: list_masks(ground_truth_path / name) for name in folders}
    subfolders = {name: name for name in folders}
    if direct := list_masks(ground_truth_path):
        if any(masks.values()):
            raise ValueError(
                f"{ground_truth_path} contains both masks ({direct[0].name}) and folders of masks: "
                "pass the folder of one sequence, or a folder with one folder per sequence."
            )
        name = Path(os.path.abspath(ground_truth_path)).name
        masks, subfolders = {name: direct}, {name: ""}
    sequences: list[SequenceFiles] = []
    warnings: list[str] = []
    for name, subfolder in subfolders.items():
        files = _select_after_annotation(name, masks[name], results_path / subfolder, ALL_LABELS)
        if files is None:
            warnings.append(_describe_skipped(name, ground_truth_path / subfolder))
        else:
            sequences.append(replace(files, image_folder=image_path and image_path / subfolder))
    if not sequences:
        raise ValueError(
            f"{ground_truth_path} has nothing to score: it needs PNG masks, directly or in one "
            "folder per sequence, and a mask after the first one that shows an object."
        )
    return _check(results_path, sequences, [], warnings, resize)


def select_youtube(
    results_path: Path,
    yv_path: Path,
    split: str = "valid",
    train_meta: Path | None = None,
    resize: bool = False,
) -> Selection:
    """Select the objects and frames listed in yv_path/<split>/meta.json of YouTube-VOS.

    Ground truth is yv_path/<split>/Annotations/<video>/<frame>.png, or in the folder Annotations
    beside the images of all frames, if there is one. Predictions are
    results_path/<video>/<frame>.png.

    Args:
        train_meta: meta.json of the training set, whose categories are the seen ones; None for the
            first of `TRAIN_META_FILES` that exists.
        resize: accept predictions of another size than their ground truth.

    Raises:
        FileNotFoundError, ValueError: as `select_davis`; or there is no ground truth except the
            annotations of the objects; or the training set's meta.json is missing.
    """
    meta_path = yv_path / split / "meta.json"
    videos = read_meta(meta_path)
    all_frames = yv_path / "all_frames" / f"{split}_all_frames"
    annotations, images = (
        next((p for p in folders if p.is_dir()), folders[-1])
        for folders in (
            (all_frames / "Annotations", yv_path / split / "Annotations"),
            (yv_path / split / "JPEGImages", all_frames / "JPEGImages"),
        )
    )
    sequences: list[SequenceFiles] = []
    problems: list[str] = []
    warnings: list[str] = []
    for name, objects in sorted(videos.items()):
        invalid = [label for label, item in objects.items() if not _is_valid(label, item)]
        if invalid:
            problems.append(
                f"{meta_path} lists object {', '.join(invalid)} of video {name} without a category "
                "or without a label from 1 to 255."
            )
            continue
        labels = {int(label): item for label, item in objects.items()}
        masks = _select_listed(list_masks(annotations / name), labels.values())
        files = _select_after_annotation(name, masks, results_path / name, labels)
        if files is None:
            warnings.append(_describe_skipped(name, annotations / name))
            continue
        image_folder = images / name if images.is_dir() else None
        sequences.append(replace(files, image_folder=image_folder))
    if not sequences and not problems:
        raise ValueError(
            f"{annotations} has nothing to score: like the public sets, it contains only the "
            "annotations of the objects. Only the benchmark's server has the ground truth: pack "
            "the masks for it with scripts/make_submission.py."
        )
    seen = _read_categories(yv_path, train_meta)
    with_categories = [
        replace(
            files,
            is_seen={int(label): o.category in seen for label, o in videos[files.name].items()},
        )
        for files in sequences
    ]
    return _check(results_path, with_categories, problems, warnings, resize)


def _is_valid(label: str, item: MetaObject) -> bool:
    return bool(item.category) and label.isdecimal() and int(label) in ALL_LABELS


def _read_categories(yv_path: Path, train_meta: Path | None) -> set[str]:
    """Read the categories of the training set."""
    candidates = [train_meta] if train_meta else [yv_path / name for name in TRAIN_META_FILES]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise ValueError(
            "The training set's meta.json, which lists the seen categories, does not exist at "
            f"{' or '.join(map(str, candidates))}: give its path with --train_meta."
        )
    return {item.category for objects in read_meta(path).values() for item in objects.values()}


def _select_listed(masks: Sequence[Path], objects: Collection[MetaObject]) -> list[Path]:
    """Select the ground-truth masks of frames in meta.json.

    Return none if each of them is the annotation of an object, as in the public sets. There, later
    masks show only the new objects, so earlier objects cannot be scored on them.
    """
    listed = {frame for item in objects for frame in item.frames}
    first = {min(item.frames, key=natural_key) for item in objects if item.frames}
    selected = [path for path in masks if path.stem in listed]
    return [] if {path.stem for path in selected} <= first else selected


def _select_after_annotation(
    name: str, masks: Sequence[Path], folder: Path, objects: Collection[int]
) -> SequenceFiles | None:
    """Select the frames after the first ground-truth mask that shows one of `objects`.

    folder: the sequence's predictions. Returns None if there is no frame to score.
    """
    for index, path in enumerate(masks[:-1]):
        labels = [
            label
            for label in labels_of(read_ground_truth(path, Convention.LABELS))
            if label in objects
        ]
        if labels:
            files = _pair(name, labels, masks[index + 1 :], folder, Convention.LABELS)
            return replace(files, later_labels=objects)
    return None


def _describe_skipped(name: str, folder: Path) -> str:
    return (
        f"Sequence {name} is not scored: {folder} has no ground-truth mask after the first one "
        "that shows an object."
    )


def _read_objects(path: Path, convention: Convention) -> list[int]:
    return [label for label in labels_of(read_ground_truth(path, convention)) if label != VOID]


def _pair(
    name: str,
    labels: Iterable[int],
    ground_truths: Sequence[Path],
    folder: Path,
    convention: Convention,
) -> SequenceFiles:
    """Pair each ground-truth mask with the prediction of the same stem in `folder`."""
    # Suffixes may differ: .png and .PNG.
    masks = {path.stem: path for path in list_masks(folder)}
    predictions = tuple(masks.get(path.stem, folder / f"{path.stem}.png") for path in ground_truths)
    return SequenceFiles(name, tuple(labels), predictions, tuple(ground_truths), convention)


def _check(
    results_path: Path,
    sequences: Sequence[SequenceFiles],
    problems: Sequence[str],
    warnings: Sequence[str],
    resize: bool,
) -> Selection:
    """Check the files of all sequences; raise ProblemsError with all problems."""
    if not results_path.is_dir():
        raise ValueError(
            f"The results folder {results_path} does not exist: pass a folder with one folder of "
            "PNG masks per sequence to --results_path."
        )
    problems, warnings = [*problems], [*warnings]
    for files in sequences:
        file_problems, file_warnings = check_predictions(files, resize)
        problems += file_problems
        warnings += file_warnings
    if problems:
        raise ProblemsError(problems)
    return Selection(tuple(sequences), tuple(warnings))
