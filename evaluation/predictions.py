"""Predicted and ground-truth masks of a sequence: their files, checks and reading."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np
from PIL import Image

from util.images import DAMAGE_ERRORS, list_images
from util.masks import resize_labels

VOID = 255


class Convention(Enum):
    """Meaning of the values of masks.

    DAVIS_2016: one object, where the ground truth is above 127 and the prediction is not 0.
    DAVIS_2017: values are labels, and 1-bit masks have the label 1. 255 is void.
    LABELS: values are labels, and 1-bit masks have the label 255. 255 is void if a sequence has
        other objects, and an object if not.
    """

    DAVIS_2016 = 2016
    DAVIS_2017 = 2017
    LABELS = 0


@dataclass(frozen=True)
class SequenceFiles:
    """Masks of one sequence to score. `files[index]` reads the masks of one frame.

    labels: objects to score on all frames.
    later_labels: objects to score after the first frame whose ground truth shows them.
    predictions, ground_truths: mask files of the frames, in order.
    image_folder: folder of the frames' images; None if it is unknown.
    is_seen: label -> whether its category is in the training set (YouTube-VOS).
    """

    name: str
    labels: tuple[int, ...]
    predictions: tuple[Path, ...]
    ground_truths: tuple[Path, ...]
    convention: Convention
    later_labels: Collection[int] = ()
    image_folder: Path | None = None
    is_seen: Mapping[int, bool] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ground_truths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Read the labels of the prediction and of the ground truth of one frame.

        Both (H, W) uint8. A prediction of another size is resized to the size of the ground truth.
        Raises ValueError if a file is damaged or is not a mask.
        """
        ground_truth = read_ground_truth(self.ground_truths[index], self.convention)
        prediction = read_prediction(self.predictions[index], self.convention)
        height, width = ground_truth.shape
        return resize_labels(prediction, (height, width)), ground_truth


@dataclass(frozen=True)
class Selection:
    """Sequences to score, at least one, and warnings as sentences."""

    sequences: tuple[SequenceFiles, ...]
    warnings: tuple[str, ...] = ()


def list_masks(folder: Path) -> list[Path]:
    """Return the PNG files of a folder in natural order; none if the folder does not exist."""
    if not folder.is_dir():
        return []
    return [path for path in list_images(folder) if path.suffix.lower() == ".png"]


def check_predictions(files: SequenceFiles, resize: bool) -> tuple[list[str], list[str]]:
    """Check that the masks of a sequence exist and have equal sizes, from the file headers.

    resize: accept predictions of another size than their ground truth, with a warning.

    Returns problems that prevent scoring, one sentence for each kind, and warnings.
    """
    folder = files.predictions[0].parent
    if not folder.is_dir():
        return [f"{folder} is missing: there are no predictions for this sequence."], []
    missing: list[str] = []
    unreadable: list[str] = []
    mismatched: list[str] = []
    sizes: dict[str, None] = {}
    for prediction, ground_truth in zip(files.predictions, files.ground_truths, strict=True):
        if not prediction.is_file():
            missing.append(f"{prediction} is missing")
            continue
        try:
            size, true_size = _image_size(prediction), _image_size(ground_truth)
        except ValueError as error:
            unreadable.append(str(error))
            continue
        if size != true_size:
            mismatched.append(
                f"{prediction} has {size} pixels, its ground truth {true_size}: add --resize to "
                "score it resized"
            )
            sizes[f"{size} to {true_size}"] = None
    warnings = []
    if mismatched and resize:
        frames = "1 frame" if len(mismatched) == 1 else f"{len(mismatched)} frames"
        warnings.append(
            f"The predictions of {files.name} are resized to their ground truth by nearest "
            f"neighbour: {frames} from {', '.join(sizes)} pixels."
        )
        mismatched = []
    problems = [
        kind[0] + (f" (and {len(kind) - 1} more in this sequence)." if kind[1:] else ".")
        for kind in (missing, unreadable, mismatched)
        if kind
    ]
    return problems, warnings


def read_ground_truth(path: Path, convention: Convention) -> np.ndarray:
    """Read the labels of a ground-truth mask, (H, W) uint8; the object of DAVIS 2016 is 1.

    Raises ValueError if the file is damaged or is not a mask.
    """
    if convention is Convention.DAVIS_2016:
        # One annotation of the dataset is a colour image (bear/00077.png).
        return (_read_labels(path, convention, as_grey=True) > 127).view(np.uint8)
    return _read_labels(path, convention)


def read_prediction(path: Path, convention: Convention) -> np.ndarray:
    """Read the labels of a predicted mask, (H, W) uint8; the object of DAVIS 2016 is 1.

    Raises ValueError if the file is damaged or is not a mask, or is a soft mask of DAVIS 2016.
    """
    labels = _read_labels(path, convention)
    if convention is not Convention.DAVIS_2016:
        return labels
    is_object = labels != 0
    num_bright = np.count_nonzero(labels > 127)
    if num_bright and num_bright != np.count_nonzero(is_object):
        raise ValueError(
            f"The mask {path} has values on both sides of 127, like a soft or anti-aliased mask: "
            "write 0 for the background and one other value for the object."
        )
    return is_object.view(np.uint8)


def _image_size(path: Path) -> str:
    """Return <width>x<height> from the header of an image file."""
    try:
        with Image.open(path) as image:
            return f"{image.width}x{image.height}"
    except OSError as error:  # includes Pillow's UnidentifiedImageError
        raise ValueError(f"{path} is not a readable image") from error


def _read_labels(path: Path, convention: Convention, as_grey: bool = False) -> np.ndarray:
    """Read the indices of a palette image or the values of a grey image, (H, W) uint8.

    as_grey: accept colour images too, and return the brightness also of palette images.

    util.masks.read_mask is too strict for predictions: it refuses empty and interpolated masks.
    """
    try:
        data = path.read_bytes()
        # Only `verify` checks PNG checksums. The image cannot be used after it.
        with Image.open(io.BytesIO(data)) as image:
            image.verify()
        with Image.open(io.BytesIO(data)) as image:
            if as_grey:
                return np.asarray(image if image.mode == "L" else image.convert("L"))
            mode = image.mode
            labels = np.asarray(image, dtype=np.uint8) if mode in ("P", "L", "1") else None
    except DAMAGE_ERRORS as error:
        raise ValueError(f"The mask {path} cannot be read: {error}; write it again.") from error
    if labels is None:
        raise ValueError(
            f"The mask {path} cannot be scored, because its pixels are {mode}: save the masks as "
            "palette or 8-bit grey PNGs."
        )
    is_bilevel = mode == "1" and convention is Convention.LABELS
    return labels * np.uint8(VOID) if is_bilevel else labels
