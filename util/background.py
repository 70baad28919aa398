"""Decode ahead and write behind, in threads, so that the device never waits for files."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from util.masks import DAVIS_PALETTE, write_mask
from util.overlay import OverlayVideo, blend

_FRAMES_AHEAD = 4  # decoded before they are needed
_FRAMES_BEHIND = 8  # segmented and waiting to be written


class Frames(Protocol):
    """Frames that are decoded when they are asked for, in any thread."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Video(Frames, Protocol):
    """A video as datasets/video.py gives it."""

    name: str
    size: tuple[int, int]
    labels: list[int]
    fps: float
    palette: bytes | None
    frame_names: list[str]
    required_frames: frozenset[int]

    @property
    def digest(self) -> str: ...


class Output(NamedTuple):
    """A segmented frame to write."""

    name: str
    labels: np.ndarray  # (H, W) uint8
    image: np.ndarray  # (h, w, 3) uint8


def prefetch(video: Frames) -> Iterator[Any]:
    """The frames of a video in order, decoded ahead in a thread; raises what decoding raises."""
    pool = ThreadPoolExecutor(1)
    try:
        pending: deque[Future[Any]] = deque()
        for index in range(len(video)):
            pending.append(pool.submit(video.__getitem__, index))
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
            path = folder / f"{video.name}.overlay.mp4"
            self._overlay = OverlayVideo(path, video.size, video.fps)
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
        if self._overlay is not None:
            height, width = self._video.size
            image = output.image
            if image.shape[:2] != (height, width):
                image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
            palette = self._video.palette or DAVIS_PALETTE
            self._overlay.write(blend(image, output.labels, palette))
