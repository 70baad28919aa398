"""Video files at random access, decoded by PyAV (FFmpeg)."""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from annotator.clip import Clip, FolderClip
from datasets.video_file import VideoDecoder
from util.images import IMAGE_SUFFIXES

if TYPE_CHECKING:
    import av

# Decoded frames kept for small steps backwards; a 1080p frame takes 3 MB before its conversion.
_KEPT_BYTES = 128 * 2**20
# A seek costs about as much as decoding this many frames.
_SEEK_COST = 8
# Frames whose time stamps are compared with the index when a file is opened.
_CHECKED = 16


def open_clip(path: Path) -> Clip:
    """Open a video file or a folder of frames.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it cannot be read; or PyAV, which decodes files, is not installed.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"The video {path} does not exist: give a video file or a folder of frames."
        )
    if path.is_dir():
        return FolderClip(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"{path} is an image, not a video: give the folder of the frames.")
    return VideoClip(path)


class VideoClip(Clip):
    """A video file whose frames are found by their time stamps.

    All packets are listed once without decoding them. A frame is then decoded from the key frame
    before it. Files without time stamps are decoded from their start, which is exact but slow.
    Frames have the same numbers as in `datasets.video_file.VideoFile`.

    Raises:
        ValueError: the file cannot be decoded, or PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._file, self._stream = _open(path)
        self._index = _Index(self._file, self._stream)
        self._restart()
        self._kept: OrderedDict[int, av.VideoFrame] = OrderedDict()
        self._linear: VideoDecoder | None = None
        if self._index.is_usable and self._has_true_times():
            num_frames, fps = len(self._index.times), self._index.fps
        else:
            self._linear = VideoDecoder(path)
            num_frames, fps = self._linear.num_frames, self._linear.fps
        files = [path / f"{index:05d}" for index in range(num_frames)]
        super().__init__(path, path.stem, files, (1, 1), fps)
        height, width = self._decode(0).shape[:2]
        self.size = (height, width)

    def reopen(self) -> VideoClip:
        """See Clip."""
        return VideoClip(self.path)

    def close(self) -> None:
        """See Clip."""
        self._file.close()

    def _has_true_times(self) -> bool:
        """Return True if the first frames have the time stamps of the index."""
        self._seek(0)
        numbers = []
        with contextlib.suppress(OSError, ValueError):  # a damaged frame is named when it is read
            for frame in itertools.islice(self._frames, _CHECKED):
                numbers.append(self._index.number_of(frame.pts))
        self._seek(0)
        return numbers == [*range(len(numbers))]

    def _seek(self, key: int) -> None:
        """Continue decoding from a key frame."""
        time = self._index.seek_times[key]
        self._file.seek(time, backward=True, any_frame=False, stream=self._stream)
        self._restart()

    def _restart(self) -> None:
        self._frames: Iterator[av.VideoFrame] = self._file.decode(self._stream)
        self._next: int | None = None  # number of the next decoded frame; None: unknown

    def _decode(self, index: int) -> np.ndarray:
        if self._linear is not None:
            return self._linear.read(index)
        if index not in self._kept:
            self._decode_to(index)
        self._kept.move_to_end(index)
        frame = self._kept[index]
        image = frame.to_ndarray(format="rgb24")
        # FFmpeg's rotation is counterclockwise in degrees, as that of np.rot90.
        return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))

    def _decode_to(self, index: int) -> None:
        """Decode up to a frame and keep it; decode from earlier key frames if it does not appear.

        Raises:
            ValueError: the frame cannot be decoded from any key frame.
        """
        keys = [key for key in self._index.keys if key <= index]
        if self._next is not None and self._next <= index:
            distance = index - self._next
            is_near = distance < _SEEK_COST or (bool(keys) and keys[-1] <= self._next)
            if is_near and self._read_until(index):
                return
        # A stream may need frames from before its nearest key frame.
        for key in [*keys[-1:], *keys[-2:-1], 0]:
            self._seek(key)
            if self._read_until(index):
                return
        raise ValueError(
            f"Frame {index} of {self.path} cannot be decoded: the file is damaged there. Copy it "
            "again, or convert it to MP4 (H.264)."
        )

    def _read_until(self, index: int) -> bool:
        """Decode forwards; return True once frame `index` is kept, False if it is passed."""
        try:
            for frame in self._frames:
                number = self._index.number_of(frame.pts)
                if number is None:
                    continue
                self._next = number + 1
                if number > index:
                    return False
                self._keep(number, frame)
                if number == index:
                    return True
        except (OSError, ValueError):  # PyAV's errors of damaged data are among them
            pass
        self._next = None
        return False

    def _keep(self, number: int, frame: av.VideoFrame) -> None:
        self._kept[number] = frame
        self._kept.move_to_end(number)
        size = frame.width * frame.height * 3 // 2
        while len(self._kept) > max(_KEPT_BYTES // size, 2):
            self._kept.popitem(last=False)


class _Index:
    """Time stamps of all frames in the order of presentation, and which are key frames."""

    def __init__(self, file: Any, stream: Any) -> None:
        packets = [
            (packet.pts, packet.dts, packet.is_keyframe)
            for packet in file.demux(stream)
            if packet.size and not packet.is_discard
        ]
        times = [pts for pts, _, _ in packets]
        self.is_usable = bool(times) and None not in times and len({*times}) == len(times)
        if not self.is_usable:
            return
        packets.sort(key=lambda packet: packet[0])
        self.times: list[int] = [pts for pts, _, _ in packets]
        self.keys = [number for number, packet in enumerate(packets) if packet[2]] or [0]
        # Containers seek to the last key frame with a pts or dts up to the given time. The dts is
        # the earlier one in streams that reorder frames: seeking to it may end one key frame too
        # early, and seeking to the pts too late if the next key frame's dts is not after it.
        self.seek_times: dict[int, int] = {}
        starts = sorted({0, *self.keys})
        for start, following in itertools.zip_longest(starts, starts[1:]):
            pts, dts, _ = packets[start]
            next_dts = None if following is None else packets[following][1]
            is_safe = dts is None or next_dts is None or next_dts > pts
            self.seek_times[start] = pts if is_safe else min(dts, pts)
        duration = (self.times[-1] - self.times[0]) * stream.time_base
        rate = (len(self.times) - 1) / duration if duration else Fraction(0)
        header = stream.average_rate or Fraction(0)
        # The rate in the header is more exact if it is constant: time stamps may be rounded.
        is_constant = rate == 0 or abs(header - rate) < rate / 200
        self.fps = float(header if header and is_constant else rate) or 24.0

    def number_of(self, time: int | None) -> int | None:
        """Return the number of the frame with a time stamp; None if there is none."""
        if time is None:
            return None
        number = bisect.bisect_left(self.times, time)
        return number if number < len(self.times) and self.times[number] == time else None


def _open(path: Path) -> tuple[Any, Any]:
    """Open the video stream of a file."""
    try:
        import av
    except ImportError as error:
        raise ValueError(
            "Video files are read by PyAV, which is not installed: pip install -r "
            "requirements-annotator.txt, or give a folder of frames."
        ) from error
    try:
        file = av.open(str(path))
        stream = file.streams.video[0]
    except (OSError, ValueError, IndexError) as error:
        raise ValueError(
            f"{path} cannot be decoded as a video: convert it to MP4 (H.264), or extract its "
            "frames into a folder."
        ) from error
    stream.thread_type = "AUTO"
    return file, stream
