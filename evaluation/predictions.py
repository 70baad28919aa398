"""Predicted masks beside annotations: the files of a sequence, checks before scoring, reading."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np
from PIL import Image

from util.images import list_images
from util.masks import resize_labels

VOID = 255


class Convention(Enum):
    """What the values of masks mean.

    DAVIS_2016: one object, where the annotation is above 127 and the prediction is not 0.
    DAVIS_2017: values are labels, 1 in 1-bit masks; 255 is no object.
    GIVEN: values are labels, 255 in 1-bit masks; 255 is an object where there is no other.
    """

    DAVIS_2016 = 2016
    DAVIS_2017 = 2017
    GIVEN = 0


@dataclass(frozen=True)
class SequenceFiles:
    """What is scored of one sequence.

    labels: objects that are scored on all frames.
    later: labels that become objects on the frame that first shows them; scored after it.
    predictions, ground_truths: the two masks of each frame, in order.
    images: folder of the frames' images; None where it is not known.
    is_seen: by label, whether its category is in the training set (YouTube-VOS).
    """

    name: str
    labels: tuple[int, ...]
    predictions: tuple[Path, ...]
    ground_truths: tuple[Path, ...]
    convention: Convention
    later: Collection[int] = ()
    images: Path | None = None
    is_seen: Mapping[int, bool] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ground_truths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Labels of the prediction, resized where it has to be, and of the annotation.

        Both (H, W) uint8, of the annotation's size. Raises ValueError for a file that is damaged or
        no mask.
        """
        ground_truth = read_ground_truth(self.ground_truths[index], self.convention)
        prediction = read_prediction(self.predictions[index], self.convention)
        return resize_labels(
            prediction, (ground_truth.shape[0], ground_truth.shape[1])
        ), ground_truth


@dataclass(frozen=True)
class Selection:
    """What is scored, at least one sequence, and sentences on what is not as it should be."""

    sequences: tuple[SequenceFiles, ...]
    warnings: tuple[str, ...] = ()


def list_masks(folder: Path) -> list[Path]:
    """The PNG masks of a folder in natural order; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return [path for path in list_images(folder) if path.suffix.lower() == ".png"]


def check_predictions(files: SequenceFiles, resize: bool) -> tuple[list[str], list[str]]:
    """Compare a sequence's files by their headers, before any is decoded.

    resize: predictions of another size than their annotation are fine.

    Returns sentences on what keeps it from being scored, one for each kind of fault, and warnings.
    """
    folder = files.predictions[0].parent
    if not folder.is_dir():
        return [f"{folder} is missing: there are no predictions for this sequence."], []
    missing: list[str] = []
    unreadable: list[str] = []
    misfit: list[str] = []
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
            misfit.append(
                f"{prediction} is {size} pixels, its annotation {true_size}; --resize scores it "
                "resized"
            )
            sizes[f"{size} to {true_size}"] = None
    warnings = []
    if misfit and resize:
        frames = "1 frame" if len(misfit) == 1 else f"{len(misfit)} frames"
        warnings.append(
            f"The predictions of {files.name} are resized to their annotations, nearest neighbour: "
            f"{frames} from {', '.join(sizes)} pixels."
        )
        misfit = []
    problems = [
        kind[0] + (f" (and {len(kind) - 1} more frames of this sequence)." if kind[1:] else ".")
        for kind in (missing, unreadable, misfit)
        if kind
    ]
    return problems, warnings


def read_ground_truth(path: Path, convention: Convention) -> np.ndarray:
    """Labels (H, W) uint8 of an annotation; of DAVIS 2016, 1 for the object.

    Raises ValueError for a file that is damaged or no mask.
    """
    if convention is Convention.DAVIS_2016:
        # The dataset has a colour image among its annotations (bear/00077.png).
        return (_read_labels(path, convention, as_grey=True) > 127).view(np.uint8)
    return _read_labels(path, convention)


def read_prediction(path: Path, convention: Convention) -> np.ndarray:
    """The same of a prediction; raises ValueError for a soft one too, of DAVIS 2016."""
    labels = _read_labels(path, convention)
    if convention is not Convention.DAVIS_2016:
        return labels
    is_object = labels != 0
    num_bright = np.count_nonzero(labels > 127)
    if num_bright and num_bright != np.count_nonzero(is_object):
        raise ValueError(
            f"The mask {path} holds values on both sides of 127, as a soft or anti-aliased mask "
            "does; write 0 for the background and one other value for the object."
        )
    return is_object.view(np.uint8)


def _image_size(path: Path) -> str:
    """Return width x height as an image's header has them, without decoding it."""
    try:
        with Image.open(path) as image:
            return f"{image.width}x{image.height}"
    except OSError as error:  # Pillow's UnidentifiedImageError is one
        raise ValueError(f"{path} is not a readable image") from error


def _read_labels(path: Path, convention: Convention, as_grey: bool = False) -> np.ndarray:
    """Return the values of a palette or grey image as they are, (H, W) uint8.

    as_grey: take a colour image too, and the brightness instead of a palette's indices.
    util.masks.read_mask is too strict here: it refuses empty masks and those that look
    interpolated, while whatever a model predicts has a score.
    """
    try:
        with Image.open(path) as image:
            if as_grey:
                return np.asarray(image if image.mode == "L" else image.convert("L"))
            mode = image.mode
            labels = np.asarray(image, dtype=np.uint8) if mode in ("P", "L", "1") else None
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's for damage, by where it is
        raise ValueError(f"The mask {path} cannot be read: {error}; write it again.") from error
    if labels is None:
        raise ValueError(
            f"The mask {path} is not scored, since its pixels are {mode}: save the masks as "
            "palette or 8-bit grey PNGs."
        )
    is_bilevel = mode == "1" and convention is Convention.GIVEN
    return labels * np.uint8(VOID) if is_bilevel else labels
