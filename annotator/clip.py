"""Frames of a clip at random access: a video file or a folder of images.

Only the frames that are needed are decoded. Memory use does not depend on the length of the clip.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np

from datasets.video import check_numbering
from util.images import image_size, list_frames, read_image

_JPEG_QUALITY = 90
_JPEG_BYTES = 64 * 2**20  # encoded frames that are kept for the pages


class Clip(ABC):
    """The frames of one clip; safe to use from several threads.

    Attributes:
        path: the file or folder.
        name: of the clip, without suffix.
        frame_files: file of each frame; of a video file, <path>/<number with five digits>.
        frame_names: their stems, which are those of the masks.
        size: (H, W) of all frames in pixels, as players show them.
        fps: frames per second.
    """

    def __init__(
        self, path: Path, name: str, frame_files: list[Path], size: tuple[int, int], fps: float
    ) -> None:
        self.path, self.name, self.frame_files = path, name, frame_files
        self.frame_names = [file.stem for file in frame_files]
        self.size, self.fps = size, fps
        self._lock = threading.Lock()
        self._jpegs: OrderedDict[int, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self.frame_names)

    def __getitem__(self, index: int) -> np.ndarray:
        """Decode one frame, (H, W, 3) uint8 RGB.

        Raises:
            ValueError: there is no such frame, it cannot be decoded, or it has another size.
        """
        if not 0 <= index < len(self):
            raise ValueError(f"There is no frame {index}: {self.name} has {len(self)} frames.")
        with self._lock:
            image = self._decode(index)
        if image.shape[:2] != self.size:
            raise ValueError(
                f"Frame {index} of {self.path} is {image.shape[1]}x{image.shape[0]} (width x "
                f"height), but the clip is {self.size[1]}x{self.size[0]}: all frames of a clip "
                "need the same size."
            )
        return image

    def jpeg(self, index: int) -> bytes:
        """Return one frame as a JPEG at its own size; raises as `__getitem__` does."""
        with self._lock:
            if index in self._jpegs:
                self._jpegs.move_to_end(index)
                return self._jpegs[index]
        image = self[index]
        settings = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
        data = encoded.tobytes()
        with self._lock:
            self._jpegs[index] = data
            while sum(map(len, self._jpegs.values())) > _JPEG_BYTES:
                self._jpegs.popitem(last=False)
        return data

    @abstractmethod
    def reopen(self) -> Clip:
        """Return a second reader of the clip, whose position in the file is its own."""

    def close(self) -> None:  # noqa: B027, a folder has nothing to close
        """Close the file; the clip cannot be used any more."""

    @abstractmethod
    def _decode(self, index: int) -> np.ndarray: ...


class FolderClip(Clip):
    """A folder of images in natural order.

    Raises:
        FileNotFoundError, ValueError: see `util.images.list_frames` and
            `datasets.video.check_numbering`.
    """

    def __init__(self, path: Path, fps: float = 24.0) -> None:
        self._paths = list_frames(path)
        check_numbering(self._paths)
        height, width = image_size(self._paths[0])
        name = path.resolve().name
        super().__init__(path, name, self._paths, (height, width), fps)

    def reopen(self) -> FolderClip:
        """See Clip."""
        return self  # each frame is a file of its own

    def _decode(self, index: int) -> np.ndarray:
        return read_image(self._paths[index])
