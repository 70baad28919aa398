"""Reader of a video file (mp4, mov, avi, webm, ...), decoded one frame at a time."""

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

# Memory of the frames decoded in advance when a file is read backwards.
_BLOCK_BYTES = 256 * 2**20


class VideoFile(Video):
    """The frames of a video file, rotated as video players display them.

    Every coded frame is one frame, whatever its duration. Its name is its number from 0 with five
    digits, and the written masks have the same names. `fps` is the average rate from the first to
    the last frame, so an overlay video of a file with a variable rate has the same duration, apart
    from the duration of the last frame.

    A warning is printed if fewer frames can be decoded than the header announces: the file is
    truncated, or an editor trimmed it without removing the hidden frames. Messages of FFmpeg are
    off; OPENCV_FFMPEG_LOGLEVEL=16 in the environment turns them on.

    Args:
        path: the video file.
        masks: a mask file of the first frame, with any name; or a folder of masks named by frame
            number, such as 00040.png, in which later masks correct the objects that they contain.
        shorter_side: shorter side of the working size in pixels; None keeps the original size.

    Raises:
        FileNotFoundError: the file or the masks do not exist.
        ValueError: the file cannot be decoded, or the masks are invalid.
    """

    def __init__(self, path: Path, masks: Path, shorter_side: int | None = None) -> None:
        if not masks.exists():
            raise FileNotFoundError(
                f"the mask {masks} does not exist: give a mask of the first frame"
            )
        self._decoder = VideoDecoder(path)
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


class VideoDecoder:
    """Decoder of single frames by number, efficient for both reading directions.

    Backwards, it decodes a block of frames at a time.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"the video {path} does not exist: check the path")
        self.path = path
        self._block: dict[int, np.ndarray] = {}  # decoded in advance, when reading backwards
        self._latest = -1  # frame requested last
        self._frame_bytes = _BLOCK_BYTES  # size of one frame, known after the first one
        self._lock = threading.Lock()
        self._open()
        if not self._capture.isOpened():
            raise ValueError(
                f"{path} cannot be decoded as a video: convert it to MP4 (H.264), or extract its "
                "frames into a folder"
            )
        self.fps, self.num_frames = self._scan()
        self._open()

    def _scan(self) -> tuple[float, int]:
        """Measure frame rate and number of frames by decoding all; headers are often wrong."""
        header_fps = self._capture.get(cv2.CAP_PROP_FPS)
        header_frames = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        times = []  # seconds; 0 if the file has no time stamps
        while self._capture.grab():
            times.append(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        if not times:
            raise ValueError(f"no frame of {self.path} can be decoded: copy the file again")
        fps = _average_rate(times, header_fps)
        duration = len(times) / fps
        # The number of frames in the header is an estimate if the rate varies, so durations are
        # compared too.
        if (
            header_fps > 0
            and header_frames / header_fps > duration + 1 / fps
            and header_frames > len(times)
        ):
            warnings.warn(
                f"{self.path} has a duration of {header_frames / header_fps:.1f} s in its header, "
                f"but only {len(times)} frames, {duration:.1f} s, can be decoded: unless it was "
                "trimmed, it is truncated; copy it again",
                stacklevel=2,
            )
        return fps, len(times)

    def _open(self) -> None:
        # FFmpeg's messages name no file. The first capture of the process reads the variable.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")
        self._capture = cv2.VideoCapture(str(self.path))
        self._next = 0

    def read(self, index: int) -> np.ndarray:
        """Decode one frame, (H, W, 3) uint8 RGB."""
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
        """Decode a block of frames that ends at frame `last`.

        Files can only be decoded forwards, and decoding from the start for every frame would take
        hours.
        """
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


def _average_rate(times: Sequence[float], header_fps: float) -> float:
    """Average frame rate in frames per second.

    The rate in the header is more exact if it is constant, since times may be rounded to
    milliseconds. It is used if it gives the same duration, or if the file has no time stamps.

    Args:
        times: time stamps of the frames in seconds.
        header_fps: frame rate in the header.
    """
    duration = max(times) - min(times)  # from the first frame to the last
    if duration <= 0:
        return header_fps if 1 <= header_fps <= 240 else 24.0  # headers may be invalid
    if header_fps > 0 and abs((len(times) - 1) / header_fps - duration) <= 0.01:
        return header_fps
    return (len(times) - 1) / duration
