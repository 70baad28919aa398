"""Overlays of masks on images, and overlay videos."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from util.files import atomic_path

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}  # in the order of preference


def blend(image: np.ndarray, labels: np.ndarray, palette: bytes, alpha: float = 0.5) -> np.ndarray:
    """Draw each object in its palette colour, with an opaque contour of one pixel.

    The contour lies inside the object, also where two objects touch. There is no contour at the
    border of the image.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8; background pixels (0) do not change.
        palette: 768 bytes, RGB for each label.
        alpha: opacity of the colour inside an object, 0 to 1.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: a shape, type, palette or alpha is invalid.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"An overlay needs an (H, W, 3) uint8 image; got {image.shape} {image.dtype}."
        )
    if labels.shape != image.shape[:2] or labels.dtype != np.uint8:
        raise ValueError(
            f"The mask must be uint8 and of the size of the image {image.shape[:2]}; "
            f"got {labels.shape} {labels.dtype}."
        )
    if len(palette) != 768:
        raise ValueError(f"A palette has 768 bytes, three for each label; got {len(palette)}.")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be from 0 to 1; it is {alpha}.")
    colours = np.frombuffer(palette, np.uint8).reshape(256, 3)[labels]
    tinted = cv2.addWeighted(image, 1 - alpha, colours, alpha, 0)
    result = np.where((labels > 0)[..., None], tinted, image)
    outline = contours(labels)
    result[outline] = colours[outline]
    return result


def contours(labels: np.ndarray) -> np.ndarray:
    """Object pixels with another label above, below, left or right, (H, W) bool."""
    edge = np.zeros(labels.shape, bool)
    vertical = labels[1:] != labels[:-1]
    horizontal = labels[:, 1:] != labels[:, :-1]
    edge[1:] |= vertical
    edge[:-1] |= vertical
    edge[:, 1:] |= horizontal
    edge[:, :-1] |= horizontal
    return edge & (labels > 0)


class OverlayVideo:
    """Writer of a video, frame by frame; the file appears when it is complete.

    Args:
        path: file name that ends in .mp4 or .avi. If OpenCV cannot write mp4 on this machine, an
            .avi is written with a warning; the attribute `path` is the file that is written.
        size: (height, width) of the frames. An odd last row or column is duplicated, since OpenCV
            would remove it to get an even size.
        fps: frames per second, rounded to the precision of MPEG-4: 3 decimals, fewer from 65.5,
            at least 0.01.

    Raises:
        ValueError: the name, size or frame rate is invalid, or OpenCV has no codec for it.

    Example:
        with OverlayVideo("out/clip.mp4", (480, 854), fps=24) as video:
            video.write(blend(image, labels, palette))
    """

    def __init__(self, path: Path | str, size: tuple[int, int], fps: float) -> None:
        path = Path(path)
        if not str(path).isprintable():  # undecodable bytes crash OpenCV
            raise ValueError(f"OpenCV cannot write a video with the name {str(path)!r}: rename it.")
        if path.suffix not in CODECS:
            raise ValueError(f"A video file must end in {' or '.join(CODECS)}; got {path}.")
        if min(size) < 1 or fps <= 0:
            raise ValueError(f"{path} needs a size and a frame rate above 0; got {size} and {fps}.")
        self.size = size
        self.fps = _round_fps(fps)
        self._video_size = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        self.path = _writable_path(path, self._video_size, self.fps)
        self.num_frames = 0

    def __enter__(self) -> OverlayVideo:
        self._files = contextlib.ExitStack()
        self._temporary = self._files.enter_context(atomic_path(self.path))
        self._writer = _open(self._temporary, self._video_size, self.fps)
        return self

    def write(self, image: np.ndarray) -> None:
        """Append a frame.

        Args:
            image: (H, W, 3) uint8 RGB.

        Raises:
            ValueError: the size or type of the frame is wrong.
        """
        if image.shape != (*self.size, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"Frame {self.num_frames} of {self.path} must be {(*self.size, 3)} uint8; "
                f"it is {image.shape} {image.dtype}."
            )
        # The check above is needed, since OpenCV silently drops frames of a wrong size.
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        bottom, right = (
            even - size for even, size in zip(self._video_size, self.size, strict=True)
        )
        self._writer.write(cv2.copyMakeBorder(bgr, 0, bottom, 0, right, cv2.BORDER_REPLICATE))
        self.num_frames += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.release()
        if error is not None:
            self._files.__exit__(kind, error, trace)
            return
        with self._files:  # a failed check removes the temporary file
            self._check_complete()

    def _check_complete(self) -> None:
        if self.num_frames == 0:
            raise ValueError(f"The video {self.path} has no frames, so it was not written.")
        reader = cv2.VideoCapture(str(self._temporary))
        try:
            num_frames = int(reader.get(cv2.CAP_PROP_FRAME_COUNT))
            height = int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT))
            width = int(reader.get(cv2.CAP_PROP_FRAME_WIDTH))
        finally:
            reader.release()
        expected = (self.num_frames, *self._video_size)
        if (num_frames, height, width) != expected:
            raise ValueError(
                f"{self.path} is incomplete: (frames, height, width) are "
                f"{(num_frames, height, width)} instead of {expected}; check whether the disk is "
                "full."
            )


def _round_fps(fps: float) -> float:
    """Round a frame rate so that MPEG-4 can store it.

    OpenCV converts the rate to a fraction with a power of ten as denominator. MPEG-4 stores the
    numerator in 16 bits.
    """
    fps = min(max(fps, 0.01), 1000)
    return round(fps, max(decimals for decimals in range(4) if fps * 10**decimals < 2**16 - 1))


def _open(path: Path, size: tuple[int, int], fps: float) -> cv2.VideoWriter:
    codec = cv2.VideoWriter.fourcc(*CODECS[path.suffix])
    return cv2.VideoWriter(str(path), codec, fps, (size[1], size[0]))


def _writable_path(path: Path, size: tuple[int, int], fps: float) -> Path:
    """Return `path`, or the same name with .avi if OpenCV cannot open `path` for writing.

    Raises:
        ValueError: OpenCV can write neither.
    """
    for suffix in dict.fromkeys((path.suffix, ".avi")):
        with tempfile.TemporaryDirectory() as folder:
            writer = _open(Path(folder, f"probe{suffix}"), size, fps)
            is_open = writer.isOpened()
            writer.release()
        if is_open:
            if suffix != path.suffix:
                warnings.warn(
                    f"OpenCV cannot write {path.suffix} on this machine; writing "
                    f"{path.with_suffix(suffix)} (Motion JPEG) instead.",
                    stacklevel=3,
                )
            return path.with_suffix(suffix)
    raise ValueError(
        f"OpenCV can open neither mp4v nor MJPG for {path} at {size[0]} x {size[1]}; install "
        f"opencv-python-headless, which includes its codecs, or write masks only."
    )
