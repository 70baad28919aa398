"""Clips of the annotator: exact frames of files and folders in any order, and gaps to propagate."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from annotator.demo_clip import DemoClip
from annotator.errors import SessionError
from annotator.gaps import Gap, annotated_frames, frames_of, plan
from annotator.video_clip import open_clip
from datasets.video_file import VideoDecoder
from tests.test_video_file import HEIGHT, NUM_FRAMES, WIDTH, level, turned, write_clip

av = pytest.importorskip("av")


def write_coded(path: Path, codec: str, num_frames: int = 60, has_gaps: bool = False) -> None:
    """Write frames that show their numbers as eight black or white columns."""
    random.seed(0)
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(codec, rate=30)
        stream.width, stream.height = 160, 96
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.options = {"g": "12", "bf": "2"} if codec == "libx264" else {}
        if has_gaps:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        time = 0
        for number in range(num_frames):
            image = np.zeros((96, 160, 3), np.uint8)
            for bit in range(8):
                image[:, 20 * bit : 20 * bit + 20] = 255 * (number >> bit & 1)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if has_gaps:
                time += random.choice([20, 33, 50, 100])
                frame.pts, frame.time_base = time, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def number_in(image: np.ndarray) -> int:
    columns = (image[40:60, 20 * bit + 5 : 20 * bit + 15].mean() > 128 for bit in range(8))
    return sum(is_white << bit for bit, is_white in enumerate(columns))


@pytest.mark.parametrize(
    ("name", "codec", "has_gaps"),
    [
        ("a.mp4", "libx264", False),
        ("b.mkv", "libx264", True),
        ("c.avi", "mjpeg", False),
        ("d.avi", "libx264", False),  # its packets have wrong time stamps
        ("e.webm", "libvpx-vp9", False),
    ],
)
def test_frames_of_files_in_any_order(
    name: str, codec: str, has_gaps: bool, tmp_path: Path
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec}")
    write_coded(tmp_path / name, codec, has_gaps=has_gaps)
    clip = open_clip(tmp_path / name)
    assert len(clip) == 60
    assert clip.size == (96, 160)
    order = [0, 59, 30, 29, 28, 31, 5, 58, 10, 11, 12, 13, 0]
    assert [number_in(clip[index]) for index in order] == order
    again = clip.reopen()
    assert [number_in(again[index]) for index in (44, 3)] == [44, 3]
    clip.close()
    # eval_generic.py reads the same files with OpenCV: frames and numbers agree.
    reader = VideoDecoder(tmp_path / name)
    assert reader.num_frames == len(again)
    assert clip.fps == pytest.approx(reader.fps, rel=0.01)
    assert [number_in(reader.read(index)) for index in (7, 40)] == [7, 40]


def test_rotation(tmp_path: Path) -> None:
    clip = open_clip(turned(write_clip(tmp_path / "clip.mp4"), tmp_path / "turned.mp4"))
    assert (len(clip), clip.size) == (NUM_FRAMES, (WIDTH, HEIGHT))
    assert clip[5][:14, -14:].mean() > 200, "the white corner must be at the top right"
    assert level(clip[20]) == pytest.approx(20, abs=0.45)


def test_folders_and_their_pages(tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number:05d}.png"), np.full((8, 12, 3), 40 * number, np.uint8))
    clip = open_clip(tmp_path)
    assert clip.frame_names == ["00000", "00001", "00002"]
    assert clip[2].mean() == 80
    decoded = cv2.imdecode(np.frombuffer(clip.jpeg(1), np.uint8), 1)
    assert decoded is not None
    assert decoded.shape == (8, 12, 3)
    assert clip.jpeg(1) is clip.jpeg(1), "encoded frames are kept"
    cv2.imwrite(str(tmp_path / "00001.png"), np.zeros((9, 12, 3), np.uint8))
    with pytest.raises(ValueError, match=r"Frame 1 of .* is 12x9"):
        open_clip(tmp_path)[1]


def test_wrong_files_end_in_sentences(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"text\.mp4 cannot be decoded as a video"):
        open_clip(tmp_path / "text.mp4")
    with pytest.raises(ValueError, match="is an image, not a video"):
        open_clip(tmp_path / "image.png")
    with pytest.raises(FileNotFoundError, match=r"none\.mp4 does not exist"):
        open_clip(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="There is no frame 60"):
        DemoClip()[60]


def test_a_truncated_file_names_the_frame(tmp_path: Path) -> None:
    write_coded(tmp_path / "a.mkv", "mpeg4")
    content = (tmp_path / "a.mkv").read_bytes()
    start = len(content) // 2
    (tmp_path / "a.mkv").write_bytes(content[:start] + bytes(start // 2))
    clip = open_clip(tmp_path / "a.mkv")
    assert number_in(clip[3]) == 3
    assert len(clip) < 60


def test_plans_of_propagation() -> None:
    annotated = [10, 40]
    assert plan(annotated, 100, 20, "forwards", "gap") == [Gap(10, 40, "forwards")]
    assert plan(annotated, 100, 40, "forwards", "gap") == [Gap(40, 99, "forwards")]
    assert plan(annotated, 100, 40, "backwards", "gap") == [Gap(10, 40, "backwards")]
    assert plan(annotated, 100, 5, "backwards", "gap") == [Gap(0, 10, "backwards")]
    assert plan(annotated, 100, 20, "both", "gap") == [Gap(10, 40, "both")]
    assert plan(annotated, 100, 10, "both", "gap") == [
        Gap(0, 10, "backwards"),
        Gap(10, 40, "both"),
    ]
    assert plan(annotated, 100, 0, "both", "all") == [
        Gap(0, 10, "backwards"),
        Gap(10, 40, "both"),
        Gap(40, 99, "forwards"),
    ]
    assert [gap.num_steps for gap in plan(annotated, 100, 0, "both", "all")] == [11, 62, 60]
    with pytest.raises(SessionError, match="no mask on frame 5 or before it"):
        plan(annotated, 100, 5, "forwards", "gap")
    with pytest.raises(SessionError, match="no mask on frame 50 or after it"):
        plan(annotated, 100, 50, "backwards", "gap")
    with pytest.raises(SessionError, match="draw one object on one frame first"):
        plan([], 100, 50, "both", "all")
    with pytest.raises(SessionError, match="nothing to propagate to"):
        plan([0], 1, 0, "forwards", "gap")


def test_memory_gets_neighbouring_annotations() -> None:
    annotated = [0, 10, 20, 30, 40]
    frames, offset = frames_of(Gap(20, 30, "forwards"), annotated)
    assert frames == [0, 10, 40, *range(20, 31)]
    assert offset == 3
    frames, offset = frames_of(Gap(20, 30, "backwards"), annotated)
    assert frames == [*range(20, 31), 10, 0, 40]
    assert offset == 0
    frames, offset = frames_of(Gap(20, 30, "both"), annotated)
    assert frames == [0, 10, *range(20, 31), 40]
    assert offset == 2
    states = {3: {1: "drawn"}, 5: {1: "empty"}, 9: {1: "accepted", 2: "empty"}}
    assert annotated_frames(states) == [3, 9]
