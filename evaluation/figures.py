"""Figures of scores: J and F over the frames of each sequence, and the frames with lowest J&F."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from evaluation.predictions import Selection, SequenceFiles
from evaluation.report import Scores
from util.figures import new_figure, save_figure
from util.files import atomic_path
from util.images import list_images, read_image
from util.masks import DAVIS_PALETTE
from util.overlay import blend

_TILE_WIDTH = 320  # pixels
_CAPTION_HEIGHT = 22  # pixels; also the width of the margin
_GREY = 128  # background of the tiles if there are no images
# Curves of at most this many frames have markers. A curve of one frame has no line.
_MAX_MARKED_FRAMES = 50
_MAX_NAMED_FRAMES = 10  # on the axis of a curve


def draw_figures(selection: Selection, scores: Scores, folder: Path) -> Path:
    """Draw worst.png and <sequence>.png of each sequence; return the path of worst.png.

    Raises:
        ValueError: a frame has no image although its sequence has an image folder.
        OSError: a figure cannot be written.
    """
    path = folder / "worst.png"
    draw_worst(selection, scores, path)
    draw_curves(scores, folder)
    return path


def draw_curves(scores: Scores, folder: Path) -> None:
    """Draw <sequence>.png: J (solid) and F (dashed) of each object over the scored frames."""
    sequences = scores.sequences
    for sequence, frames in scores.frames.items():
        figure = new_figure(8, 3.2)
        axes = figure.subplots()
        members = [score for score in scores.objects if score.sequence == sequence]
        for number, score in enumerate(members):
            region, boundary = scores.curves[score.name]
            colour = f"C{number % 10}"
            marker = "." if len(frames) <= _MAX_MARKED_FRAMES else ""
            axes.plot(
                region, marker=marker, color=colour, linestyle="-", label=f"object {score.label}"
            )
            axes.plot(boundary, marker=marker, color=colour, linestyle="--")
        named = range(0, len(frames), -(-len(frames) // _MAX_NAMED_FRAMES))
        axes.set_xticks(named, [frames[index] for index in named])
        axes.set(ylim=(0, 1.02), xlabel="scored frame", ylabel="J, F dashed")
        axes.set_title(f"{sequence}: J&F {sequences[sequence].mean:.3f}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, ncol=4)
        save_figure(figure, folder / f"{sequence}.png")


def draw_worst(
    selection: Selection, scores: Scores, path: Path, num_sequences: int = 6, num_frames: int = 4
) -> None:
    """Draw a contact sheet of the frames with the lowest J&F.

    Each row has the worst frames of one sequence, worst first. The first row is the worst sequence.
    A tile shows the prediction above the ground truth.
    """
    files = {sequence.name: sequence for sequence in selection.sequences}
    rows = []
    for sequence in scores.worst_first[:num_sequences]:
        members = [score.name for score in scores.objects if score.sequence == sequence]
        means = np.array([np.add(*scores.curves[name]) / 2 for name in members])
        scored = np.flatnonzero(~np.isnan(means).all(axis=0))
        by_frame = np.nanmean(means[:, scored], axis=0)
        tiles = []
        for at in np.argsort(by_frame, kind="stable")[:num_frames]:
            index = int(scored[at])
            frame = scores.frames[sequence][index]
            caption = f"{sequence} {frame}: {by_frame[at]:.3f}"
            tiles.append(_draw_tile(files[sequence], index, frame, caption))
        tiles += [np.full_like(tiles[0], 255)] * (num_frames - len(tiles))
        parts = [_draw_margin((tiles[0].shape[0] - _CAPTION_HEIGHT) // 2), *tiles]
        height = max(part.shape[0] for part in parts)
        rows.append(np.concatenate([_pad_height(part, height) for part in parts], 1))
    sheet = np.ascontiguousarray(np.concatenate(rows)[..., ::-1])
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), sheet):
            raise OSError(f"The contact sheet {path} cannot be written.")


def _draw_tile(files: SequenceFiles, index: int, frame: str, caption: str) -> np.ndarray:
    """Draw prediction and ground truth of one frame below a caption, (H, _TILE_WIDTH, 3) uint8."""
    prediction, ground_truth = files[index]
    if files.image_folder is None:
        image = np.full((*ground_truth.shape, 3), _GREY, np.uint8)
    else:
        image = _read_image(files.image_folder, frame)
    parts = [_draw_text(caption, _TILE_WIDTH)]
    for labels in (prediction, ground_truth):
        if labels.shape != image.shape[:2]:
            size = (image.shape[1], image.shape[0])
            labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        drawn = blend(image, labels, DAVIS_PALETTE)
        height = round(drawn.shape[0] * _TILE_WIDTH / drawn.shape[1])
        parts.append(cv2.resize(drawn, (_TILE_WIDTH, height), interpolation=cv2.INTER_AREA))
    return np.concatenate(parts)


def _draw_margin(height: int) -> np.ndarray:
    """Draw the names of the two pictures of a tile, each `height` pixels high, from bottom to top.

    (_CAPTION_HEIGHT + 2 * height, _CAPTION_HEIGHT, 3) uint8.
    """
    names = [np.rot90(_draw_text(name, height)) for name in ("prediction", "ground truth")]
    return np.concatenate([_draw_text("", _CAPTION_HEIGHT), *names])


def _draw_text(text: str, width: int) -> np.ndarray:
    """Draw black text on white, (_CAPTION_HEIGHT, width, 3) uint8."""
    strip = np.full((_CAPTION_HEIGHT, width, 3), 255, np.uint8)
    cv2.putText(strip, text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


def _read_image(folder: Path, frame: str) -> np.ndarray:
    images = list_images(folder) if folder.is_dir() else []
    path = next((path for path in images if path.stem == frame), None)
    if path is None:
        raise ValueError(
            f"{folder} has no image of frame {frame}: --figures needs the images of all scored "
            "frames there."
        )
    return read_image(path)


def _pad_height(tile: np.ndarray, height: int) -> np.ndarray:
    padding = np.full((height - tile.shape[0], *tile.shape[1:]), 255, np.uint8)
    return np.concatenate([tile, padding])
