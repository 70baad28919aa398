"""What is scored of which benchmark: DAVIS, YouTube-VOS, or any folder of annotations.

Outside DAVIS, an object is scored on every annotated frame after the first one that shows it, which
is the mask it was given by, up to the last. It may appear on any frame.
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

ANY_LABEL = range(1, 256)
# Where the training set's meta.json may be, in the folder of one year's YouTube-VOS.
TRAIN_METAS = ("train/meta.json", "train_480p/meta.json")


def find_split(davis_path: Path, year: int, split: str) -> tuple[Path, list[str]]:
    """The folder with Annotations in it, and the sequences of a split; see `select_davis`."""
    base, listing = find_2016(davis_path, split) if year == 2016 else find_2017(davis_path, split)
    return base, read_sequences(listing)


def select_davis(
    results_path: Path, davis_path: Path, year: int = 2017, split: str = "val", resize: bool = False
) -> Selection:
    """The official semi-supervised protocol: all frames but the first and the last.

    The masks are results_path/<sequence>/<frame>.png.

    Args:
        davis_path: for 2017 the folder that holds `trainval`, or `trainval` itself; for 2016 the
            folder that holds `2016/Annotations` and `2017/trainval/ImageSets/2016`.
        resize: predictions of another size than their annotation are not refused.

    Raises:
        FileNotFoundError, ValueError: all that is missing, unreadable or of another size; from the
            files' headers, before any mask but the first annotations is decoded.
    """
    base, names = find_split(davis_path, year, split)
    annotations, images = at_480p(base / "Annotations"), at_480p(base / "JPEGImages")
    convention = Convention(year)
    found: list[SequenceFiles] = []
    problems: list[str] = []
    for name in names:
        annotated = list_masks(annotations / name)
        if len(annotated) < 3:
            problems.append(
                f"{annotations / name} holds {len(annotated)} annotated frames; scoring needs 3 or "
                "more, since the first and the last are not scored."
            )
            continue
        labels = [1] if year == 2016 else _read_objects(annotated[0], convention)
        if not labels:
            problems.append(
                f"The annotation {annotated[0]} holds no object; the objects to score are those of "
                "a sequence's first frame."
            )
            continue
        files = _pair(name, labels, annotated[1:-1], results_path / name, convention)
        found.append(replace(files, images=images / name))
    return _check(results_path, found, problems, [], resize)


def select_folders(
    results_path: Path,
    ground_truth_path: Path,
    image_path: Path | None = None,
    resize: bool = False,
) -> Selection:
    """Any annotations: ground_truth_path/<sequence>/<frame>.png, or those of one sequence right in it.

    The masks, and the images that pictures of scores are drawn on, stand likewise in results_path
    and image_path. Frames without an annotation are not scored. 255 is an object where a sequence
    has no other.

    Raises:
        ValueError: as `select_davis`; there is nothing to score.
    """
    if not ground_truth_path.is_dir():
        raise ValueError(
            f"The folder {ground_truth_path} does not exist: give --ground_truth_path annotations."
        )
    folders = sorted(
        (
            path.name
            for path in ground_truth_path.iterdir()
            if path.is_dir() and path.name[0] != "."
        ),
        key=natural_key,
    )
    annotated = {name: list_masks(ground_truth_path / name) for name in folders}
    places = {name: name for name in folders}
    if direct := list_masks(ground_truth_path):
        if any(annotated.values()):
            raise ValueError(
                f"{ground_truth_path} holds masks ({direct[0].name}) beside folders of masks: give the "
                "folder of one sequence, or one with a folder for each."
            )
        name = Path(os.path.abspath(ground_truth_path)).name
        annotated, places = {name: direct}, {name: ""}
    found: list[SequenceFiles] = []
    warnings: list[str] = []
    for name, place in places.items():
        files = _select_given(name, annotated[name], results_path / place, ANY_LABEL)
        if files is None:
            warnings.append(_left_out(name, ground_truth_path / place))
        else:
            found.append(replace(files, images=image_path and image_path / place))
    if not found:
        raise ValueError(
            f"Nothing in {ground_truth_path} can be scored: it needs PNG masks, in it or in a folder for "
            "each sequence, and a sequence an annotated frame after the first that shows an object."
        )
    return _check(results_path, found, [], warnings, resize)


def select_youtube(
    results_path: Path,
    yv_path: Path,
    split: str = "valid",
    train_meta: Path | None = None,
    resize: bool = False,
) -> Selection:
    """YouTube-VOS: the objects of yv_path/<split>/meta.json, on the frames that it names.

    The annotations are yv_path/<split>/Annotations/<video>/<frame>.png.

    Args:
        train_meta: the training set's meta.json, which tells seen categories from unseen ones;
            None: one of `TRAIN_METAS`.

    Raises:
        FileNotFoundError, ValueError: as `select_davis`; there are no annotations but those that
            the objects are given by; there is no training set's meta.json.
    """
    meta_path = yv_path / split / "meta.json"
    videos = read_meta(meta_path)
    annotations = yv_path / split / "Annotations"
    images = yv_path / split / "JPEGImages"
    if not images.is_dir():
        images = yv_path / "all_frames" / f"{split}_all_frames" / "JPEGImages"
    found: list[SequenceFiles] = []
    problems: list[str] = []
    warnings: list[str] = []
    for name, objects in sorted(videos.items()):
        unfit = [label for label, item in objects.items() if not _is_fit(label, item)]
        if unfit:
            problems.append(
                f"{meta_path} names object {', '.join(unfit)} of video {name}, which has no "
                "category or no label from 1 to 255."
            )
            continue
        labels = {int(label): item for label, item in objects.items()}
        wanted = _drop_given(list_masks(annotations / name), labels.values())
        files = _select_given(name, wanted, results_path / name, labels)
        if files is None:
            warnings.append(_left_out(name, annotations / name))
            continue
        found.append(replace(files, images=images / name if images.is_dir() else None))
    if not found and not problems:
        raise ValueError(
            f"Nothing in {annotations} can be scored: it holds the masks that the objects are "
            "given by and no others, as the public sets do. The benchmark's server has the others: "
            "scripts/make_submission.py packs masks for it."
        )
    seen = _read_categories(yv_path, train_meta)
    with_categories = [
        replace(
            files,
            is_seen={int(label): o.category in seen for label, o in videos[files.name].items()},
        )
        for files in found
    ]
    return _check(results_path, with_categories, problems, warnings, resize)


def _is_fit(label: str, item: MetaObject) -> bool:
    return bool(item.category) and label.isdecimal() and int(label) in ANY_LABEL


def _read_categories(yv_path: Path, train_meta: Path | None) -> set[str]:
    """The categories of the training set."""
    candidates = [yv_path / name for name in TRAIN_METAS] if train_meta is None else [train_meta]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise ValueError(
            f"The training set's meta.json, which tells seen categories from unseen ones, is not "
            f"{' or '.join(map(str, candidates))}: give it with --train_meta."
        )
    return {item.category for objects in read_meta(path).values() for item in objects.values()}


def _drop_given(annotated: Sequence[Path], objects: Collection[MetaObject]) -> list[Path]:
    """The annotated frames that meta.json names; none where all are objects' first frames.

    A public set's later masks show new objects alone: known ones are not to be scored on them.
    """
    named = {frame for item in objects for frame in item.frames}
    first = {min(item.frames, key=natural_key) for item in objects if item.frames}
    wanted = [path for path in annotated if path.stem in named]
    return [] if {path.stem for path in wanted} <= first else wanted


def _select_given(
    name: str, annotated: Sequence[Path], folder: Path, wanted: Collection[int]
) -> SequenceFiles | None:
    """A sequence from the first annotation after one that shows a wanted label; None: no such."""
    for index, path in enumerate(annotated[:-1]):
        labels = [
            label
            for label in labels_of(read_ground_truth(path, Convention.GIVEN))
            if label in wanted
        ]
        if labels:
            files = _pair(name, labels, annotated[index + 1 :], folder, Convention.GIVEN)
            return replace(files, later=wanted)
    return None


def _left_out(name: str, folder: Path) -> str:
    return (
        f"Sequence {name} is left out: {folder} holds no annotated frame after the first that "
        "shows an object."
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
    # The suffixes of the two may differ: .png and .PNG.
    masks = {path.stem: path for path in list_masks(folder)}
    predictions = tuple(masks.get(path.stem, folder / f"{path.stem}.png") for path in ground_truths)
    return SequenceFiles(name, tuple(labels), predictions, tuple(ground_truths), convention)


def _check(
    results_path: Path,
    found: Sequence[SequenceFiles],
    problems: Sequence[str],
    warnings: Sequence[str],
    resize: bool,
) -> Selection:
    """Check all files, and refuse what cannot be scored, everything at once."""
    if not results_path.is_dir():
        raise ValueError(
            f"The results folder {results_path} does not exist; give --results_path the folder "
            "with a folder of PNG masks for each sequence."
        )
    problems, warnings = [*problems], [*warnings]
    for files in found:
        faults, notes = check_predictions(files, resize)
        problems += faults
        warnings += notes
    if problems:
        raise ProblemsError(problems)
    return Selection(tuple(found), tuple(warnings))
