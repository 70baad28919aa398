"""Masks drawn over images, and videos of them."""

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
    """Tint each object with its palette colour and outline it, one pixel wide and opaque.

    image: (H, W, 3) uint8 RGB; labels: (H, W) uint8, 0 stays as it is; palette: 768 bytes, RGB
    for each label; alpha: share of the colour inside an object, 0 to 1. Returns (H, W, 3) uint8.
    The outline lies inside the object, also where two objects touch; the image's border has none.

    Raises ValueError where shapes, types or alpha do not fit.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"An overlay needs an (H, W, 3) uint8 image; got {image.shape} {image.dtype}."
        )
    if labels.shape != image.shape[:2] or labels.dtype != np.uint8:
        raise ValueError(
            f"The mask must be uint8 of the image's size {image.shape[:2]}; "
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
    """(H, W) bool: the object pixels that have another label above, below, left or right."""
    edge = np.zeros(labels.shape, bool)
    vertical = labels[1:] != labels[:-1]
    horizontal = labels[:, 1:] != labels[:, :-1]
    edge[1:] |= vertical
    edge[:-1] |= vertical
    edge[:, 1:] |= horizontal
    edge[:, :-1] |= horizontal
    return edge & (labels > 0)


class OverlayVideo:
    """Writes a video frame by frame; the file appears under its name only when it is whole.

    `path` ends in .mp4 or .avi; where this machine's OpenCV cannot write mp4, an .avi takes its
    place with a warning, and the attribute `path` says where the video is. size: (height, width)
    of the frames; an odd side gets its last row or column twice, because OpenCV would cut it off
    to reach an even size. fps: frames per second, rounded to what MPEG-4 can say: 3 decimals, fewer
    from 65.5 on, and 0.01 at least.

        with OverlayVideo("out/clip.mp4", (480, 854), fps=24) as video:
            video.write(blend(image, labels, palette))
    """

    def __init__(self, path: Path | str, size: tuple[int, int], fps: float) -> None:
        path = Path(path)
        if not str(path).isprintable():  # undecodable bytes crash OpenCV
            raise ValueError(f"OpenCV cannot write a video named {str(path)!r}: rename it.")
        if path.suffix not in CODECS:
            raise ValueError(f"A video's name must end in {' or '.join(CODECS)}; got {path}.")
        if min(size) < 1 or fps <= 0:
            raise ValueError(f"{path} needs a size and a frame rate above 0; got {size}, {fps}.")
        self.size = size
        self.fps = _rounded_rate(fps)
        self._video_size = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        self.path = _writable(path, self._video_size, self.fps)
        self.num_frames = 0

    def __enter__(self) -> OverlayVideo:
        self._files = contextlib.ExitStack()
        self._temporary = self._files.enter_context(atomic_path(self.path))
        self._writer = _open(self._temporary, self._video_size, self.fps)
        return self

    def write(self, image: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8 RGB. Raises ValueError where its size is another."""
        if image.shape != (*self.size, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"Frame {self.num_frames} of {self.path} must be {(*self.size, 3)} uint8; "
                f"it is {image.shape} {image.dtype}."
            )
        # OpenCV drops frames of a wrong size and reports no failure: hence the checks.
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        below, right = (even - own for even, own in zip(self._video_size, self.size, strict=True))
        self._writer.write(cv2.copyMakeBorder(bgr, 0, below, 0, right, cv2.BORDER_REPLICATE))
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
        with self._files:  # a failed check leaves no file behind, as an exception of the block does
            self._check_whole()

    def _check_whole(self) -> None:
        if self.num_frames == 0:
            raise ValueError(f"No frame was given for {self.path}, so no video was written.")
        reader = cv2.VideoCapture(str(self._temporary))
        try:
            written = int(reader.get(cv2.CAP_PROP_FRAME_COUNT))
            height = int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT))
            width = int(reader.get(cv2.CAP_PROP_FRAME_WIDTH))
        finally:
            reader.release()
        wanted = (self.num_frames, *self._video_size)
        if (written, height, width) != wanted:
            raise ValueError(
                f"{self.path} came out as {(written, height, width)} (frames, height, width) "
                f"instead of {wanted}; is the disk full?"
            )


def _rounded_rate(fps: float) -> float:
    """OpenCV makes a fraction of it, over a power of ten; MPEG-4 wants its numerator in 16 bits."""
    fps = min(max(fps, 0.01), 1000)
    return round(fps, max(decimals for decimals in range(4) if fps * 10**decimals < 2**16 - 1))


def _open(path: Path, size: tuple[int, int], fps: float) -> cv2.VideoWriter:
    codec = cv2.VideoWriter.fourcc(*CODECS[path.suffix])
    return cv2.VideoWriter(str(path), codec, fps, (size[1], size[0]))


def _writable(path: Path, size: tuple[int, int], fps: float) -> Path:
    """`path`, or its .avi twin, whichever this OpenCV opens for writing."""
    for suffix in dict.fromkeys((path.suffix, ".avi")):
        with tempfile.TemporaryDirectory() as folder:
            writer = _open(Path(folder, f"probe{suffix}"), size, fps)
            is_open = writer.isOpened()
            writer.release()
        if is_open:
            if suffix != path.suffix:
                warnings.warn(
                    f"OpenCV cannot write {path.suffix} here; writing "
                    f"{path.with_suffix(suffix)} (Motion JPEG) instead.",
                    stacklevel=3,
                )
            return path.with_suffix(suffix)
    raise ValueError(
        f"OpenCV can open neither mp4v nor MJPG for {path} at {size[0]} x {size[1]}; install "
        f"opencv-python-headless, which brings its own codecs, or write masks only."
    )
