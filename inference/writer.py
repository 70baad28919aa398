"""Write masks and overlay videos in a background thread."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import cv2
import numpy as np

from datasets.video import Video
from inference.probability_files import PROBABILITIES, FrameProbabilities, write_probabilities
from util.frames import prefetch
from util.images import load_image
from util.masks import DAVIS_PALETTE, write_mask
from util.overlay import OverlayVideo, blend

# A file with this stem in a video's folder is moved beside the folder and named after the video. No
# frame can have this stem, since hidden files are not read as frames.
BESIDE = ".beside"
_FRAMES_BEHIND = 8  # segmented and waiting to be written


class Output(NamedTuple):
    """A segmented frame to write."""

    name: str
    labels: np.ndarray  # (H, W) uint8
    image: np.ndarray  # (h, w, 3) uint8
    probabilities: FrameProbabilities | None = None  # written if not None


class Writer:
    """Writes masks and the overlay video in a thread, with a short queue of frames."""

    def __init__(self, video: Video, folder: Path, has_overlay: bool) -> None:
        self._video = video
        self._folder = folder
        self._overlay: OverlayVideo | None = None
        if has_overlay:
            self._overlay = _open_overlay(video, folder)
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Writer:
        if self._overlay is not None:
            self._overlay.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if self._overlay is not None:
            self._overlay.__exit__(kind, value, trace)
        if kind is None:
            for future in self._pending:
                future.result()  # raises errors from writing

    def put(self, output: Output) -> None:
        """Queue a frame for writing; raises any error from writing earlier frames."""
        if len(self._pending) >= _FRAMES_BEHIND:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._write, output))

    def _write(self, output: Output) -> None:
        write_mask(self._folder / f"{output.name}.png", output.labels, self._video.palette)
        if output.probabilities is not None:
            write_probabilities(
                self._folder / PROBABILITIES / f"{output.name}.npz", output.probabilities
            )
        if self._overlay is not None:
            self._overlay.write(_draw(self._video, output.image, output.labels))


def draw_overlay(video: Video, folder: Path) -> None:
    """Write the overlay video from masks on disk, for masks that were written in reverse."""
    with _open_overlay(video, folder) as overlay:
        for frame in prefetch(video):
            labels = np.asarray(load_image(folder / f"{frame.name}.png", "mask"))
            overlay.write(_draw(video, frame.image, labels))


def _open_overlay(video: Video, folder: Path) -> OverlayVideo:
    return OverlayVideo(folder / f"{BESIDE}.mp4", video.size, video.fps)


def _draw(video: Video, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Draw masks (H, W) over a frame (h, w, 3), at the video's native size."""
    height, width = video.size
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return blend(image, labels, video.palette or DAVIS_PALETTE)
