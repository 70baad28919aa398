"""A killed and resumed run equals an uninterrupted one, bit for bit; and which files are kept."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from model import training_state
from model.training_state import find_newest
from tests.training_runs import TINY, assert_equal, load, make_train, parse_one
from util.signals import STOPPED, StopRequest

ROOT = Path(__file__).resolve().parents[1]
# [kind, iteration, rank], see saboteur.py; an epoch has 15 iterations.
ACCIDENTS = [["kill", 5, 1], ["tear", 9, 0], ["term", 7, 1]]
OPTIONS = [
    *TINY, "--backbone_weights", "none", "-i", "18", "--save_interval", "3", "--steps", "8", "14",
    "--start_warm", "4", "--end_warm", "12", "--load_model", "auto",
]  # fmt: skip


def argv(synthetic: Path, saves: Path, plan: list[Any]) -> list[str]:
    return [
        str(ROOT / "tests" / "saboteur.py"), json.dumps(plan), "--id", "run",
        "--static_root", str(synthetic / "static"), "--save_dir", str(saves), *OPTIONS,
    ]  # fmt: skip


def train_once(synthetic: Path, saves: Path, plan: list[Any], start: int) -> int:
    # One thread, because several threads may sum in another order.
    environment = {**os.environ, "START": str(start), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *argv(synthetic, saves, plan), "--num_workers", "1"]
    return subprocess.run(command, env=environment, check=False, timeout=300).returncode


def read_losses(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["iteration"], line["total_loss"]) for line in lines]


def assert_equal_runs(whole: Path, killed: Path) -> None:
    for name in ("run_18.pth", "run_checkpoint.pth"):
        a, b = load(whole / "run" / name), load(killed / "run" / name)
        for part in {*a} - {"record"}:
            assert_equal(a[part], b[part])
    assert read_losses(whole / "run") == read_losses(killed / "run")
    assert [iteration for iteration, _ in read_losses(whole / "run")] == [*range(1, 19)]
    # There is no unfinished file.
    assert [path.name for path in (killed / "run").glob(".*")] == [".lock"]


def test_one_process_that_is_started_again(synthetic: Path, tmp_path: Path) -> None:
    plan = [[kind, iteration, 0] for kind, iteration, _ in ACCIDENTS]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train_once(synthetic, whole, [], 0) == 0
    statuses = [train_once(synthetic, killed, plan, start) for start in range(4)]
    assert statuses == [-signal.SIGKILL, -signal.SIGKILL, STOPPED, 0]
    assert_equal_runs(whole, killed)
    starts = json.loads((killed / "run" / "environment.json").read_text())
    assert [start["iteration"] for start in starts] == [0, 3, 6, 8]


def test_two_processes_that_torchrun_restarts(synthetic: Path, tmp_path: Path) -> None:
    """torchrun starts the same command again after each accident of either process."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    running = {
        name: subprocess.Popen(
            [
                sys.executable,
                *launcher,
                "--max-restarts=3",
                *argv(synthetic, tmp_path / name, plan),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for name, plan in (("whole", []), ("killed", ACCIDENTS))
    }
    try:
        assert [process.wait(300) for process in running.values()] == [0, 0]
    finally:
        for process in running.values():
            process.kill()
    assert_equal_runs(tmp_path / "whole", tmp_path / "killed")
    starts = json.loads((tmp_path / "killed" / "run" / "environment.json").read_text())
    assert [start["iteration"] for start in starts] == [0, 3, 6, 8]


def test_two_nodes_of_which_one_fails(synthetic: Path, tmp_path: Path) -> None:
    """Only the node of the killed process counts a restart, but both must rejoin and resume."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    options = argv(synthetic, tmp_path, [["kill", 5, 1]])
    options = options[: options.index("--load_model")]
    nodes = [
        subprocess.Popen(
            [
                sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={node}",
                "--nproc_per_node=1", "--rdzv_backend=c10d", f"--rdzv_endpoint={endpoint}",
                "--rdzv_id=test", "--max-restarts=3", *options,
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for node in (0, 1)
    ]  # fmt: skip
    try:
        assert [node.wait(240) for node in nodes] == [0, 0]
    finally:
        for node in nodes:
            node.kill()
    starts = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert [start["iteration"] for start in starts] == [0, 3]
    assert [iteration for iteration, _ in read_losses(tmp_path / "run")] == [*range(1, 19)]


@pytest.fixture
def saved(synthetic: Path, tmp_path: Path) -> Path:
    """Folder of a run of five iterations that keeps two checkpoints and the milestone 2."""
    options = ("-i", 5, "--save_interval", 1, "--keep_last", 2, "--milestones", 2)
    assert make_train(synthetic, tmp_path)("kept", *options) == 0
    return tmp_path / "kept"


def test_last_checkpoints_and_milestones_are_kept(saved: Path) -> None:
    checkpoints = {path.name for path in saved.glob("*_checkpoint.pth")}
    assert checkpoints == {
        "kept_2_checkpoint.pth", "kept_4_checkpoint.pth", "kept_5_checkpoint.pth",
        "kept_checkpoint.pth",
    }  # fmt: skip
    assert {path.name for path in saved.glob("kept_?.pth")} == {
        f"kept_{i}.pth" for i in range(1, 6)
    }
    assert (saved / "kept_checkpoint.pth").samefile(saved / "kept_5_checkpoint.pth")


def test_auto_takes_the_newest_undamaged_checkpoint(saved: Path) -> None:
    settings = parse_one(["--id", "kept", "--save_dir", str(saved.parent)])
    newest = find_newest(settings)
    assert newest == (saved / "kept_5_checkpoint.pth", [])
    # kept_checkpoint.pth is a link to the same file.
    content = (saved / "kept_5_checkpoint.pth").read_bytes()
    (saved / "kept_5_checkpoint.pth").write_bytes(content[: len(content) // 2])
    newest = find_newest(settings)
    assert newest is not None
    assert newest[0] == saved / "kept_4_checkpoint.pth"
    assert len(newest[1]) == 1
    assert "kept_5_checkpoint.pth is skipped: " in newest[1][0]
    for path in saved.glob("*_checkpoint.pth"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="No checkpoint of the run can be read"):
        find_newest(settings)
    for path in saved.glob("*_checkpoint.pth"):
        path.unlink()
    assert find_newest(settings) is None


def test_disk_without_links_gets_copies(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links")

    monkeypatch.setattr(training_state.os, "link", refuse)
    name = saved / "kept_checkpoint.pth"
    training_state._link(saved / "kept_4_checkpoint.pth", name)
    assert not name.samefile(saved / "kept_4_checkpoint.pth")
    assert torch.load(name, weights_only=True)["iteration"] == 4
    assert [path.name for path in saved.glob(".*")] == [".lock"]


def test_stop_request_restores_the_signal_handler() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.received
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
