"""Every way out of training ends its data loading processes, and with them the run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from datasets.clips import ClipSample
from datasets.static import StaticClips
from model.trainer import Trainer
from scripts.experiments import training_exits
from tests.training_runs import Train, make_train
from util.signals import INTERRUPTED, STOPPED, StopRequest


@pytest.fixture
def start(synthetic: Path, tmp_path: Path) -> Iterator[Train]:
    """Starts a run with two data loading processes; checks that they end, and soon."""
    train = make_train(synthetic, tmp_path / "saves")
    begin = time.monotonic()
    yield lambda *options: train("run", "-i", 50, "--num_workers", 2, *options)
    num_left = len(multiprocessing.active_children())
    for worker in multiprocessing.active_children():
        worker.kill()
    assert num_left == 0
    assert time.monotonic() - begin < 60


def act_in_step(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """Do something before the third update."""
    step = Trainer.step

    def step_and_act(self: Trainer, *args: Any, **options: Any) -> Any:
        if self.iteration == 2:
            act()
        return step(self, *args, **options)

    monkeypatch.setattr(Trainer, "step", step_and_act)


def signal_twice(number: signal.Signals) -> None:
    for _ in range(2):
        os.kill(os.getpid(), number)


def test_unexpected_error_in_a_worker(start: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: StaticClips, key: tuple[int, int]) -> ClipSample:
        raise RuntimeError("a bug")

    monkeypatch.setattr(StaticClips, "__getitem__", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        start()


def test_unexpected_error_in_training(start: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    act_in_step(monkeypatch, fail)
    with pytest.raises(RuntimeError, match="a bug"):
        start()


def test_full_disk(
    start: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    act_in_step(monkeypatch, fail)
    assert start() == 2
    assert "train.py: error: [Errno 28] No space left on device" in capsys.readouterr().err


def test_a_killed_worker(
    start: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill() -> None:
        worker = multiprocessing.active_children()[0].pid
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        time.sleep(1)  # until the signal of its end has come

    act_in_step(monkeypatch, kill)
    assert start() == 2
    errors = capsys.readouterr().err
    assert "train.py: error: A data loading process was killed, possibly because" in errors
    assert "Traceback" not in errors


def test_workers_that_do_not_react(start: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the middle of a read from a network file system that does not answer."""

    def stop() -> None:
        for worker in multiprocessing.active_children():
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGSTOP)
        raise RuntimeError("a bug")

    act_in_step(monkeypatch, stop)
    with pytest.raises(RuntimeError, match="a bug"):
        start()


@pytest.mark.parametrize(("number", "status"), [("SIGTERM", STOPPED), ("SIGINT", INTERRUPTED)])
def test_one_signal(
    start: Train, monkeypatch: pytest.MonkeyPatch, number: str, status: int
) -> None:
    act_in_step(monkeypatch, lambda: os.kill(os.getpid(), signal.Signals[number]))
    assert start() == status


def test_two_signals(start: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    act_in_step(monkeypatch, partial(signal_twice, signal.SIGINT))
    assert start() == INTERRUPTED


def test_a_scheduler_signals_all_processes(
    start: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The training process gets SIGTERM twice, since torchrun passes on its own."""
    act_in_step(monkeypatch, partial(signal_twice, signal.SIGTERM))
    assert start() == STOPPED
    assert (tmp_path / "saves" / "run" / "run_checkpoint.pth").exists()


def test_a_third_signal_is_not_caught() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == before


def test_torchrun_ends_with_the_error_of_a_worker(synthetic: Path) -> None:
    """The seconds depend on the load of the machine; before, the run did not end at all."""
    way = "error in a worker"
    ending = training_exits.measure("torchrun", way, synthetic / "static", timeout=60)
    assert ending.seconds is not None
    assert ending.num_left == 0
    assert ending.status == 1
    assert "which loads data" in ending.message or "Another process" in ending.message
