"""A run that is killed and resumed ends as the one that was never interrupted, bit for bit."""

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
from tests.test_training import TINY, assert_same, load, parse_one
from util.signals import STOPPED, StopRequest

ROOT = Path(__file__).resolve().parents[1]
# In the middle of an epoch (15 iterations), while a checkpoint is written, and politely.
ACCIDENTS = [["kill", 5, 1], ["tear", 9, 0], ["term", 7, 1]]
FLAGS = [
    *TINY, "--backbone_weights", "none", "-i", "18", "--save_interval", "3", "--steps", "8", "14",
    "--start_warm", "4", "--end_warm", "12", "--load_model", "auto",
]  # fmt: skip


def argv(synthetic: Path, saves: Path, plan: list[Any]) -> list[str]:
    return [
        str(ROOT / "tests" / "saboteur.py"), json.dumps(plan), "--id", "run",
        "--static_root", str(synthetic / "static"), "--save_dir", str(saves), *FLAGS,
    ]  # fmt: skip


def train_once(synthetic: Path, saves: Path, plan: list[Any], start: int) -> int:
    # One thread: where threads add in another order, nothing is bit-equal.
    environment = {**os.environ, "START": str(start), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *argv(synthetic, saves, plan), "--num_workers", "1"]
    return subprocess.run(command, env=environment, check=False, timeout=300).returncode


def losses(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["iteration"], line["total_loss"]) for line in lines]


def assert_same_end(whole: Path, killed: Path) -> None:
    for name in ("run_18.pth", "run_checkpoint.pth"):
        a, b = load(whole / "run" / name), load(killed / "run" / name)
        for part in {*a} - {"record"}:
            assert_same(a[part], b[part])
    assert losses(whole / "run") == losses(killed / "run")
    assert [iteration for iteration, _ in losses(whole / "run")] == [*range(1, 19)]
    # No half-written file is left.
    assert [path.name for path in (killed / "run").glob(".*")] == [".lock"]


def test_one_process(synthetic: Path, tmp_path: Path) -> None:
    plan = [[kind, iteration, 0] for kind, iteration, _ in ACCIDENTS]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train_once(synthetic, whole, [], 0) == 0
    statuses = [train_once(synthetic, killed, plan, start) for start in range(4)]
    assert statuses == [-signal.SIGKILL, -signal.SIGKILL, STOPPED, 0]
    assert_same_end(whole, killed)
    starts = json.loads((killed / "run" / "environment.json").read_text())
    assert [start["iteration"] for start in starts] == [0, 3, 6, 8]


def test_two_processes_that_torchrun_restarts(synthetic: Path, tmp_path: Path) -> None:
    """The same command again, at each accident of either process."""
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
    assert_same_end(tmp_path / "whole", tmp_path / "killed")
    starts = json.loads((tmp_path / "killed" / "run" / "environment.json").read_text())
    assert [start["iteration"] for start in starts] == [0, 3, 6, 8]


def test_two_nodes_of_which_one_fails(synthetic: Path, tmp_path: Path) -> None:
    """Only the node whose process died counts a restart; both must meet again, and resume."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    flags = argv(synthetic, tmp_path, [["kill", 5, 1]])
    flags = flags[: flags.index("--load_model")]
    nodes = [
        subprocess.Popen(
            [
                sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={node}",
                "--nproc_per_node=1", "--rdzv_backend=c10d", f"--rdzv_endpoint={endpoint}",
                "--rdzv_id=test", "--max-restarts=3", *flags,
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
    assert [iteration for iteration, _ in losses(tmp_path / "run")] == [*range(1, 19)]


@pytest.fixture
def saved(synthetic: Path, tmp_path: Path) -> Path:
    """The folder of a run that saved at 1, 2, 3, 4, 5, keeping two, and 2 for good."""
    import train

    flags = ["--id", "kept", "--static_root", str(synthetic / "static"), *TINY, "-i", "5"]
    flags += ["--save_dir", str(tmp_path), "--save_interval", "1", "--keep_last", "2"]
    assert train.main([*flags, "--milestones", "2", "--backbone_weights", "none"]) == 0
    return tmp_path / "kept"


def test_the_last_few_and_milestones_are_kept(saved: Path) -> None:
    checkpoints = {path.name for path in saved.glob("*_checkpoint.pth")}
    assert checkpoints == {
        "kept_2_checkpoint.pth", "kept_4_checkpoint.pth", "kept_5_checkpoint.pth",
        "kept_checkpoint.pth",
    }  # fmt: skip
    assert {path.name for path in saved.glob("kept_?.pth")} == {
        f"kept_{i}.pth" for i in range(1, 6)
    }
    assert (saved / "kept_checkpoint.pth").samefile(saved / "kept_5_checkpoint.pth")


def test_auto_takes_the_newest_good_one(saved: Path) -> None:
    settings = parse_one(["--id", "kept", "--save_dir", str(saved.parent)])
    newest = find_newest(settings)
    assert newest == (saved / "kept_5_checkpoint.pth", [])
    # A disk error: the name is the same file, so it is damaged too.
    content = (saved / "kept_5_checkpoint.pth").read_bytes()
    (saved / "kept_5_checkpoint.pth").write_bytes(content[: len(content) // 2])
    newest = find_newest(settings)
    assert newest is not None
    assert newest[0] == saved / "kept_4_checkpoint.pth"
    assert len(newest[1]) == 1
    assert "kept_5_checkpoint.pth is passed over: " in newest[1][0]
    for path in saved.glob("*_checkpoint.pth"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="No checkpoint of the run can be read"):
        find_newest(settings)
    for path in saved.glob("*_checkpoint.pth"):
        path.unlink()
    assert find_newest(settings) is None


def test_a_disk_without_links_gets_copies(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(training_state.os, "link", refuse)
    name = saved / "kept_checkpoint.pth"
    training_state._link(saved / "kept_4_checkpoint.pth", name)
    assert not name.samefile(saved / "kept_4_checkpoint.pth")
    assert torch.load(name, weights_only=True)["iteration"] == 4
    assert [path.name for path in saved.glob(".*")] == [".lock"]


def test_a_stop_is_asked_for_and_the_handler_goes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
