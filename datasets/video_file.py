"""A video file (mp4, mov, avi, webm, ...), decoded one frame at a time."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from datasets.video import Video, masks_by_frame
from util.images import list_images

# Of frames held going back through a file.
_BLOCK_BYTES = 256 * 2**20


class VideoFile(Video):
    """The frames of a video file, turned upright as players show them.

    Every coded frame is one frame, whatever its duration, and is named by its number from 0 in five
    digits, as the written masks are. `fps` is the average rate from the first frame to the last, so
    that an overlay video of a variable rate lasts as long as the file, save for how long the file
    holds its last frame.

    Where fewer frames can be decoded than the header tells of, there is a warning: the file is cut
    short, or it was trimmed by an editor that kept what it hides. FFmpeg's own lines on a damaged
    file are left out; OPENCV_FFMPEG_LOGLEVEL=16 in the environment, for one, brings them back.

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
    """Frames of a file by their number; fast in order, and by blocks going back."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"there is no video {path}")
        self.path = path
        self._block: dict[int, np.ndarray] = {}  # decoded ahead, going back
        self._latest = -1  # frame asked for
        self._frame_bytes = _BLOCK_BYTES  # of one frame, once one is known
        self._lock = threading.Lock()
        self._open()
        if not self._capture.isOpened():
            raise ValueError(
                f"{path} is no video that can be decoded: convert it to MP4 (H.264), or extract "
                "its frames into a folder"
            )
        self.fps, self.num_frames = self._scan()
        self._open()

    def _scan(self) -> tuple[float, int]:
        """Rate and number of the frames, by decoding all: what containers say is often wrong."""
        told_rate = self._capture.get(cv2.CAP_PROP_FPS)
        told_number = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        times = []  # seconds; 0 where the file has none
        while self._capture.grab():
            times.append(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        if not times:
            raise ValueError(f"{self.path} holds no frame that can be decoded: copy it again")
        fps = _average_rate(times, told_rate)
        lasts = len(times) / fps
        # By number alone, variable rates would be suspected: of many files it is an estimate.
        if told_rate > 0 and told_number / told_rate > lasts + 1 / fps and told_number > len(times):
            warnings.warn(
                f"{self.path} tells of {told_number / told_rate:.1f} s, but only {len(times)} "
                f"frames, {lasts:.1f} s, can be decoded: unless it was trimmed, it is cut short; "
                "copy it again",
                stacklevel=2,
            )
        return fps, len(times)

    def _open(self) -> None:
        # What FFmpeg prints on a file that is none names no file. Read once, by the first capture.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")
        self._capture = cv2.VideoCapture(str(self.path))
        self._next = 0

    def read(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        with self._lock:
            if index > self._latest:
                self._block.clear()
            elif index == self._latest - 1 and index not in self._block:
                self._decode_block(index)
            self._latest = index
            if index in self._block:
                return self._block.pop(index)
            return self._decode(index)

    def _decode_block(self, last: int) -> None:
        """Decode the frames up to one, going back: a file can be decoded forwards alone, and from
        its start for each frame would take hours. The block is as long as its bytes allow."""
        first = max(last - max(_BLOCK_BYTES // self._frame_bytes, 1) + 1, 0)
        self._block = {index: self._decode(index) for index in range(first, last + 1)}

    def _decode(self, index: int) -> np.ndarray:
        if index < self._next:
            self._open()
        while self._next < index and self._capture.grab():
            self._next += 1
        is_read, image = self._capture.read()
        if not is_read or self._next != index:
            raise ValueError(f"frame {index} of {self.path} cannot be decoded: copy it again")
        self._next += 1
        self._frame_bytes = image.nbytes
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _average_rate(times: Sequence[float], told: float) -> float:
    """Frames a second, from the `times` in seconds at which they are shown.

    `told`, what the container says, is more exact for a constant rate: times may be rounded to
    milliseconds. It counts where it comes to the same duration, or where there are no times.
    """
    duration = max(times) - min(times)  # from the first frame to the last
    if duration <= 0:
        return told if 1 <= told <= 240 else 24.0  # containers hold all kinds of nonsense
    if told > 0 and abs((len(times) - 1) / told - duration) <= 0.01:
        return told
    return (len(times) - 1) / duration
