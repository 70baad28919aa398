"""A video file (mp4, mov, avi, webm, ...), decoded one frame at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from datasets.video import Video, masks_by_frame
from util.images import list_images


class VideoFile(Video):
    """The frames of a video file, turned upright as players show them.

    Every coded frame is one frame, whatever its duration, and is named by its number from 0 in five
    digits, as the written masks are.

    Args:
        path: the file.
        masks: a mask of the first frame, of any name; or a folder of masks named by frame number,
            such as 00040.png, of which later ones correct the objects that are in them.
        shorter_side: of the working size, in pixels; None: the frames' own size.

    Raises:
        FileNotFoundError: the file or the masks are not there.
        ValueError: the file is no video that can be decoded, or the masks do not fit.
    """

    def __init__(self, path: Path, masks: Path, shorter_side: int | None = None) -> None:
        if not masks.exists():
            raise FileNotFoundError(f"there is no mask {masks}: give one of the first frame")
        self._decoder = _Decoder(path)
        frames = [path / f"{index:05d}" for index in range(self._decoder.num_frames)]
        by_frame = {0: masks} if masks.is_file() else masks_by_frame(frames, list_images(masks))
        self.fps = self._decoder.fps
        super().__init__(
            path.stem, frames, by_frame, shorter_side=shorter_side, takes_corrections=True
        )

    def _measure(self) -> tuple[int, int]:
        height, width = self._decoder.read(0).shape[:2]
        return height, width

    def _decode(self, index: int) -> np.ndarray:
        return self._decoder.read(index)

    def _list_frames(self) -> Iterator[str]:
        path = self._decoder.path
        yield f"{path.name} {path.stat().st_size} {len(self)}"


class _Decoder:
    """Frames of a file by their number; fast in order, from the start again going back."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"there is no video {path}")
        self.path = path
        self._lock = threading.Lock()
        self._open()
        if not self._capture.isOpened():
            raise ValueError(
                f"{path} is no video that can be decoded: convert it to MP4 (H.264), or extract "
                "its frames into a folder"
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 1 <= fps <= 240 else 24.0  # containers hold all kinds of nonsense
        self.num_frames = 0  # what the container says of it is often wrong
        while self._capture.grab():
            self.num_frames += 1
        if not self.num_frames:
            raise ValueError(f"{path} holds no frame that can be decoded: copy it again")
        self._open()

    def _open(self) -> None:
        self._capture = cv2.VideoCapture(str(self.path))
        self._next = 0

    def read(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        with self._lock:
            if index < self._next:
                self._open()
            while self._next < index and self._capture.grab():
                self._next += 1
            is_read, image = self._capture.read()
            if not is_read or self._next != index:
                raise ValueError(f"frame {index} of {self.path} cannot be decoded: copy it again")
            self._next += 1
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
