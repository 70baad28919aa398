"""Overlays: colours, contours, and videos that are complete or absent."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from util import overlay
from util.masks import DAVIS_PALETTE
from util.overlay import OverlayVideo, blend, contours


def read_video(path: Path) -> list[np.ndarray]:
    reader = cv2.VideoCapture(str(path))
    frames: list[np.ndarray] = []
    while True:
        is_read, frame = reader.read()
        if not is_read:
            reader.release()
            return frames
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


def grey(height: int, width: int, level: int = 100) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_blend_draws_objects_and_contours() -> None:
    image = grey(12, 14)
    labels = np.zeros((12, 14), np.uint8)
    labels[2:8, 3:9] = 1
    original = image.copy()
    result = blend(image, labels, DAVIS_PALETTE, alpha=0.25)
    red = np.array(list(DAVIS_PALETTE[3:6]))
    assert (result[labels == 0] == 100).all()
    assert (result[2, 3:9] == red).all()  # contours are opaque
    assert (result[2:8, 8] == red).all()
    inside = np.round(0.75 * 100 + 0.25 * red)
    assert np.abs(result[3:7, 4:8].astype(int) - inside).max() <= 1
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(image, original)


def test_contours_are_one_pixel_wide() -> None:
    labels = np.zeros((8, 10), np.uint8)
    labels[:, :4] = 1
    labels[:, 4:7] = 2
    expected = np.zeros((8, 10), bool)
    expected[:, [3, 4, 6]] = True
    np.testing.assert_array_equal(contours(labels), expected)
    assert not contours(np.full((8, 10), 3, np.uint8)).any()


@pytest.mark.parametrize(
    ("image", "labels", "palette", "alpha", "words"),
    [
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), DAVIS_PALETTE, 0.5, "image"),
        (grey(4, 4), np.zeros((4, 5), np.uint8), DAVIS_PALETTE, 0.5, "size"),
        (grey(4, 4), np.zeros((4, 4), np.int64), DAVIS_PALETTE, 0.5, "uint8"),
        (grey(4, 4), np.zeros((4, 4), np.uint8), b"\0\0\0", 0.5, "768"),
        (grey(4, 4), np.zeros((4, 4), np.uint8), DAVIS_PALETTE, 1.5, "alpha"),
    ],
)
def test_blend_rejects_invalid_arguments(
    image: np.ndarray, labels: np.ndarray, palette: bytes, alpha: float, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        blend(image, labels, palette, alpha)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize("size", [(48, 64), (47, 65), (33, 64)])
def test_video_has_all_frames_with_their_colours_and_size(
    tmp_path: Path, size: tuple[int, int], suffix: str
) -> None:
    levels = [40, 120, 200]
    with OverlayVideo(tmp_path / "new" / f"clip{suffix}", size, fps=12) as video:
        for level in levels:
            image = grey(*size, level)
            image[..., 2] = 20
            video.write(image)
        assert not video.path.exists()  # it appears when it is complete
    frames = read_video(video.path)
    assert len(frames) == 3
    for frame, level in zip(frames, levels, strict=True):
        height, width = size
        assert frame.shape == (height + height % 2, width + width % 2, 3)
        middle = frame[height // 2, width // 2].astype(int)
        assert np.abs(middle - (level, level, 20)).max() < 15  # channels are in RGB order
    assert cv2.VideoCapture(str(video.path)).get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    assert [path.name for path in video.path.parent.iterdir()] == [f"clip{suffix}"]


def test_interrupted_video_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")

    def interrupt() -> None:
        with OverlayVideo(path, (32, 32), fps=5) as video:
            video.write(grey(32, 32))
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        interrupt()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_video_without_frames_is_not_written(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="has no frames, so it was not written"),
        OverlayVideo(tmp_path / "clip.mp4", (32, 32), fps=5),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_frame_of_another_size_is_rejected(tmp_path: Path) -> None:
    with OverlayVideo(tmp_path / "clip.mp4", (32, 40), fps=5) as video:
        video.write(grey(32, 40))
        with pytest.raises(ValueError, match=r"Frame 1 of .*clip.mp4 must be \(32, 40, 3\)"):
            video.write(grey(40, 32))


def test_incomplete_video_is_not_kept(tmp_path: Path) -> None:
    video = OverlayVideo(tmp_path / "clip.mp4", (32, 32), fps=5).__enter__()
    video.write(grey(32, 32))
    video.num_frames += 1
    with pytest.raises(ValueError, match="check whether the disk is full"):
        video.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_avi_replaces_mp4_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(overlay.CODECS, ".mp4", "????")
    with pytest.warns(UserWarning, match=r"clip\.avi"):
        video = OverlayVideo(tmp_path / "clip.mp4", (32, 32), fps=5)
    with video:
        video.write(grey(32, 32))
    assert [path.name for path in tmp_path.iterdir()] == ["clip.avi"]
    assert len(read_video(tmp_path / "clip.avi")) == 1


def test_invalid_names_rates_and_missing_codecs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay, "CODECS", {".mp4": "????", ".avi": "????"})
    with pytest.raises(ValueError, match="neither mp4v nor MJPG"):
        OverlayVideo(tmp_path / "clip.mp4", (32, 32), fps=5)
    with pytest.raises(ValueError, match="must end in"):
        OverlayVideo(tmp_path / "clip.mov", (32, 32), fps=5)
    with pytest.raises(ValueError, match="above 0"):
        OverlayVideo(tmp_path / "clip.mp4", (32, 32), fps=0)
