"""Training data of each stage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from datasets.clips import TrainingClips
from datasets.curriculum import absent_data, find_data, stage_clips
from datasets.training_videos import VideoClips
from util.parse_settings import parse_train


def roots(root: Path) -> dict[str, list[str]]:
    return {
        "0": ["--static_root", str(root / "static")],
        "1": ["--bl_root", str(root / "BL30K")],
        "2": ["--davis_root", str(root / "DAVIS"), "--yv_root", str(root / "YouTube")],
        "3": ["--davis_root", str(root / "DAVIS"), "--yv_root", str(root / "YouTube")],
    }


def make_clips(root: Path, number: str, *flags: str) -> TrainingClips:
    (settings,) = parse_train(["--id", "x", "--stage", number, *roots(root)[number], *flags])
    (data,) = find_data([settings])
    return stage_clips(settings, data, 8)


def test_data_sets_of_the_stages(synthetic: Path) -> None:
    static = make_clips(synthetic, "0")
    assert static.sizes["FSS"] == 4
    assert len(static) == 30
    bl30k = make_clips(synthetic, "1")
    assert isinstance(bl30k, VideoClips)
    assert (bl30k.sizes, len(bl30k)) == ({"BL30K": 2}, 2)
    assert bl30k.sets[0].skips_small_objects
    assert bl30k.sets[0].min_crop_area == 0.25
    for number in "23":
        clips = make_clips(synthetic, number)
        assert isinstance(clips, VideoClips)
        assert (clips.sizes, len(clips)) == ({"DAVIS": 2, "YouTube": 2}, 2 * 5 + 2)
        davis, youtube = clips.sets
        assert (davis.jump_divisor, youtube.jump_divisor) == (1, 5)
        assert (davis.min_crop_area, youtube.min_crop_area) == (0.36, 0.36)
        assert not davis.skips_small_objects


def test_jump_schedules_of_the_stages(synthetic: Path) -> None:
    """10, 15, 20, 25, 5 start at 10, 20, 30, 40 and 90 % of the epochs; at 80 % in stage 1."""
    for number, last in (("1", 0.8), ("2", 0.9), ("3", 0.9)):
        size = len(make_clips(synthetic, number))
        clips = make_clips(synthetic, number, "-i", str(100 * size), "-b", "1")
        assert isinstance(clips, VideoClips)
        assert clips.jumps.num_epochs == 800  # 8 clips per update
        jumps = [clips.jumps.at(round(800 * share)) for share in (0, 0.1, 0.2, 0.3, 0.4, last)]
        assert jumps == [5, 10, 15, 20, 25, 5]
        assert clips.jumps.at(round(800 * last) - 1) == 25
    other = make_clips(synthetic, "3", "--jumps", "2", "3", "--jump_fractions", "0.5")
    assert isinstance(other, VideoClips)
    assert other.jumps.at(0) == 2


def test_subsets(synthetic: Path, tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("train-001\n")
    (tmp_path / "y.txt").write_text("train00000\n")
    flags = ("--davis_subset", str(tmp_path / "d.txt"), "--yv_subset", str(tmp_path / "y.txt"))
    clips = make_clips(synthetic, "3", *flags)
    assert isinstance(clips, VideoClips)
    assert [[v.name for v in s.videos] for s in clips.sets] == [["train-001"], ["train00000"]]


def test_a_data_set_of_videos_can_be_left_out(synthetic: Path) -> None:
    for flag, sizes in (("--yv_root", {"DAVIS": 2}), ("--davis_root", {"YouTube": 2})):
        clips = make_clips(synthetic, "3", flag, "none")
        assert clips.sizes == sizes
        assert clips[0, 0].images.shape[0] == 3
        assert len(absent_data("3", clips.sizes)) == 1


def test_static_clips_can_have_two_objects(synthetic: Path) -> None:
    assert make_clips(synthetic, "0")[0, 0].first_masks.shape[0] == 1
    assert make_clips(synthetic, "0", "--static_objects", "2")[0, 0].first_masks.shape[0] == 2


def test_static_clips_among_videos(synthetic: Path) -> None:
    flags = ("--static_share", "0.5", "--static_root", str(synthetic / "static"))
    clips, videos = make_clips(synthetic, "3", *flags), make_clips(synthetic, "3")
    assert (clips.sizes["DAVIS"], clips.sizes["FSS"]) == (2, 4)
    assert len(clips) == 2 * len(videos)
    names = [clips[0, index].name.split("/")[0] for index in range(len(clips))]
    assert {*names[: len(videos)]} == {"DAVIS", "YouTube"}
    assert not {*names[len(videos) :]} & {"DAVIS", "YouTube"}
    assert clips[0, len(clips) - 1].first_masks.shape == clips[0, 0].first_masks.shape
    assert clips[1, len(videos)].name != clips[2, len(videos)].name


def test_problems_of_all_stages_are_reported(synthetic: Path, tmp_path: Path) -> None:
    nowhere = [flag for flags in roots(tmp_path).values() for flag in flags]
    recipe = parse_train(["--id", "x", "--stage", "0123", *nowhere])
    with pytest.raises(ValueError, match="Stage 0") as caught:
        find_data(recipe)
    message = str(caught.value)
    for sentence in (
        f"Stage 0: The folder {tmp_path / 'static'} does not exist",
        f"the folder {tmp_path / 'BL30K' / 'JPEGImages'} does not exist: download it with scripts",
        "Stage 2: DAVIS 2017 train is not in",
        "Stage 3: 2 problems were found:",
        str(tmp_path / "YouTube" / "train_480p" / "JPEGImages"),
    ):
        assert sentence in message
    assert message.count("Stage 2") == 2

    shutil.copytree(synthetic / "DAVIS", tmp_path / "DAVIS")
    videos = tmp_path / "DAVIS" / "2017" / "trainval" / "JPEGImages" / "480p"
    for name in ("train-000", "train-001"):
        (videos / name / "00003.jpg").unlink()
    with pytest.raises(ValueError, match="train-000") as caught:
        find_data(parse_train(["--id", "x", "--stage", "3", *roots(tmp_path)["3"]]))
    assert "train-001" in str(caught.value)
