"""Export of masks: palette PNGs, overlay videos that browsers play, and zip files as streams."""

from __future__ import annotations

import contextlib
import io
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image

from util.files import atomic_path
from util.masks import DAVIS_PALETTE, PNG_COMPRESSION, write_mask
from util.overlay import blend

if TYPE_CHECKING:
    import av.container

# Encoders that browsers can decode, in the order of preference, with their options.
_ENCODERS = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libopenh264": {"b": "8000000"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "0"},
}
_BT709 = 1  # number of this colour standard in video files
_LIMITED_RANGE = 1  # luma from 16 to 235
_COMPRESSED_SUFFIXES = (".png", ".mp4")  # stored in zip files as they are
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest date of the format


def make_palette(colours: Mapping[int, str]) -> bytes:
    """Palette of 768 bytes with the colours of objects; other labels have DAVIS colours.

    Args:
        colours: "#rrggbb" by label, 1 to 255.

    Raises:
        ValueError: a label or a colour is invalid.
    """
    palette = bytearray(DAVIS_PALETTE)
    for label, colour in colours.items():
        if not 1 <= label <= 255:
            raise ValueError(f"A label must be from 1 to 255; it is {label}.")
        if not re.fullmatch("#[0-9a-fA-F]{6}", colour):
            raise ValueError(f"The colour of label {label} must be #rrggbb; it is {colour!r}.")
        palette[3 * label : 3 * label + 3] = bytes.fromhex(colour[1:])
    return bytes(palette)


def write_masks(folder: Path, frames: Iterable[tuple[str, np.ndarray]], palette: bytes) -> None:
    """Write palette PNGs <folder>/<name>.png.

    Args:
        frames: names and labels (H, W) uint8.
        palette: 768 bytes.
    """
    for name, labels in frames:
        write_mask(folder / f"{name}.png", labels, palette)


def mask_pngs(
    frames: Iterable[tuple[str, np.ndarray]], palette: bytes
) -> Iterator[tuple[str, bytes]]:
    """Yield names and the bytes of the files that `util.masks.write_mask` writes.

    Args:
        frames: names and labels (H, W) uint8.
        palette: 768 bytes.
    """
    for name, labels in frames:
        image = Image.fromarray(labels)
        image.putpalette(palette)
        with io.BytesIO() as file:
            image.save(file, format="PNG", compress_level=PNG_COMPRESSION)
            yield name, file.getvalue()


def find_encoder() -> str:
    """Name of the first available encoder for overlay videos.

    Raises:
        ValueError: PyAV or all encoders are missing.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError(
            "Overlay videos need PyAV: pip install -r requirements-annotator.txt, or export masks "
            "only."
        ) from error
    for name in _ENCODERS:
        with contextlib.suppress(ValueError):  # av.codec.UnknownCodecError
            av.Codec(name, "w")
            return name
    raise ValueError(
        f"PyAV has no encoder for videos that browsers play ({', '.join(_ENCODERS)}): reinstall it "
        "with pip install --force-reinstall --only-binary av av, or export masks only."
    )


def write_overlay(
    path: Path,
    frames: Iterable[tuple[np.ndarray, np.ndarray]],
    size: tuple[int, int],
    fps: float | Fraction,
    palette: bytes,
) -> None:
    """Write an overlay video that browsers play: H.264 in MP4, or VP9 without an H.264 encoder.

    Frames are encoded as they come; the file appears when it is complete. An odd last row or
    column is repeated, since the pixel format needs even sizes.

    Args:
        path: file name that ends in .mp4.
        frames: images (H, W, 3) uint8 RGB and labels (H, W) uint8.
        size: (H, W) of all frames.
        fps: constant frame rate in frames per second.
        palette: 768 bytes.

    Raises:
        ValueError: an argument is invalid, there is no frame, a frame has another size, or PyAV or
            its encoders are missing.
        OSError: the file cannot be written.
    """
    if path.suffix != ".mp4":
        raise ValueError(f"An overlay video must end in .mp4; got {path}.")
    if min(size) < 1 or not 0 < fps < math.inf:
        raise ValueError(f"{path} needs a size and a frame rate above 0; got {size} and {fps}.")
    encoder = find_encoder()
    import av  # slow, and not a requirement of the rest

    num_frames = 0
    with (
        atomic_path(path, is_durable=False) as temporary,
        # The index comes first, so that a browser plays the file while it loads.
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as file,
    ):
        stream = _add_stream(file, encoder, size, fps)
        for image, labels in frames:
            if image.shape != (*size, 3):
                raise ValueError(
                    f"Frame {num_frames} of {path} is {image.shape[1]}x{image.shape[0]} (width x "
                    f"height), but the video is {size[1]}x{size[0]}."
                )
            drawn = blend(image, labels, palette)
            bottom, right = size[0] % 2, size[1] % 2
            drawn = np.pad(drawn, ((0, bottom), (0, right), (0, 0)), "edge")
            frame = av.VideoFrame.from_ndarray(drawn, "rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            frame.pts = num_frames
            frame.time_base = stream.codec_context.time_base
            file.mux(stream.encode(frame))
            num_frames += 1
        if not num_frames:
            raise ValueError(f"The video {path} has no frames, so it was not written.")
        file.mux(stream.encode())


def zip_stream(members: Iterable[tuple[str, bytes | Iterable[bytes]]]) -> Iterator[bytes]:
    """Yield the bytes of a zip file in bounded memory.

    Members are made when their turn comes. Equal members give equal bytes, since all dates are
    fixed. PNG and MP4 files are stored, others are compressed.

    Args:
        members: names and contents. Contents of unknown size come in pieces.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name, _ZIP_DATE)
            info.external_attr = 0o644 << 16
            if not name.lower().endswith(_COMPRESSED_SUFFIXES):
                info.compress_type = zipfile.ZIP_DEFLATED
            if isinstance(content, bytes):
                archive.writestr(info, content)
                yield from sink.take()
                continue
            with archive.open(info, "w", force_zip64=True) as member:
                for piece in content:
                    member.write(piece)
                    yield from sink.take()
            yield from sink.take()
    yield from sink.take()


class _Sink(io.RawIOBase):
    """File without positions that keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        assert isinstance(data, bytes | bytearray | memoryview)
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> Iterator[bytes]:
        """Yield what was written since the last call, as one piece."""
        pieces, self._pieces = self._pieces, []
        if pieces:
            yield b"".join(pieces)


def _add_stream(
    file: av.container.OutputContainer, encoder: str, size: tuple[int, int], fps: float | Fraction
) -> av.VideoStream:
    """Add a video stream with even sides, yuv420p and the colours of BT.709."""
    # Rates of NTSC have the denominator 1001.
    rate = max(Fraction(fps).limit_denominator(1001), Fraction(1, 1001))
    stream = cast("av.VideoStream", file.add_stream(encoder, rate, options=_ENCODERS[encoder]))
    stream.height, stream.width = size[0] + size[0] % 2, size[1] + size[1] % 2
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = 1 / rate
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED_RANGE
    return stream
