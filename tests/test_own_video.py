"""Users' own videos through eval_generic.py: phone videos, unusual images, many objects."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import eval_generic
from datasets.generic import one_video
from datasets.video_file import VideoFile
from model.matching import aggregate
from tests.test_overlay import read_video
from tests.test_video_file import HEIGHT, NUM_FRAMES, WIDTH, level, turned, write_clip
from util.images import image_size, list_frames, read_image
from util.masks import DAVIS_PALETTE, labels_of, read_mask, write_mask
from util.overlay import OverlayVideo

REPOSITORY = Path(__file__).resolve().parents[1]
TIMESCALE = 15360  # of the MP4s that OpenCV writes at 30 frames a second
# Durations of the frames of `variable_rate`, as (number of frames, ticks of each).
DURATIONS = ((9, 512), (9, 1536), (4, 700), (1, 9000))
assert sum(count for count, _ in DURATIONS) == NUM_FRAMES
SECONDS = sum(count * ticks for count, ticks in DURATIONS[:-1]) / TIMESCALE  # up to the last frame


def variable_rate(clip: Path, path: Path) -> Path:
    """Copy an MP4 and give its frames DURATIONS."""
    content = bytearray(clip.read_bytes())
    table = struct.pack(">I", len(DURATIONS))
    for entry in DURATIONS:
        table += struct.pack(">2I", *entry)
    at = content.index(b"stts") + 8  # after the name, version and flags
    extra = len(table) - (4 + 8)  # the table had one entry
    content[at : at + 12] = table
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        start = content.index(name) - 4
        (size,) = struct.unpack_from(">I", content, start)
        struct.pack_into(">I", content, start, size + extra)
    start = content.index(b"edts")  # an edit list would drop the last frames
    content[start : start + 4] = b"free"
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[10:40, 20:50] = 7
    write_mask(tmp_path / "first.png", labels, None)
    return tmp_path / "first.png"


def segment(video: Path, mask: Path, weights: Path, output: Path, size: int = 0) -> int:
    argv = ["--video", video, "--mask", mask, "--model", weights, "--output", output]
    argv += ["--device", "cpu", "--size", size, "--overlay"]
    return eval_generic.main([*map(str, argv)])


def test_a_video_of_a_phone(clip: Path, tiny_weights: Path, tmp_path: Path) -> None:
    """It is rotated and has a variable frame rate."""
    labels = np.zeros((WIDTH, HEIGHT), np.uint8)  # of the upright frame
    labels[40:70, 10:40] = 1
    write_mask(tmp_path / "first.png", labels, DAVIS_PALETTE)
    phone = turned(variable_rate(clip, tmp_path / "plain.mp4"), tmp_path / "phone.mp4")
    assert segment(phone, tmp_path / "first.png", tiny_weights, tmp_path / "out", 48) == 0

    masks = sorted((tmp_path / "out" / "phone").iterdir())
    assert [path.name for path in masks] == [f"{i:05d}.png" for i in range(NUM_FRAMES)]
    assert all(Image.open(path).size == (HEIGHT, WIDTH) for path in masks)
    first = read_mask(masks[0]).labels
    assert np.mean((first == 1) == (labels == 1)) > 0.97

    (overlay,) = (tmp_path / "out").glob("phone.[!c]*")  # and not phone.csv
    frames = read_video(overlay)
    assert len(frames) == NUM_FRAMES
    assert frames[0].shape == (WIDTH, HEIGHT, 3)
    assert frames[0][:14, -14:].mean() > 200, "the white corner must be at the top right"
    inside = frames[0][45:65, 15:35].reshape(-1, 3).mean(0)  # black, blended with (128, 0, 0)
    assert np.abs(inside - (64, 0, 0)).max() < 15
    rate = cv2.VideoCapture(str(overlay)).get(cv2.CAP_PROP_FPS)
    assert (NUM_FRAMES - 1) / rate == pytest.approx(SECONDS, rel=1e-3)


def test_variable_frame_rates_keep_every_frame(clip: Path, mask: Path, tmp_path: Path) -> None:
    video = VideoFile(variable_rate(clip, tmp_path / "variable.mp4"), mask)
    assert [round(level(frame.image)) for frame in video] == [*range(NUM_FRAMES)]
    assert (NUM_FRAMES - 1) / video.fps == pytest.approx(SECONDS, rel=1e-3)
    exact = VideoFile(write_clip(tmp_path / "ntsc.mp4", 29.97), mask)
    assert exact.fps == pytest.approx(29.97, abs=1e-4)


@pytest.mark.parametrize("fps", [0.004, 0.3, 23.976, 59.94, 66.6667, 87.37864, 239.9678, 5000])
def test_overlays_have_any_frame_rate(tmp_path: Path, fps: float) -> None:
    with OverlayVideo(tmp_path / "clip.mp4", (32, 32), fps) as video:
        for _ in range(4):
            video.write(np.full((32, 32, 3), 90, np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
    written = cv2.VideoCapture(str(tmp_path / "clip.mp4")).get(cv2.CAP_PROP_FPS)
    assert written == pytest.approx(min(max(fps, 0.01), 1000), rel=1e-3)


def test_a_truncated_video_is_segmented_up_to_the_cut(mask: Path, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(
        str(tmp_path / "cut.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30, (WIDTH, HEIGHT)
    )
    for number in range(NUM_FRAMES):
        writer.write(np.full((HEIGHT, WIDTH, 3), 10 * number, np.uint8))
    writer.release()
    content = (tmp_path / "cut.avi").read_bytes()
    at = content.index(b"movi")
    (tmp_path / "cut.avi").write_bytes(content[: at + (len(content) - at) // 2])
    with pytest.warns(UserWarning, match=r"cut.avi has a duration of 0.8 s .* is truncated"):
        video = VideoFile(tmp_path / "cut.avi", mask)
    assert 5 < len(video) < NUM_FRAMES - 5
    assert [round(level(video[i].image)) for i in range(len(video) - 1)] == [*range(len(video) - 1)]


def test_files_without_frames(clip: Path, mask: Path, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "sound.mp4"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:-500])
    for name in ("sound", "empty", "cut"):
        with pytest.raises(ValueError, match=rf"{name}.mp4 cannot be decoded as a video"):
            one_video(tmp_path / f"{name}.mp4", mask)
    # mdat contains the frames: filled with zeros, none of them can be decoded.
    content = clip.read_bytes()
    start = content.index(b"mdat") + 4
    (size,) = struct.unpack_from(">I", content, start - 8)
    zeros = content[:start] + bytes(size - 8) + content[start - 8 + size :]
    (tmp_path / "zeros.mp4").write_bytes(zeros)
    with pytest.raises(ValueError, match=r"(no frame of .*|)zeros.mp4 can(not)? be decoded"):
        one_video(tmp_path / "zeros.mp4", mask)
    with pytest.raises(ValueError, match=r"first.png is an image, not a video: give the folder"):
        one_video(mask, mask)


def test_the_decoder_prints_nothing(mask: Path, tmp_path: Path) -> None:
    """In a process of its own, because FFmpeg reads its log level once per process."""
    (tmp_path / "text.mp4").write_text("no video")
    code = (
        "import sys; from pathlib import Path; from datasets.generic import one_video\n"
        "try: one_video(*map(Path, sys.argv[1:]))\n"
        "except ValueError as error: print(error)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENCV_")}
    process = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "text.mp4", mask],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "text.mp4 cannot be decoded as a video" in process.stdout
    assert process.stderr == ""


def gradient() -> np.ndarray:
    """An image (24, 40, 3) uint8 with different gradients in its channels."""
    row, column = np.mgrid[:24, :40]
    channels = [row * 5, column * 4, 200 - row * 2 - column]
    return np.stack(channels, axis=2).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff"])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("kind", ["grey", "RGB", "RGBA"])
def test_frames_with_8_and_16_bits(tmp_path: Path, suffix: str, depth: int, kind: str) -> None:
    expected = gradient()
    if kind == "grey":
        expected[:] = expected[..., :1]
    pixels = {
        "grey": expected[..., 0],
        "RGB": expected[..., ::-1],  # OpenCV's order
        "RGBA": np.dstack([expected[..., ::-1], np.full((24, 40), 100, np.uint8)]),
    }[kind]
    if depth == 16:
        pixels = pixels.astype(np.uint16) * 257
    path = tmp_path / f"0.{suffix}"
    assert cv2.imwrite(str(path), pixels)
    assert list_frames(tmp_path) == [path]
    assert image_size(path) == (24, 40)
    np.testing.assert_array_equal(read_image(path), expected)


def test_tiff_files_are_rotated_by_their_orientation(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees clockwise
    Image.fromarray(gradient()).save(path, exif=exif)
    assert image_size(path) == (40, 24)
    np.testing.assert_array_equal(read_image(path), np.rot90(gradient(), -1))
    path.write_bytes(path.read_bytes()[:1500])
    for read in (read_image, image_size):
        with pytest.raises(ValueError, match=r"frame .*a.tif cannot be read, it is truncated"):
            read(path)


@pytest.mark.parametrize(
    ("height", "width", "suffix"), [(75, 101, "tif"), (101, 75, "png"), (5, 7, "png")]
)
def test_odd_sizes(
    tiny_weights: Path, tmp_path: Path, height: int, width: int, suffix: str
) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "odd").mkdir()
    for index in range(3):
        pixels = rng.integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "odd" / f"{index}.{suffix}")
    labels = np.zeros((height, width), np.uint8)
    labels[1 : height // 2 + 1, 2 : width // 2 + 2] = 3
    mask, output = tmp_path / f"first.{suffix}", tmp_path / "out"
    Image.fromarray(labels).save(mask)
    assert segment(tmp_path / "odd", mask, tiny_weights, output) == 0
    masks = sorted((output / "odd").iterdir())
    np.testing.assert_array_equal(np.array(Image.open(masks[0])), labels)
    assert [Image.open(path).size for path in masks] == [(width, height)] * 3
    frames = read_video(next(output.glob("odd.*")))
    assert [frame.shape for frame in frames] == [(height + 1, width + 1, 3)] * 3


def test_255_objects(tiny_weights: Path, tmp_path: Path) -> None:
    labels = np.zeros((64, 72), np.uint8)
    for index in range(255):
        row, column = divmod(index, 18)
        labels[row * 4 : row * 4 + 3, column * 4 : column * 4 + 3] = index + 1
    write_mask(tmp_path / "first.png", labels, None)
    (tmp_path / "many").mkdir()
    for index in range(2):
        Image.fromarray(np.repeat(labels[..., None], 3, 2)).save(tmp_path / f"many/{index}.png")
    output = tmp_path / "out"
    assert segment(tmp_path / "many", tmp_path / "first.png", tiny_weights, output) == 0
    np.testing.assert_array_equal(np.array(Image.open(output / "many" / "0.png")), labels)
    assert (output / "many" / "1.png").is_file()


def test_aggregation_in_inference_mode_is_equal() -> None:
    prob = torch.rand(5, 4, 6, generator=torch.manual_seed(0))
    prob[0, 0], prob[1, 1], prob[:, 2] = 1, 0, 0
    before = prob.clone()
    expected = aggregate(prob)
    with torch.inference_mode():
        assert torch.equal(aggregate(prob), expected)
    assert torch.equal(prob, before)


def test_transparent_values_of_a_mask_are_background(tmp_path: Path) -> None:
    labels = np.full((30, 40), 9, np.uint8)
    labels[5:15, 5:15], labels[20:28, 8:30] = 1, 2
    palette = Image.fromarray(labels)
    palette.putpalette(DAVIS_PALETTE)
    colours = np.frombuffer(DAVIS_PALETTE, np.uint8).reshape(256, 3)
    alpha = bytes([255, 255, 100, *[255] * 6, 0])
    for name, image, transparent in (
        ("index", palette, 9),
        ("alphas", palette, alpha),
        ("grey", Image.fromarray(labels), 9),
        ("colour", Image.fromarray(colours[labels]), tuple(colours[9].tolist())),
    ):
        image.save(tmp_path / f"{name}.png", transparency=transparent)
        mask = read_mask(tmp_path / f"{name}.png")
        assert labels_of(mask.labels) == [1, 2], name
        np.testing.assert_array_equal(mask.labels, np.where(labels == 9, 0, labels))
