"""The output folder of an eval script: resumed, refused and locked."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import inference_core
from model.checkpoint import save_network
from model.methods import build_network
from model.network import NetworkSpec
from tests import eval_fixtures
from tests.eval_fixtures import NUM_FRAMES, Evaluate, frames_of, masks_of, names_in, read_files
from util.files import write_json
from util.masks import read_mask, write_mask
from util.signals import INTERRUPTED

davis, evaluate = eval_fixtures.davis, eval_fixtures.evaluate  # fixtures of this file


def test_run_json_records_each_run(evaluate: Evaluate, davis: Path, tmp_path: Path) -> None:
    assert evaluate("davis", davis, "--mem_every", 3).code == 0
    (record,) = json.loads((tmp_path / "out" / "run.json").read_text())["runs"]
    assert record["settings"]["mem_every"] == 3
    assert record["settings"]["davis_path"] == str(davis)
    assert {"command", "git", "torch", "time", "weights_sha256"} <= record.keys()
    assert evaluate("davis", davis, "--mem_every", 3, "--benchmark").code == 0
    runs = json.loads((tmp_path / "out" / "run.json").read_text())["runs"]
    assert [run["settings"]["benchmark"] for run in runs] == [False, True]


def test_complete_videos_are_skipped(
    evaluate: Evaluate, davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate("davis", davis).code == 0
    before = read_files(tmp_path / "out")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a complete video was segmented again")

    monkeypatch.setattr(inference_core.InferenceCore, "step", refuse)
    result = evaluate("davis", davis, "--benchmark")  # does not change the masks
    assert result.code == 0
    assert "0 videos, 0 frames; 2 videos were complete before" in result.out
    assert "FPS" not in result.out
    assert read_files(tmp_path / "out") == before


@pytest.mark.parametrize("stop", [1, NUM_FRAMES, NUM_FRAMES + 1, 2 * NUM_FRAMES - 1])
def test_an_interrupted_run_is_resumed(
    evaluate: Evaluate,
    davis: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
) -> None:
    """Ctrl-C after `stop` frames: each video is complete or absent."""
    assert evaluate("davis", davis, "--overlay", "--output", tmp_path / "full").code == 0
    expected = read_files(tmp_path / "full")
    step = inference_core.InferenceCore.step
    calls = 0

    def interrupted(*args: Any, **options: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > stop:
            raise KeyboardInterrupt
        return step(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(inference_core.InferenceCore, "step", interrupted)
        result = evaluate("davis", davis, "--overlay")
    assert result.code == INTERRUPTED
    assert "Interrupted: run the same command again to resume." in result.err
    names = names_in(tmp_path / "out")
    num_complete = stop // NUM_FRAMES
    complete = {f"val-{index:03d}" for index in range(num_complete)}
    assert names == {"run.json", *complete, *(f"{name}.mp4" for name in complete)}

    result = evaluate("davis", davis, "--overlay")
    assert result.code == 0
    num_left = 2 - num_complete
    assert f"{num_left} videos, {num_left * NUM_FRAMES} frames" in result.out
    resumed = read_files(tmp_path / "out")
    assert resumed.keys() == expected.keys()
    assert {k: v for k, v in resumed.items() if k.endswith("png")} == {
        k: v for k, v in expected.items() if k.endswith("png")
    }


def test_leftovers_of_a_killed_run_are_deleted(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    """A killed process leaves its incomplete folder, which is hidden."""
    output = tmp_path / "out"
    assert evaluate("davis", davis).code == 0
    expected = read_files(output)
    for name in (".val-001.partial", ".val-001.outdated"):
        leftover = output / name
        leftover.mkdir()
        (leftover / "00000.png").write_bytes(b"half a mask")
    (output / ".mine.partial").mkdir()  # of another program
    shutil.rmtree(output / "val-001")
    result = evaluate("davis", davis)
    assert result.code == 0
    assert f"1 videos, {NUM_FRAMES} frames; 1 videos were complete before" in result.out
    assert read_files(output) == expected
    assert names_in(output) == {"run.json", "val-000", "val-001", ".mine.partial"}


def test_a_changed_video_is_segmented_again(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert evaluate("davis", davis).code == 0
    before = read_files(output)
    path = masks_of(davis, "val-001") / "00000.png"
    annotation = read_mask(path)
    write_mask(path, np.fliplr(annotation.labels).copy(), annotation.palette)
    result = evaluate("davis", davis)
    assert "1 videos, 11 frames; 1 videos were complete before" in result.out
    assert "had changed or files were missing: val-001" in result.out
    after = read_files(output)
    changed = {name for name in after if after[name] != before[name]} - {"run.json", ".lock"}
    assert changed
    assert all(name.startswith("val-001/") for name in changed)
    (output / "val-000" / "00003.png").unlink()
    assert "missing: val-000" in evaluate("davis", davis).out
    assert (output / "val-000" / "00003.png").exists()
    result = evaluate("davis", davis, "--overlay")  # does not change the masks
    assert result.code == 0
    assert (output / "val-000.mp4").exists() or (output / "val-000.avi").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--mem_every 4", "mem_every was 5 and is 4"),
        ("--include_last", "include_last was False and is True"),
        ("--amp", "amp was False and is True"),
        ("--exact", "exact was False and is True"),
        ("--mem_half", "mem_half was False and is True"),
    ],
)
def test_other_settings_for_the_same_folder_are_refused(
    evaluate: Evaluate, davis: Path, tmp_path: Path, flags: str, sentence: str
) -> None:
    assert evaluate("davis", davis).code == 0
    before = read_files(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "val-001")
    result = evaluate("davis", davis, *flags.split())
    assert result.code == 2
    assert f"{tmp_path / 'out'} contains masks made with other settings: {sentence}." in result.err
    assert read_files(tmp_path / "out") == {k: v for k, v in before.items() if "val-001" not in k}


def test_other_weights_for_the_same_folder_are_refused(
    evaluate: Evaluate, davis: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    shutil.copy(tiny_weights, path)
    assert evaluate("davis", davis, "--model", path).code == 0
    same = tmp_path / "same.pth"
    shutil.copy(path, same)
    assert evaluate("davis", davis, "--model", same).code == 0
    torch.manual_seed(1)
    save_network(path, build_network(NetworkSpec("stcn", "tiny")), {})
    result = evaluate("davis", davis, "--model", path)
    assert result.code == 2
    assert "contains masks made with other settings: weights_sha256" in result.err


def write_former_record(path: Path) -> None:
    """Rewrite run.json as an earlier version of the eval scripts wrote it."""
    content = json.loads(path.read_text())
    for run in content["runs"]:
        settings = run["settings"]
        settings["save_scores"] = settings.pop("save_probabilities")
        for name in ("mode", "quality_reference", "sample_keep"):
            settings[name] = settings[name] or ""
        del settings["scales"]  # newer than that version
    path.write_text(json.dumps(content))


def test_a_run_of_an_earlier_version_is_resumed(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    assert evaluate("davis", davis).code == 0
    write_former_record(tmp_path / "out" / "run.json")
    result = evaluate("davis", davis)
    assert result.code == 0
    assert "0 videos, 0 frames; 2 videos were complete before" in result.out
    assert evaluate("davis", davis, "--scales", 1, 1.5).code == 2
    assert evaluate("davis", davis, "--save_probabilities").code == 0


@pytest.mark.parametrize(
    "runs",
    [
        [{"settings": {"top": -1, "mem_every": 0, "memory": ""}, "weights_sha256": ""}],
        [{"settings": {}, "weights_sha256": None}],
        [{"settings": [], "weights_sha256": ""}],
        [{"settings": {}}],
        [3],
        {"settings": {}},
        None,
    ],
)
def test_other_content_of_run_json_is_refused(
    evaluate: Evaluate, davis: Path, tmp_path: Path, runs: object
) -> None:
    (tmp_path / "out" / "val-000").mkdir(parents=True)
    (tmp_path / "out" / "run.json").write_text(json.dumps({"runs": runs, "videos": {}}))
    result = evaluate("davis", davis)
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert str(tmp_path / "out") in result.err
    assert "choose another --output" in result.err.lower()


def test_the_folder_of_a_running_process_is_refused(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = evaluate("davis", davis)
        assert result.code == 2
        assert f"Another run is writing to {tmp_path / 'out'}: wait for it" in result.err
        assert names_in(tmp_path / "out") == set()
    assert evaluate("davis", davis).code == 0


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_folder_that_cannot_be_written(
    evaluate: Evaluate, davis: Path, tmp_path: Path, place: str
) -> None:
    """A file in place of the folder, the only obstacle for tests that run as root."""
    (tmp_path / "file").write_text("mine")
    result = evaluate("davis", davis, "--output", tmp_path / place)
    assert result.code == 2
    assert f"The output folder {tmp_path / place} cannot be written (" in result.err
    assert "choose another with --output" in result.err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["val-001/00000.png", "val-001.mp4"])
def test_files_of_the_user_are_not_replaced(
    evaluate: Evaluate, davis: Path, tmp_path: Path, name: str
) -> None:
    """Also beside masks of an earlier run."""
    video_list = davis / "trainval" / "ImageSets" / "2017" / "val.txt"
    video_list.write_text("val-000\n")
    assert evaluate("davis", davis).code == 0
    path = tmp_path / "out" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("theirs")
    video_list.write_text("val-000\nval-001\n")
    result = evaluate("davis", davis, "--overlay")
    assert result.code == 2
    assert f"would replace {tmp_path / 'out' / name.split('/')[0]}, which no earlier" in result.err
    assert path.read_text() == "theirs"


def test_a_video_of_the_user_is_not_taken_for_an_overlay(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    assert evaluate("davis", davis).code == 0
    (tmp_path / "out" / "val-001.mp4").write_text("theirs")
    assert evaluate("davis", davis, "--overlay").code == 2
    (tmp_path / "out" / "val-001" / "00003.png").unlink()
    assert "files were missing: val-001" in evaluate("davis", davis).out
    assert (tmp_path / "out" / "val-001.mp4").read_text() == "theirs"


def test_lists_without_run_json_are_not_believed(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    assert evaluate("davis", davis).code == 0
    entries = json.loads((tmp_path / "out" / "run.json").read_text())["videos"]
    (tmp_path / "out" / "run.json").unlink()
    (tmp_path / "out" / ".rank0.json").write_text(json.dumps(entries))
    result = evaluate("davis", davis, "--mem_every", 3)
    assert result.code == 2
    assert "would replace" in result.err


def test_a_damaged_list_is_named(evaluate: Evaluate, davis: Path, tmp_path: Path) -> None:
    assert evaluate("davis", davis).code == 0
    for content in ("", "[]", '{"val-000": 5}'):
        (tmp_path / "out" / ".rank9.json").write_text(content)
        result = evaluate("davis", davis)
        assert result.code == 2
        assert ".rank9.json is not a list of a run" in result.err


def test_the_lock_file_is_not_emptied(evaluate: Evaluate, davis: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "out" / ".lock").symlink_to(tmp_path / "theirs")
    assert evaluate("davis", davis).code == 0
    assert (tmp_path / "theirs").read_text() == "theirs"


def test_an_output_folder_of_an_earlier_version_is_resumed(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    """It recorded only the digests of the videos."""
    assert evaluate("davis", davis, "--overlay").code == 0
    path = tmp_path / "out" / "run.json"
    record = json.loads(path.read_text())
    record["videos"] = {name: entry["digest"] for name, entry in record["videos"].items()}
    path.write_text(json.dumps(record))
    assert "2 videos were complete before" in evaluate("davis", davis, "--overlay").out


def test_masks_of_another_data_set_are_not_replaced(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    assert evaluate("davis", davis).code == 0
    before = read_files(tmp_path / "out")
    other = tmp_path / "other"
    shutil.copytree(davis, other)
    (masks_of(other, "val-001") / "00000.png").write_bytes(
        (masks_of(other, "val-001") / "00001.png").read_bytes()
    )
    result = evaluate("davis", other)
    assert result.code == 2
    assert f"of {frames_of(davis, 'val-001')}, not of {frames_of(other, 'val-001')}" in result.err
    assert read_files(tmp_path / "out") == before
    shutil.rmtree(other)
    davis.rename(other)  # the same videos in another folder
    assert "2 videos were complete before" in evaluate("davis", other).out


def test_a_video_that_was_killed_while_it_was_renamed_is_segmented_again(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    assert evaluate("davis", davis).code == 0
    before = read_files(tmp_path / "out")
    path = tmp_path / "out" / "run.json"
    record = json.loads(path.read_text())
    del record["videos"]["val-001"]
    path.write_text(json.dumps(record))
    (tmp_path / "out" / ".rank1.json").write_text(json.dumps({"val-001": ""}))
    result = evaluate("davis", davis)
    assert result.code == 0
    assert "had changed or files were missing: val-001" in result.out
    assert read_files(tmp_path / "out") == before


def test_a_half_written_record_of_a_killed_run_is_ignored(
    evaluate: Evaluate, davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:  # as if killed: the temporary file stays
        patch.setattr(Path, "replace", stop)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            write_json(tmp_path / "out" / "run.json", {})
    (leftover,) = (tmp_path / "out").iterdir()
    leftover.write_text('{"runs": [')
    result = evaluate("davis", davis)
    assert result.code == 0
    assert "2 videos" in result.out


def test_a_folder_without_run_json_is_refused(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / "val-000"
    folder.mkdir(parents=True)
    (folder / "00000.png").write_text("theirs")
    result = evaluate("davis", davis)
    assert result.code == 2
    assert "val-000, which no earlier run into" in result.err
    assert (folder / "00000.png").read_text() == "theirs"
    (tmp_path / "out" / "run.json").write_text("{}")
    result = evaluate("davis", davis)
    assert result.code == 2
    assert "run.json is not a record of a run" in result.err
