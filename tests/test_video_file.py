"""Video files: exact frames in any order, rotation, and segmentation with eval_generic.py."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import eval_generic
from datasets import video_file
from datasets.generic import one_video
from datasets.video_file import VideoFile
from util.masks import read_mask

NUM_FRAMES, HEIGHT, WIDTH = 23, 64, 96
# Rotation by 90 degrees clockwise, as phones write it in the header of the track.
ROTATION = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)


def write_clip(path: Path, fps: float = 30) -> Path:
    """Write frames of grey value 10 * frame number, with a white top left corner."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for number in range(NUM_FRAMES):
        frame = np.full((HEIGHT, WIDTH, 3), 10 * number, np.uint8)
        frame[:16, :16] = 255
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[10:40, 20:50] = 7
    Image.fromarray(labels).save(tmp_path / "first.png")
    return tmp_path / "first.png"


def turned(clip: Path, path: Path) -> Path:
    """Copy a clip with a rotation in its header."""
    content = bytearray(clip.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # the matrix, in version 0 of the box
    content[start : start + 36] = ROTATION
    path.write_bytes(content)
    return path


def level(image: np.ndarray) -> float:
    """Frame number that the grey value of an image encodes."""
    return float(np.median(image)) / 10


def test_frames_in_any_order(clip: Path, mask: Path) -> None:
    video = VideoFile(clip, mask)
    assert len(video) == NUM_FRAMES
    assert video.size == (HEIGHT, WIDTH)
    assert video.fps == pytest.approx(30)
    assert video.frame_names[:2] == ["00000", "00001"]
    for index, frame in enumerate(video):
        assert level(frame.image) == pytest.approx(index, abs=0.45)
    for index in (22, 3, 4, 0, 17):
        assert level(video[index].image) == pytest.approx(index, abs=0.45)
    assert video.annotated_labels == {0: [7]}


def test_rotation_is_applied(clip: Path, tmp_path: Path) -> None:
    labels = np.zeros((WIDTH, HEIGHT), np.uint8)
    labels[40:60, 10:30] = 1
    Image.fromarray(labels).save(tmp_path / "mask.png")
    video = VideoFile(turned(clip, tmp_path / "turned.mp4"), tmp_path / "mask.png")
    assert video.size == (WIDTH, HEIGHT)
    image = video[5].image
    assert image.shape == (WIDTH, HEIGHT, 3)
    assert image[:14, -14:].mean() > 200, "the white corner must be at the top right"
    assert image[-14:, :14].mean() < 100


def test_masks_on_several_frames(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for index, label in ((0, 1), (9, 4)):
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        labels[10 * label : 10 * label + 12, 30:60] = label
        Image.fromarray(labels).save(tmp_path / "masks" / f"{index:05d}.png")
    empty = Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8))
    empty.save(tmp_path / "masks" / "00005.png")  # predictions have such masks
    assert one_video(clip, tmp_path / "masks").annotated_labels == {0: [1], 9: [4]}
    for index in (0, 9):
        empty.save(tmp_path / "masks" / f"{index:05d}.png")
    with pytest.raises(ValueError, match="no mask of video clip has an object: draw one"):
        one_video(clip, tmp_path / "masks")


def test_segmentation_with_eval_generic(
    clip: Path, mask: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    flags = ["--video", clip, "--mask", mask, "--model", tiny_weights, "--output", output]
    flags += ["--device", "cpu", "--size", "48", "--overlay"]
    assert eval_generic.main([*map(str, flags)]) == 0
    assert f"1 videos, {NUM_FRAMES} frames" in capsys.readouterr().out
    written = sorted((output / "clip").glob("*.png"))
    assert [path.stem for path in written] == [f"{index:05d}" for index in range(NUM_FRAMES)]
    first = read_mask(written[0], (HEIGHT, WIDTH), allow_empty=True).labels
    assert {*np.unique(first)} == {0, 7}
    overlay = cv2.VideoCapture(str(next(output.glob("clip.*"))))
    assert overlay.get(cv2.CAP_PROP_FPS) == pytest.approx(30)
    assert eval_generic.main([*map(str, flags)]) == 0
    assert "1 videos were complete before" in capsys.readouterr().out


def test_invalid_files_are_rejected(
    clip: Path, mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="cannot be decoded as a video: convert it to MP4"):
        VideoFile(tmp_path / "text.mp4", mask)
    with pytest.raises(FileNotFoundError, match=r"video .*absent.mp4 does not exist"):
        one_video(tmp_path / "absent.mp4", mask)
    with pytest.raises(FileNotFoundError, match=r"mask .*absent.png does not exist"):
        one_video(clip, tmp_path / "absent.png")
    Image.new("L", (10, 10), 1).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match="10x10"):
        VideoFile(clip, tmp_path / "small.png")
    with pytest.raises(SystemExit):
        eval_generic.main(["--video", str(clip), "--output", "o"])
    assert "--video and --mask belong together" in capsys.readouterr().err


def test_reading_backwards_decodes_blocks(
    clip: Path, mask: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = VideoFile(clip, mask)
    forwards = [video[index].image for index in range(NUM_FRAMES)]
    opened = []
    original_open = video_file.VideoDecoder._open

    def count_open(decoder: video_file.VideoDecoder) -> None:
        opened.append(decoder)
        original_open(decoder)

    monkeypatch.setattr(video_file.VideoDecoder, "_open", count_open)
    monkeypatch.setattr(video_file, "_BLOCK_BYTES", 8 * forwards[0].nbytes)
    for index in range(NUM_FRAMES - 1, -1, -1):
        np.testing.assert_array_equal(video[index].image, forwards[index])
    assert len(opened) <= NUM_FRAMES // 8 + 2
    np.testing.assert_array_equal(video[5].image, forwards[5])  # forwards again
