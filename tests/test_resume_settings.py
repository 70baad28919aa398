"""Resuming a run: which settings must be equal, which checkpoint is used, and the messages."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from model.start import start_network
from model.trainer import Trainer
from model.training_state import resume
from tests.training_runs import (
    TINY,
    Train,
    assert_equal,
    load,
    load_weights,
    make_train,
    parse_one,
    read_curves,
    train_done,
)
from util.files import lock_folder
from util.ranks import Ranks
from util.signals import INTERRUPTED


@pytest.fixture
def saves(tmp_path: Path) -> Path:
    return tmp_path / "saves"


@pytest.fixture
def start(synthetic: Path, saves: Path) -> Train:
    return make_train(synthetic, saves)


@pytest.fixture(scope="module")
def done(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of two iterations, named `done`; read only."""
    return train_done(synthetic, tmp_path_factory.mktemp("trained"))


def test_resumed_run_equals_an_uninterrupted_one(start: Train, saves: Path) -> None:
    """Weights, optimiser and schedules, bit for bit; across steps, warm-up and epochs."""
    options = ("-b", 4, "--steps", 3, 8, "--start_warm", 2, "--end_warm", 7)
    assert start("whole", "-i", 10, *options) == 0
    assert start("halves", "-i", 5, *options) == 0
    checkpoint = saves / "halves" / "halves_checkpoint.pth"
    assert load(checkpoint)["iteration"] == 5
    assert start("halves", "-i", 10, *options, "--load_model", checkpoint) == 0
    whole = load(saves / "whole" / "whole_checkpoint.pth")
    halves = load(checkpoint)
    for part in ("iteration", "weights", "optimizer", "random_states", "scaler", "spec"):
        assert_equal(whole[part], halves[part])
    assert_equal(load_weights(saves / "whole", 10), load_weights(saves / "halves", 10))
    log = (saves / "halves" / "log.txt").read_text()
    assert [int(it) for it in re.findall(r" iteration (\d+)  ", log)] == list(range(1, 11))
    assert len(re.findall(r"^\d{4}-\d\d-\d\d [\d:]{8} resumed from iteration 5: ", log, re.M)) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--lr 0.5", "--lr was 0.001 and is 0.5"),
        ("--seed 4", "--seed was 14159265 and is 4"),
        ("-b 3", "clips_per_update was 2 and is 3"),
        (
            "--global_batch 4 --seed 4",
            "clips_per_update was 2 and is 4; --seed was 14159265 and is 4",
        ),
        ("--crop_size 48", "--crop_size was 32 and is 48"),
        ("--steps 1", "--steps was [150000] and is [1]"),
    ],
)
def test_resuming_with_other_settings_fails(
    start: Train,
    done: Path,
    saves: Path,
    capsys: pytest.CaptureFixture[str],
    options: str,
    sentence: str,
) -> None:
    checkpoint = done / "done_checkpoint.pth"
    assert start("next", "-i", 4, "--load_model", checkpoint, *options.split()) == 2
    message = f"{checkpoint} belongs to a run with other settings: {sentence}. Resume with"
    assert message in capsys.readouterr().err
    assert not saves.exists()


def test_resuming_from_a_wrong_file_fails(
    start: Train,
    synthetic: Path,
    done: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    shutil.copytree(synthetic / "static" / "FSS", tmp_path / "fewer" / "FSS")
    fewer = f"--static_root {tmp_path / 'fewer'}"
    checkpoint = done / "done_checkpoint.pth"
    for path, options, sentence in [
        (done / "done_2.pth", "", "is not a checkpoint to resume from: give the file that ends"),
        (checkpoint, "--size small", "has another network than requested (size was 'tiny'"),
        (checkpoint, fewer, "other settings: num_samples was 30 and is 4"),
        (checkpoint, "-i 1", "is at iteration 2, but the run ends at --iterations 1"),
        (tmp_path / "none.pth", "", "There is no file"),
        (tmp_path / "text.pth", "", "is not a checkpoint that torch can read"),
    ]:
        assert start("next", "-i", 4, "--load_model", path, *options.split()) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("train.py: error: ")
        assert str(path) in errors
        assert sentence in errors
    assert not (tmp_path / "saves").exists()


def test_finished_run_is_not_changed(start: Train, done: Path, saves: Path) -> None:
    shutil.copytree(done, saves / "done")
    checkpoint = saves / "done" / "done_checkpoint.pth"
    before = checkpoint.read_bytes()
    assert start("done", "-i", 2, "--load_model", checkpoint) == 0
    assert checkpoint.read_bytes() == before


def test_run_is_not_overwritten(
    start: Train, done: Path, saves: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saves / "done"
    shutil.copytree(done, folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert start("done", "-i", 4) == 2
    message = f"There already is a run done: resume it with --load_model {folder}"
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_run_may_be_resumed_in_other_passes(start: Train, done: Path, saves: Path) -> None:
    """An update has the same clips, in two passes of one clip instead of one pass of two."""
    shutil.copytree(done, saves / "done")
    options = ("-b", 1, "--global_batch", 2, "--load_model", "auto")
    assert start("done", "-i", 4, *options) == 0
    assert load(saves / "done" / "done_checkpoint.pth")["iteration"] == 4


def test_run_may_be_resumed_with_scaled_gradients(synthetic: Path, done: Path) -> None:
    """From a CPU, which trains in bfloat16 or float32, to a GPU, which trains in float16."""
    options = ["--id", "done", "--static_root", str(synthetic), "--save_dir", str(done.parent)]
    settings = parse_one([*options, *TINY, "-i", "4", "--backbone_weights", "none"])
    network, cpu = start_network(settings), torch.device("cpu")
    record = load(done / "done_checkpoint.pth")["record"]
    trainer = Trainer(network, settings, record, cpu, torch.float16, Ranks())
    resume(trainer, done / "done_checkpoint.pth")
    assert trainer.iteration == 2
    assert trainer.scaler.get_scale() > 1
    assert_equal(dict(trainer.network.state_dict()), load_weights(done, 2))


def test_run_may_be_resumed_in_full_precision(start: Train) -> None:
    """The message about losses that are not finite advises it."""
    assert start("half", "-i", 1, mixed_precision=True) == 0
    assert start("half", "-i", 2, "--load_model", "auto") == 0


def test_resuming_from_an_earlier_checkpoint_abandons_later_ones(start: Train, saves: Path) -> None:
    """Later checkpoints are not resumed from, and do not count for --keep_last."""
    options = ("--save_interval", 2, "--keep_last", 2)
    assert start("back", "-i", 8, *options, "--milestones", 2) == 0
    folder = saves / "back"
    early = folder / "back_2_checkpoint.pth"
    assert start("back", "-i", 4, *options, "--load_model", early) == 0
    assert load(folder / "back_checkpoint.pth")["iteration"] == 4
    assert (folder / "back_4_checkpoint.pth").exists()
    assert start("back", "-i", 6, *options, "--load_model", "auto") == 0
    assert [step for step, _ in read_curves(folder)["total_loss"]] == [1, 2, 3, 4, 5, 6]


def test_runs_are_not_mixed(
    start: Train,
    done: Path,
    saves: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(train, "_LOCK_TIMEOUT", 0.1)
    assert start("own", "-i", 1) == 0
    checkpoint = done / "done_checkpoint.pth"
    assert start("own", "-i", 4, "--load_model", checkpoint) == 2
    message = f"There already is a run own, and {checkpoint} belongs to another run: choose another"
    assert message in capsys.readouterr().err
    with lock_folder(saves / "own"):
        assert start("own", "-i", 4, "--load_model", "auto") == 2
    assert "Another run is writing to" in capsys.readouterr().err


def test_the_checkpoint_is_picked_after_an_ending_run_has_written_it(
    start: Train, done: Path, saves: Path
) -> None:
    """A second start waits for the lock of the first one, and resumes from its last checkpoint."""
    folder = saves / "done"

    def end_first_run(locked: threading.Event) -> None:
        with lock_folder(folder):
            locked.set()
            time.sleep(1)
            shutil.copytree(done, folder, dirs_exist_ok=True, ignore=lambda *_: {".lock"})

    locked = threading.Event()
    first = threading.Thread(target=end_first_run, args=(locked,))
    first.start()
    locked.wait()
    assert start("done", "-i", 3, "--load_model", "auto") == 0
    first.join()
    assert [step for step, _ in read_curves(folder)["total_loss"]] == [1, 2, 3]
    assert "resumed from iteration 2: " in (folder / "log.txt").read_text()


def test_resumed_videos_have_the_same_jumps(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage 3 in passes, interrupted between two saves, resumed across a change of the jump."""

    def run(name: str) -> int:
        options = ["--id", name, "--stage", "3", "--save_dir", str(tmp_path), *TINY, "-i", "12"]
        options += ["--davis_root", str(synthetic / "DAVIS")]
        options += ["--yv_root", str(synthetic / "YouTube")]
        options += ["--global_batch", "4", "--save_interval", "3", "--load_model", "auto"]
        options += ["--jumps", "1", "9", "--jump_fractions", "0.4", "--backbone_weights", "none"]
        return train.main(options)

    assert run("whole") == 0
    step = Trainer.step

    def interrupted_step(self: Trainer, *args: Any, **options: Any) -> object:
        if self.iteration == 5:
            raise KeyboardInterrupt
        return step(self, *args, **options)

    monkeypatch.setattr(Trainer, "step", interrupted_step)
    assert run("interrupted") == INTERRUPTED
    monkeypatch.setattr(Trainer, "step", step)
    assert run("interrupted") == 0
    folders = [tmp_path / "whole", tmp_path / "interrupted"]
    assert_equal(*(load_weights(folder, 12) for folder in folders))
    logs = [(folder / "log.jsonl").read_text().splitlines() for folder in folders]
    losses = [[json.loads(line)["total_loss"] for line in log] for log in logs]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 12
