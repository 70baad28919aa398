"""Pictures of scores: J and F over the frames of each sequence, and the worst frames of all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np

from evaluation.report import Scores
from util.figures import save_figure
from util.files import atomic_path
from util.masks import DAVIS_PALETTE
from util.overlay import blend

# (sequence, frame) -> image (H, W, 3) uint8, predicted and true labels (H, W) uint8.
ReadFrame = Callable[[str, str], tuple[np.ndarray, np.ndarray, np.ndarray]]
_TILE_WIDTH = 320
FEW_FRAMES = 50  # their curves have marks, since one frame makes no line


def draw_curves(scores: Scores, folder: Path) -> list[Path]:
    """One PNG a sequence: J (whole lines) and F (dashed) of each object."""
    written = []
    for sequence, frames in scores.frames.items():
        figure, axes = plt.subplots(figsize=(8, 3.2))
        members = [score for score in scores.objects if score.sequence == sequence]
        for number, score in enumerate(members):
            region, boundary = scores.curves[score.name]
            colour = f"C{number % 10}"
            marker = "." if len(frames) <= FEW_FRAMES else ""
            axes.plot(region, marker, color=colour, linestyle="-", label=f"object {score.label}")
            axes.plot(boundary, marker, color=colour, linestyle="--")
        axes.set(ylim=(0, 1.02), xlabel=f"scored frame, from {frames[0]}", ylabel="J, F dashed")
        axes.set_title(f"{sequence}: J&F {scores.sequences[sequence].mean:.3f}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, ncol=4)
        written.append(folder / f"{sequence}.png")
        save_figure(figure, written[-1])
    return written


def draw_worst(
    scores: Scores, read: ReadFrame, path: Path, num_sequences: int = 6, num_frames: int = 4
) -> None:
    """A contact sheet: a row for each of the worst sequences, with its worst frames from the left;
    the prediction above, the truth below."""
    rows = []
    for sequence in scores.worst_first[:num_sequences]:
        members = [score.name for score in scores.objects if score.sequence == sequence]
        both = np.array([np.add(*scores.curves[name]) / 2 for name in members])
        scored = np.flatnonzero(~np.isnan(both).all(axis=0))
        by_frame = np.nanmean(both[:, scored], axis=0)
        tiles = []
        for at in np.argsort(by_frame, kind="stable")[:num_frames]:
            frame = scores.frames[sequence][scored[at]]
            tiles.append(_tile(read(sequence, frame), f"{sequence} {frame}: {by_frame[at]:.3f}"))
        tiles += [np.full_like(tiles[0], 255)] * (num_frames - len(tiles))
        height = max(tile.shape[0] for tile in tiles)
        rows.append(np.concatenate([_pad_height(tile, height) for tile in tiles], 1))
    sheet = np.ascontiguousarray(np.concatenate(rows)[..., ::-1])
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), sheet):
            raise OSError(f"{path} cannot be written")


def _tile(frame: tuple[np.ndarray, np.ndarray, np.ndarray], caption: str) -> np.ndarray:
    image, *maps = frame
    parts = []
    for labels in maps:
        if labels.shape != image.shape[:2]:
            size = (image.shape[1], image.shape[0])
            labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        drawn = blend(image, labels, DAVIS_PALETTE)
        height = round(drawn.shape[0] * _TILE_WIDTH / drawn.shape[1])
        parts.append(cv2.resize(drawn, (_TILE_WIDTH, height), interpolation=cv2.INTER_AREA))
    head = np.full((22, _TILE_WIDTH, 3), 255, np.uint8)
    cv2.putText(head, caption, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([head, *parts])


def _pad_height(tile: np.ndarray, height: int) -> np.ndarray:
    rest = np.full((height - tile.shape[0], *tile.shape[1:]), 255, np.uint8)
    return np.concatenate([tile, rest])
