"""Decode ahead and write behind, in threads, so that the device never waits for files."""

from __future__ import annotations

import queue
import threading
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
_OVERLAY_FPS = 24


class Video(Protocol):
    """A video as datasets/video.py gives it."""

    name: str
    size: tuple[int, int]
    palette: bytes | None

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Output(NamedTuple):
    """A segmented frame to write."""

    name: str
    labels: np.ndarray  # (H, W) uint8
    image: np.ndarray  # (h, w, 3) uint8


class Prefetch:
    """Decode a video's frames ahead, in a thread."""

    def __init__(self, video: Video) -> None:
        self._video = video
        self._stop = threading.Event()
        self._queue: queue.Queue[Any] = queue.Queue(_FRAMES_AHEAD)
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Iterator[Any]:
        self._thread.start()
        return self._frames()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _frames(self) -> Iterator[Any]:
        for _ in range(len(self._video)):
            item = self._queue.get()
            if isinstance(item, Exception):
                raise item
            yield item

    def _work(self) -> None:
        for index in range(len(self._video)):
            item: Any
            try:
                item = self._video[index]
            except Exception as error:  # it is raised where the frame is asked for
                item = error
            while not self._stop.is_set():
                try:
                    self._queue.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._stop.is_set() or isinstance(item, Exception):
                return


class Saver:
    """Write masks, and the overlay video, in a thread; few frames wait at a time."""

    def __init__(self, video: Video, folder: Path, has_overlay: bool) -> None:
        self._video = video
        self._folder = folder
        self._overlay: OverlayVideo | None = None
        self._has_overlay = has_overlay
        self._pool = ThreadPoolExecutor(1)
        self._pending: queue.Queue[Future[None]] = queue.Queue()

    def __enter__(self) -> Saver:
        if self._has_overlay:
            path = self._folder / f"{self._video.name}.overlay.mp4"
            self._overlay = OverlayVideo(path, self._video.size, _OVERLAY_FPS).__enter__()
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if self._overlay is not None:
            self._overlay.__exit__(kind, value, trace)
        if kind is None:
            while not self._pending.empty():
                self._pending.get().result()  # raises what writing raised

    def put(self, output: Output) -> None:
        """Write a frame soon."""
        if self._pending.qsize() >= _FRAMES_BEHIND:
            self._pending.get().result()
        self._pending.put(self._pool.submit(self._write, output))

    def _write(self, output: Output) -> None:
        write_mask(self._folder / f"{output.name}.png", output.labels, self._video.palette)
        if self._overlay is not None:
            height, width = self._video.size
            image = output.image
            if image.shape[:2] != (height, width):
                image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
            palette = self._video.palette or DAVIS_PALETTE
            self._overlay.write(blend(image, output.labels, palette))
