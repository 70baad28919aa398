"""Training data with files that cannot be used: other samples replace theirs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.clips import ReplacingClips
from datasets.static import StaticClips, find_static_pairs, mix_static
from datasets.training_videos import JumpSchedule, VideoClips, VideoSet
from datasets.video_list import find_davis
from model import training_loop
from model.training_loop import BadFiles
from tests.training_runs import assert_equal, load, make_train
from util.masks import write_mask

DATA = "DUTS-TR"


@pytest.fixture
def static(synthetic: Path, tmp_path: Path, truncate: Callable[[Path], None]) -> Path:
    """Folder of five images, one truncated and one with an empty mask."""
    folder = tmp_path / "static" / DATA
    folder.mkdir(parents=True)
    for number, source in enumerate(sorted((synthetic / "static").rglob("*.jpg"))[:5]):
        for suffix in (".jpg", ".png"):
            shutil.copy(source.with_suffix(suffix), folder / f"image{number}{suffix}")
    truncate(folder / "image1.jpg")
    write_mask(folder / "image3.png", np.zeros((48, 68), np.uint8), None)
    return folder.parent


def make_clips(static: Path, seed: int = 3) -> ReplacingClips:
    pairs = mix_static(find_static_pairs(static))
    return ReplacingClips(StaticClips(pairs, crop_size=32, seed=seed), seed)


def test_replacements_depend_on_seed_epoch_and_index(static: Path) -> None:
    clips = make_clips(static)
    names = {key: clips[key].name for key in [(e, i) for e in range(12) for i in range(5)]}
    for key in [(4, 1), (0, 1), (4, 3)]:  # in another order, from another object
        again = make_clips(static)[key]
        assert again.name == names[key]
        assert torch.equal(again.images, clips[key].images)
    for index in range(5):
        own = f"{DATA}/image{index}"
        found = {names[epoch, index] for epoch in range(12)}
        assert found == {own} if index not in (1, 3) else len(found) == 3 and own not in found
    other = make_clips(static, seed=4)
    assert any(other[epoch, 1].name != names[epoch, 1] for epoch in range(12))


def test_a_replacement_names_the_bad_files(static: Path) -> None:
    clips = make_clips(static)
    assert clips[0, 0].problems == ""
    lines = {line for epoch in range(12) for line in clips[epoch, 1].problems.splitlines()}
    assert len(lines) == 2  # one replacement in four is tried in vain
    (image,) = (line for line in lines if "image1.jpg cannot be read" in line)
    (mask,) = (line for line in lines if "image3.png contains no object" in line)
    assert image in clips[0, 1].problems
    assert mask in clips[0, 3].problems


def test_replaced_video_frames(
    synthetic: Path, tmp_path: Path, truncate: Callable[[Path], None]
) -> None:
    root = tmp_path / "DAVIS"
    shutil.copytree(synthetic / "DAVIS", root)
    videos = find_davis(root)
    for name in videos[0].names:
        truncate(videos[0].frame_path(name))
    sets = [VideoSet("DAVIS", videos)]
    clips = ReplacingClips(VideoClips(sets, JumpSchedule([2], [], 4), crop_size=32), 0)
    sample = clips[0, 0]
    assert sample.name == f"DAVIS/{videos[1].name}"
    assert f"{videos[0].name}/" in sample.problems
    assert clips[0, 1].problems == ""


def test_a_run_names_each_file_once_and_resumes_bit_equal(
    static: Path, synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--static_root", static, "--save_interval", 3, "-i", 5)
    whole, resumed = (make_train(synthetic, tmp_path / name) for name in ("whole", "resumed"))
    assert whole("run", *options, "--num_workers", 2) == 0
    errors = capsys.readouterr().err
    log = (tmp_path / "whole" / "run" / "log.txt").read_text()
    for text in (errors, log):
        bad = re.findall(r"bad file (\d) \(at most 5\): .*(image\d\.\w+) .* replaces it\.", text)
        assert sorted(number for number, _ in bad) == ["1", "2"]
        assert {name for _, name in bad} == {"image1.jpg", "image3.png"}
        found = re.search(r"bad files: 2; samples replaced since the start: (\d+)", text)
        assert found
        assert int(found[1]) == 4  # 5 iterations x 2 clips are two epochs

    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    for name in ("run_5.pth", "run_5_checkpoint.pth", "run_checkpoint.pth"):
        (tmp_path / "resumed" / "run" / name).unlink()
    assert resumed("run", *options, "--load_model", "auto") == 0
    a, b = (load(tmp_path / name / "run" / "run_5_checkpoint.pth") for name in ("whole", "resumed"))
    for part in {*a} - {"record"}:
        assert_equal(a[part], b[part])


def test_too_many_bad_files_save_and_end_the_run(
    static: Path, synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = make_train(synthetic, tmp_path / "saves")
    assert train("run", "--static_root", static, "-i", 9, "--max_bad_share", 0) == 2
    errors = capsys.readouterr().err
    assert re.search(
        r"error: Bad files: [12], more than --max_bad_share 0 accepts \(0\)\. The run is "
        r"saved; replace the files and resume with --load_model auto: .*(image1|image3)",
        errors,
        re.DOTALL,
    )
    assert "Traceback" not in errors
    write_mask(static / DATA / "image3.png", np.eye(48, 68, dtype=np.uint8), None)
    shutil.copy(static / DATA / "image0.jpg", static / DATA / "image1.jpg")
    options = ("--max_bad_share", 0, "--load_model", "auto")
    assert train("run", "--static_root", static, "-i", 9, *options) == 0


def test_files_of_all_processes_are_named(
    static: Path, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "frame elsewhere.jpg is damaged"
    monkeypatch.setattr(training_loop, "gather_over_ranks", lambda problems: [problems, [other]])
    assert make_train(synthetic, tmp_path)("run", "--static_root", static, "-i", 5) == 0
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count(f": {other}. Another sample replaces it.") == 1
    assert "bad files: 3;" in log


def test_share_and_smallest_number_of_bad_files() -> None:
    assert [BadFiles(n, 0.01).limit for n in (1, 500, 5000)] == [5, 5, 50]
    assert BadFiles(5000, 0).limit == 0
    bad = BadFiles(600, 0.01)
    for number in range(6):
        bad.add([f"file {number} is damaged"], None)
        bad.add([f"file {number} is damaged\nfile 0 is damaged"], None)
        assert not bad.are_too_many
    bad.add(["file 6 is damaged"], None)
    assert bad.are_too_many
    assert bad.num_replaced == 13
    assert bad.describe().count("\n- file") == 7
