"""`Video`: frames, annotations, and checks of names, numbers and masks."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.generic import generic_video
from datasets.video import ProblemsError, Video, check_numbering
from tests.example_videos import SIZE, draw_squares, make_frames, make_video
from util.images import list_frames
from util.masks import DAVIS_PALETTE, labels_of


def test_objects_are_annotated_on_their_first_mask(tmp_path: Path) -> None:
    masks = {
        "00001": draw_squares(7, 200),
        "00002": draw_squares(7, 200, 3),
        "00003": draw_squares(200),
    }
    video = generic_video(*make_video(tmp_path, "cat", masks))
    assert (video.name, len(video), video.size, video.working_size) == ("cat", 4, SIZE, SIZE)
    assert video.labels == [3, 7, 200]
    assert video.palette == DAVIS_PALETTE
    assert video.frame_names == ["00000", "00001", "00002", "00003"]
    assert video.first_frame == 1
    assert video.annotated_labels == {1: [7, 200], 2: [3]}

    frames = list(video)
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert [frame.name for frame in frames] == video.frame_names
    assert all(frame.is_required for frame in frames)
    assert [int(frame.image.mean()) for frame in frames] == [0, 10, 20, 30]
    annotations = [frame.annotation for frame in frames]
    assert annotations[0] is None
    assert annotations[3] is None
    assert annotations[1] is not None
    np.testing.assert_array_equal(annotations[1], draw_squares(7, 200))
    assert annotations[2] is not None
    np.testing.assert_array_equal(annotations[2], draw_squares(0, 0, 3))


def test_working_size(tmp_path: Path) -> None:
    paths = make_video(tmp_path, "v", {"00000": draw_squares(1, 9)})
    video = generic_video(*paths, shorter_side=12)
    assert (video.size, video.working_size) == (SIZE, (12, 18))
    frame = video[0]
    assert frame.image.shape == (12, 18, 3)
    assert frame.annotation is not None
    assert frame.annotation.shape == (12, 18)
    assert labels_of(frame.annotation) == [1, 9]


def test_index_out_of_range(tmp_path: Path) -> None:
    video = generic_video(*make_video(tmp_path, "v", {"00000": draw_squares(1)}))
    for index in (4, -1):
        with pytest.raises(IndexError, match="video v has 4 frames, there is no frame"):
            video[index]


def test_video_of_one_frame(tmp_path: Path) -> None:
    video = generic_video(*make_video(tmp_path, "v", {"00000": draw_squares(1)}, num_frames=1))
    assert len(video) == 1
    assert video[0].is_required
    assert video[0].annotation is not None


def test_frames_are_checked_when_decoded(tmp_path: Path) -> None:
    frames, masks = make_video(tmp_path, "v", {"00000": draw_squares(1)})
    video = generic_video(frames, masks)
    content = (frames / "00002.jpg").read_bytes()
    (frames / "00002.jpg").write_bytes(content[: len(content) - 30])
    with pytest.raises(ValueError, match=r"frame .*00002.jpg cannot be read, it is truncated"):
        video[2]
    make_frames(frames, ["00003.jpg"], size=(24, 40))
    expected = r"00003.jpg is 40x24 \(width x height\), but the first frame 00000.jpg is 36x24"
    with pytest.raises(ValueError, match=expected):
        video[3]


def test_duplicate_frames_and_masks_are_rejected(tmp_path: Path) -> None:
    frames, masks = make_video(tmp_path, "v", {"00000": draw_squares(1)})
    Image.fromarray(draw_squares(1)).save(masks / "00000.bmp")
    expected = r"frame 00000 has two masks, .*00000.png and 00000.bmp: keep one"
    with pytest.raises(ValueError, match=expected):
        generic_video(frames, masks)
    (masks / "00000.bmp").unlink()
    make_frames(frames, ["00001.png"])
    with pytest.raises(ValueError, match=r"frame 00001 exists 2 times in .*v, with different"):
        generic_video(frames, masks)


def test_problems_of_all_masks_are_reported(tmp_path: Path) -> None:
    disc = np.zeros((48, 72), np.uint8)
    cv2.circle(disc, (30, 24), 17, 255, -1)
    masks = {
        "00000": draw_squares(1),
        "00001": draw_squares(),
        "00002": draw_squares(1, size=(24, 40)),
        "00003": cv2.resize(disc, (36, 24), interpolation=cv2.INTER_AREA),
    }
    with pytest.raises(ProblemsError) as caught:
        generic_video(*make_video(tmp_path, "v", masks))
    message = str(caught.value)
    assert message.startswith("3 problems were found:\n- mask ")
    for expected in (
        r"00001\.png has no object",
        r"00002\.png is 40x24 \(width x height\), but its frame is 36x24",
        r"00003\.png has \d+ different values, .* anti-aliased",
    ):
        assert re.search(expected, message)


def test_damaged_mask_is_rejected(tmp_path: Path) -> None:
    frames, masks = make_video(tmp_path, "v", {"00000": draw_squares(1)})
    path = masks / "00000.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"mask .*00000.png cannot be read, it is truncated"):
        generic_video(frames, masks)


def test_mask_without_frame_is_rejected(tmp_path: Path) -> None:
    masks = {"00000": draw_squares(1), "00009": draw_squares(2)}
    expected = r"mask .*00009.png belongs to no frame: there is no frame 00009 in .*JPEGImages"
    with pytest.raises(ValueError, match=expected):
        generic_video(*make_video(tmp_path, "v", masks))


def test_colour_has_one_label_in_all_masks(tmp_path: Path) -> None:
    frames, masks = make_video(tmp_path, "v", {})
    masks.mkdir(parents=True)
    for stem, squares, colour in (("00000", (1,), (255, 0, 0)), ("00002", (0, 1), (0, 255, 0))):
        pixels = (draw_squares(*squares)[..., None] > 0) * np.array(colour, np.uint8)
        Image.fromarray(pixels).save(masks / f"{stem}.png")
    video = generic_video(frames, masks)
    assert video.annotated_labels == {0: [2], 2: [1]}
    assert video.palette is not None
    assert video.palette[:9] == bytes([0, 0, 0, 0, 255, 0, 255, 0, 0])


def test_frames_are_decoded_from_several_threads(tmp_path: Path) -> None:
    frames, _ = make_video(tmp_path, "v", {"00000": draw_squares(1)}, num_frames=12)
    masks = {0: tmp_path / "Annotations" / "v" / "00000.png"}
    video = Video("v", list_frames(frames), masks, shorter_side=12)
    order = [11, 0, 5, 0, 7, 3] * 4
    with ThreadPoolExecutor(4) as pool:
        for index, frame in zip(order, pool.map(video.__getitem__, order), strict=True):
            assert frame.index == index
            np.testing.assert_array_equal(frame.image, video[index].image)
            assert (frame.annotation is not None) == (index == 0)


# Frame numbers


def paths(*names: str) -> list[Path]:
    return [Path("frames") / name for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ["0.jpg", "1.jpg", "2.jpg"],
        ["00010.jpg", "00015.jpg", "00020.jpg"],
        ["a_9_x.jpg", "a_10_x.jpg", "a_11_x.jpg"],
        ["first.jpg", "second.jpg", "third.jpg"],
        ["a1.jpg", "b7.jpg", "c30.jpg"],
        ["1003.jpg", "1090.jpg", "1700.jpg", "2901.jpg"],
        ["00007.jpg"],
    ],
)
def test_numbers_without_gaps(names: list[str]) -> None:
    check_numbering(paths(*names))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["00001.jpg", "00002.jpg", "00004.jpg"],
            "frame 00003.jpg is missing in frames between 00002.jpg and 00004.jpg:",
        ),
        (
            ["00000.jpg", "00005.jpg", "00020.jpg", "00025.jpg"],
            "frames 00010.jpg to 00015.jpg are missing in frames between 00005.jpg and",
        ),
        (["a9b.png", "a11b.png", "a12b.png"], "frame a10b.png is missing in frames"),
    ],
)
def test_gaps_are_reported(names: list[str], expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        check_numbering(paths(*names))


def test_gaps_for_an_explicit_step() -> None:
    with pytest.raises(ProblemsError) as caught:
        check_numbering(paths("00000.jpg", "00002.jpg", "00004.jpg"), step=1)
    assert len(caught.value.problems) == 2
