"""Readers of your own videos, DAVIS and YouTube-VOS."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from datasets.davis import davis_2016, davis_2017
from datasets.generic import generic, generic_video
from datasets.video import ProblemsError
from datasets.youtube import youtube
from tests.example_videos import (
    SIZE,
    draw_squares,
    frame_files,
    make_davis,
    make_frames,
    make_video,
    make_youtube,
    write_meta,
)
from util.masks import DAVIS_PALETTE, write_mask

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "DAVIS"


# Your own videos


def test_generic_videos_are_in_natural_order(tmp_path: Path) -> None:
    for name in ("v10", "v2"):
        make_video(tmp_path, name, {"00000": draw_squares(4)})
    (tmp_path / "JPEGImages" / ".cache").mkdir()
    videos, invalid = generic(tmp_path, shorter_side=12)
    assert not invalid
    assert [video.name for video in videos] == ["v2", "v10"]
    assert videos[0].working_size == (12, 18)


def test_generic_frame_numbers_may_have_a_step(tmp_path: Path) -> None:
    frames = make_frames(tmp_path / "frames", frame_files(range(0, 20, 5)))
    write_mask(tmp_path / "start.png", draw_squares(255), None)
    video = generic_video(frames, tmp_path / "start.png", name="mine")
    assert (video.name, video.labels, video.first_frame) == ("mine", [255], 0)
    assert video.palette is None
    (frames / "00010.jpg").unlink()
    with pytest.raises(ValueError, match=r"frame 00010.jpg is missing in .*frames between"):
        generic_video(frames, tmp_path / "start.png")


def test_problems_of_all_videos_are_reported(tmp_path: Path) -> None:
    make_video(tmp_path, "fine", {"00000": draw_squares(1)})
    for index in range(12):
        make_video(tmp_path, f"bad{index}", {"00000": draw_squares()})
    make_video(tmp_path, "maskless", {})
    (tmp_path / "JPEGImages" / "empty").mkdir()
    videos, invalid = generic(tmp_path)
    assert [video.name for video in videos] == ["fine"]
    assert len(invalid) == 14
    shutil.rmtree(tmp_path / "JPEGImages" / "fine")
    with pytest.raises(ValueError, match="14 problems were found") as caught:
        generic(tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 12
    assert "bad0" in lines[1]
    assert lines[-1] == "- and 4 more"
    assert isinstance(caught.value, ProblemsError)
    problems = str(caught.value.problems)
    assert re.search(r"video maskless has no mask: .*maskless does not exist", problems)
    assert re.search(r"folder .*empty contains no image", problems)


def test_generic_with_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"JPEGImages does not exist: put the frames in"):
        generic(tmp_path)
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(FileNotFoundError, match="Annotations does not exist"):
        generic(tmp_path)
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(ValueError, match=r"JPEGImages contains no video"):
        generic(tmp_path)
    frames = make_frames(tmp_path / "JPEGImages" / "v", ["0.jpg"])
    (tmp_path / "Annotations" / "v").mkdir()
    with pytest.raises(ValueError, match="video v has no mask: add one of the frame on which"):
        generic(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"video v has no mask: .*none.png does not exist"):
        generic_video(frames, tmp_path / "none.png")


# DAVIS


@pytest.mark.parametrize("inside", ["2017/trainval", "trainval", "."])
def test_davis_2017_layouts(tmp_path: Path, inside: str) -> None:
    sequences = {"dog": draw_squares(1, 2), "bear": draw_squares(1)}
    make_davis(tmp_path / inside, "2017/val.txt", sequences)
    videos = davis_2017(tmp_path)
    assert [(video.name, video.labels) for video in videos] == [("dog", [1, 2]), ("bear", [1])]
    assert videos[0].annotated_labels == {0: [1, 2]}
    assert len(videos[0].required_frames) == 3
    assert videos[0].palette == DAVIS_PALETTE


@pytest.mark.parametrize("inside", ["2017/test-dev", "test-dev", "."])
@pytest.mark.parametrize("split", ["test-dev", "testdev"])
def test_davis_2017_test_dev(tmp_path: Path, inside: str, split: str) -> None:
    base = tmp_path / inside
    make_davis(base, "2017/test-dev.txt", {"car": draw_squares(3)})
    for path in (base / "Annotations/480p/car").glob("0000[12].png"):
        path.unlink()
    assert [video.name for video in davis_2017(tmp_path, split)] == ["car"]


def test_davis_2017_train_and_imset(tmp_path: Path) -> None:
    make_davis(tmp_path / "trainval", "2017/train.txt", {"a": draw_squares(1)})
    make_davis(tmp_path / "trainval", "mine/some.txt", {"b": draw_squares(1)})
    assert [video.name for video in davis_2017(tmp_path, "train")] == ["a"]
    assert [video.name for video in davis_2017(tmp_path, imset="mine/some.txt")] == ["b"]


def test_davis_2017_errors(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="DAVIS 2017 has no split vall: choose from train, val, te"
    ):
        davis_2017(tmp_path, "vall")
    with pytest.raises(FileNotFoundError, match=r"DAVIS 2017 val is not in .*2017/trainval/Annot"):
        davis_2017(tmp_path)
    sequences = {"a": draw_squares(1), "b": draw_squares(1)}
    make_davis(tmp_path / "trainval", "2017/val.txt", sequences)
    with pytest.raises(FileNotFoundError, match=r"list of sequences .*2017/train.txt does not exi"):
        davis_2017(tmp_path, "train")

    base = tmp_path / "trainval"
    (base / "Annotations/480p/a/00000.png").unlink()
    (base / "JPEGImages/480p/b/00001.jpg").unlink()
    with pytest.raises(ProblemsError) as caught:
        davis_2017(tmp_path)
    mask_problem, frame_problem = caught.value.problems
    assert re.match(r"sequence a has no mask of its first frame: .*00000.png", mask_problem)
    assert re.match(r"frame 00001.jpg is missing in .*b between", frame_problem)

    (base / "ImageSets/2017/val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"list of sequences .*val.txt is empty"):
        davis_2017(tmp_path)


@pytest.mark.parametrize("frame", [0, 2])
def test_davis_missing_first_or_last_frame(tmp_path: Path, frame: int) -> None:
    make_davis(tmp_path, "2017/val.txt", {"a": draw_squares(1)})
    (tmp_path / f"JPEGImages/480p/a/0000{frame}.jpg").unlink()
    with pytest.raises(ValueError, match=rf"mask .*0000{frame}.png belongs to no frame"):
        davis_2017(tmp_path)


@pytest.mark.parametrize("root", [".", "2016"])
def test_davis_2016_published_layout(tmp_path: Path, root: str) -> None:
    sequences = {"dog": draw_squares(255, 3), "cat": draw_squares(255)}
    make_davis(tmp_path / "2016", "gone.txt", sequences)
    list_path = tmp_path / "2017/trainval/ImageSets/2016/val.txt"
    list_path.parent.mkdir(parents=True)
    list_path.write_text("dog\n")
    (video,) = davis_2016(tmp_path / root)
    assert (video.name, video.labels, video.palette) == ("dog", [255], None)
    labels = video[0].annotation
    assert labels is not None
    np.testing.assert_array_equal(labels, draw_squares(255, 255))


def test_davis_2016_in_one_folder(tmp_path: Path) -> None:
    make_davis(tmp_path, "2016/val.txt", {"dog": draw_squares(255)})
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / kind / "480p" / "dog").rename(tmp_path / kind / "dog")
        (tmp_path / kind / "480p").rmdir()
    assert [video.name for video in davis_2016(tmp_path)] == ["dog"]


def test_davis_2016_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"DAVIS 2016 is not in .*: none of these folders"):
        davis_2016(tmp_path)
    make_davis(tmp_path / "2016", "gone.txt", {"dog": draw_squares(255)})
    expected = r"list of sequences .*2017/trainval/ImageSets/2016/val.txt does not exist"
    with pytest.raises(FileNotFoundError, match=expected):
        davis_2016(tmp_path)


def test_original_davis() -> None:
    if not SHARED.is_dir():
        pytest.skip("no DAVIS in ../shared/data")
    (video,) = davis_2017(SHARED)
    assert (video.name, len(video), video.labels) == ("dogs-jump", 66, [1, 2, 3])
    assert all(video.labels == [255] for video in davis_2016(SHARED / "2016"))


# YouTube-VOS


def test_youtube(tmp_path: Path) -> None:
    make_youtube(tmp_path)
    (video,) = youtube(tmp_path, shorter_side=12)
    assert (video.name, video.size, video.working_size) == ("a1", SIZE, (12, 18))
    assert video.annotated_labels == {0: [2], 4: [5]}
    required = [frame.name for frame in video if frame.is_required]
    assert required == ["00010", "00014", "00020", "00021"]
    assert youtube(tmp_path)[0].working_size == (480, 720)
    assert youtube(tmp_path, shorter_side=None)[0].working_size == SIZE


def test_youtube_with_missing_files(tmp_path: Path) -> None:
    expected = r"valid_all_frames/JPEGImages does not exist: .* all frames, which are a separate"
    with pytest.raises(FileNotFoundError, match=expected):
        youtube(tmp_path)
    make_frames(tmp_path / "all_frames/valid_all_frames/JPEGImages/a1", ["00000.jpg"])
    with pytest.raises(FileNotFoundError, match=r"of masks .*valid/Annotations does not exist"):
        youtube(tmp_path)
    (tmp_path / "valid" / "Annotations").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"meta.json does not exist: copy it"):
        youtube(tmp_path)
    for text in ("{", "[]", '{"videos": {"a1": {}}}', '{"videos": []}'):
        (tmp_path / "valid" / "meta.json").write_text(text)
        with pytest.raises(ValueError, match=r"meta.json is not a meta.json of YouTube-VOS"):
            youtube(tmp_path)
    write_meta(tmp_path, {})
    with pytest.raises(ValueError, match=r"meta.json lists no video"):
        youtube(tmp_path)


def test_youtube_required_and_annotated_frames_must_exist(tmp_path: Path) -> None:
    make_youtube(tmp_path)
    frames = tmp_path / "all_frames/valid_all_frames/JPEGImages/a1"
    (frames / "00012.jpg").unlink()
    assert len(youtube(tmp_path)[0]) == 6
    (frames / "00020.jpg").unlink()
    expected = r"frame 00020 of video a1 is missing in .*a1, but the output needs its mask"
    with pytest.raises(ValueError, match=expected):
        youtube(tmp_path)
    (frames / "00014.jpg").unlink()
    with pytest.raises(ValueError, match=r"mask .*00014.png belongs to no frame"):
        youtube(tmp_path)


def test_youtube_video_without_masks(tmp_path: Path) -> None:
    make_youtube(tmp_path)
    masks = tmp_path / "valid" / "Annotations" / "a1"
    for path in masks.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="video a1 has no mask"):
        youtube(tmp_path)
    masks.rmdir()
    with pytest.raises(ValueError, match=r"video a1 has no masks: the folder .*a1 is missing"):
        youtube(tmp_path)
