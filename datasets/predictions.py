"""Predicted masks beside DAVIS' annotations: which files are scored, and reading both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.davis import at_480p, find_2016, find_2017, read_sequences
from util.masks import labels_of

BACKGROUND = 0
VOID = 255
MAX_PROBLEMS = 10


@dataclass(frozen=True)
class SequenceFiles:
    """What is scored of one sequence: its objects' labels and the two masks of each frame."""

    name: str
    labels: tuple[int, ...]
    predictions: tuple[Path, ...]
    truths: tuple[Path, ...]


def find_split(davis_path: Path, year: int, split: str) -> tuple[Path, list[str]]:
    """Return the folder of the annotations and the names of the split's sequences."""
    base, listing = find_2016(davis_path, split) if year == 2016 else find_2017(davis_path, split)
    return at_480p(base / "Annotations"), list(dict.fromkeys(read_sequences(listing)))


def find_sequences(
    results_path: Path, annotations: Path, names: Sequence[str], year: int
) -> list[SequenceFiles]:
    """Pair the scored frames with their predictions, or raise ValueError with what is wrong."""
    if not results_path.is_dir():
        raise ValueError(
            f"The results folder {results_path} does not exist; give --results_path the folder "
            "with a folder of PNG masks for each sequence."
        )
    problems: list[str] = []
    annotated: dict[str, list[Path]] = {}
    for name in names:
        annotated[name] = sorted((annotations / name).glob("*.png"))
        problems += _find_problems(annotations / name, annotated[name], results_path / name)
    if problems:
        lines = problems[:MAX_PROBLEMS]
        if len(problems) > len(lines):
            lines.append(f"and {len(problems) - len(lines)} more")
        raise ValueError("\n  ".join(["The predictions cannot be scored:", *lines]))
    return [
        SequenceFiles(
            name=name,
            labels=(1,) if year == 2016 else _object_labels(frames[0]),
            predictions=tuple(results_path / name / frame.name for frame in frames[1:-1]),
            truths=tuple(frames[1:-1]),
        )
        for name, frames in annotated.items()
    ]


def _find_problems(annotation_folder: Path, annotated: list[Path], folder: Path) -> list[str]:
    """Return a sentence for each kind of fault that keeps a sequence from being scored."""
    if len(annotated) < 3:
        return [
            f"{annotation_folder} holds {len(annotated)} annotated frames; scoring needs 3 or "
            "more, since the first and the last are not scored."
        ]
    if not folder.is_dir():
        return [f"{folder} is missing: there are no predictions for this sequence."]
    missing: list[str] = []
    unreadable: list[str] = []
    misfit: list[str] = []
    for truth in annotated[1:-1]:
        prediction = folder / truth.name
        if not prediction.is_file():
            missing.append(f"{prediction} is missing")
            continue
        try:
            size, true_size = _image_size(prediction), _image_size(truth)
        except ValueError as error:
            unreadable.append(str(error))
            continue
        if size != true_size:
            misfit.append(
                f"{prediction} is {size[0]}x{size[1]} pixels, its annotation "
                f"{true_size[0]}x{true_size[1]}"
            )
    return [
        kind[0] + (f" (and {len(kind) - 1} more frames of this sequence)." if kind[1:] else ".")
        for kind in (missing, unreadable, misfit)
        if kind
    ]


def _image_size(path: Path) -> tuple[int, int]:
    """Return the width and height in an image's header, without decoding it."""
    try:
        with Image.open(path) as image:
            return image.size
    except OSError as error:  # Pillow's UnidentifiedImageError is one
        raise ValueError(f"{path} is not a readable image") from error


def _read_labels(path: Path, as_grey: bool = False) -> np.ndarray:
    """Return the values of a palette or grey image as they are, (H, W) uint8.

    as_grey: take a colour image too, and the brightness instead of a palette's indices.
    util.masks.read_mask is too strict here: it refuses empty masks and those that look
    interpolated, while whatever a model predicts has a score.
    """
    try:
        with Image.open(path) as image:
            if as_grey:
                return np.asarray(image.convert("L"))
            if image.mode not in ("P", "L", "1"):
                raise ValueError(f"its mode is {image.mode}, not palette or 8-bit grey")
            return np.asarray(image, dtype=np.uint8)
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's for damage, by where it is
        raise ValueError(f"The mask {path} cannot be read: {error}; write it again.") from error


def _object_labels(first_annotation: Path) -> tuple[int, ...]:
    labels = [label for label in labels_of(_read_labels(first_annotation)) if label != VOID]
    if not labels:
        raise ValueError(
            f"The annotation {first_annotation} holds no object; the objects to score are those "
            "of a sequence's first frame."
        )
    return tuple(labels)


def read_truth(path: Path, year: int) -> np.ndarray:
    """Labels (H, W) uint8 of an annotation; of DAVIS 2016, 1 for the object."""
    if year == 2016:
        # The dataset has a colour image among its annotations (bear/00077.png).
        return (_read_labels(path, as_grey=True) > 127).astype(np.uint8)
    return _read_labels(path)


def read_prediction(path: Path, year: int) -> np.ndarray:
    """The same of a prediction; raises ValueError for a soft one."""
    labels = _read_labels(path)
    if year != 2016:
        return labels
    is_object = labels != BACKGROUND
    is_bright = labels > 127
    if is_bright.any() and not np.array_equal(is_object, is_bright):
        raise ValueError(
            f"The mask {path} holds values on both sides of 127, as a soft or anti-aliased mask "
            "does; write 0 for the background and one other value for the object."
        )
    return is_object.astype(np.uint8)
