"""Files of probabilities (--save_probabilities), for averaging over runs."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from util.files import atomic_path

PROBABILITIES = "probabilities"  # folder in a video's folder of masks


class FrameProbabilities(NamedTuple):
    """Probabilities of one frame."""

    prob: np.ndarray  # (O+1, h, w) uint8, background first; 255 is 1
    labels: list[int]  # of the objects


def pack_probabilities(prob: torch.Tensor, labels: Sequence[int]) -> FrameProbabilities:
    """Quantise probabilities (O+1, h, w) in [0, 1], on any device, to 8 bits."""
    return FrameProbabilities((prob * 255).round_().byte().cpu().numpy(), [*labels])


def write_probabilities(path: Path, frame: FrameProbabilities, level: int = 1) -> None:
    """Write <frame>.npz with the arrays `prob` and `labels` of FrameProbabilities.

    Args:
        level: compression from 0 (none) to 9; higher levels are slower than segmentation.
    """
    arrays = {"prob": frame.prob, "labels": np.array(frame.labels, np.uint8)}
    kind = zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED
    with (
        atomic_path(path, is_durable=False) as temporary,
        zipfile.ZipFile(temporary, "w", kind, compresslevel=level) as archive,
    ):
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array)


def read_probabilities(path: Path) -> FrameProbabilities:
    """Read a file of `write_probabilities`.

    Raises:
        ValueError: the file is missing, damaged, or has other content.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            prob, labels = content["prob"], [int(label) for label in content["labels"]]
    except (
        OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error
    ) as error:  # fmt: skip  # RuntimeError: encrypted, or an unknown compression
        raise ValueError(
            f"{path} cannot be read as probabilities ({error}): segment the video again with "
            "--save_probabilities."
        ) from error
    if prob.dtype != np.uint8 or prob.ndim != 3 or len(prob) != len(labels) + 1:
        raise ValueError(
            f"{path} contains an array {prob.shape} {prob.dtype} for {len(labels)} objects instead "
            "of (objects + 1, h, w) uint8: segment the video again with --save_probabilities."
        )
    return FrameProbabilities(prob, labels)
