"""Decode ahead and write behind, in threads, so that the device never waits for files."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from util.images import load_image
from util.masks import DAVIS_PALETTE, write_mask
from util.overlay import OverlayVideo, blend
from util.scores import SCORES, FrameScores, write_scores

# A file of this stem in a video's folder is published beside it, under the video's name. No frame
# has it: hidden files are none.
BESIDE = ".beside"
_FRAMES_AHEAD = 4  # decoded before they are needed
_FRAMES_BEHIND = 8  # segmented and waiting to be written


class Frames(Protocol):
    """Frames that are decoded when they are asked for, in any thread."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Video(Frames, Protocol):
    """A video as datasets/video.py gives it."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def labels(self) -> list[int]: ...
    @property
    def fps(self) -> float: ...
    @property
    def palette(self) -> bytes | None: ...
    @property
    def frame_names(self) -> list[str]: ...
    @property
    def required_frames(self) -> frozenset[int]: ...
    @property
    def new_objects(self) -> dict[int, list[int]]: ...
    @property
    def digest(self) -> str: ...


class Output(NamedTuple):
    """A segmented frame to write."""

    name: str
    labels: np.ndarray  # (H, W) uint8
    image: np.ndarray  # (h, w, 3) uint8
    scores: FrameScores | None = None  # to write as well


def prefetch(frames: Frames, order: Iterable[int] | None = None) -> Iterator[Any]:
    """Frames in order, or in another one, decoded ahead in a thread; raises what decoding does."""
    pool = ThreadPoolExecutor(1)
    try:
        pending: deque[Future[Any]] = deque()
        for index in range(len(frames)) if order is None else order:
            pending.append(pool.submit(frames.__getitem__, index))
            if len(pending) > _FRAMES_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class Saver:
    """Write masks, and the overlay video, in a thread; few frames wait at a time."""

    def __init__(self, video: Video, folder: Path, has_overlay: bool) -> None:
        self._video = video
        self._folder = folder
        self._overlay: OverlayVideo | None = None
        if has_overlay:
            self._overlay = _open_overlay(video, folder)
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Saver:
        if self._overlay is not None:
            self._overlay.__enter__()
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if self._overlay is not None:
            self._overlay.__exit__(kind, value, trace)
        if kind is None:
            for future in self._pending:
                future.result()  # raises what writing raised

    def put(self, output: Output) -> None:
        """Write a frame soon; raises what writing an earlier one raised."""
        if len(self._pending) >= _FRAMES_BEHIND:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._write, output))

    def _write(self, output: Output) -> None:
        write_mask(self._folder / f"{output.name}.png", output.labels, self._video.palette)
        if output.scores is not None:
            write_scores(self._folder / SCORES / f"{output.name}.npz", output.scores)
        if self._overlay is not None:
            self._overlay.write(_draw(self._video, output.image, output.labels))


def draw_overlay(video: Video, folder: Path) -> None:
    """Write the overlay video from masks that are there, where they were not written in order."""
    with _open_overlay(video, folder) as overlay:
        for frame in prefetch(video):
            labels = np.asarray(load_image(folder / f"{frame.name}.png", "mask"))
            overlay.write(_draw(video, frame.image, labels))


def _open_overlay(video: Video, folder: Path) -> OverlayVideo:
    return OverlayVideo(folder / f"{BESIDE}.mp4", video.size, video.fps)


def _draw(video: Video, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The masks (H, W) drawn over the frame (h, w, 3), at the video's own size."""
    height, width = video.size
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return blend(image, labels, video.palette or DAVIS_PALETTE)
