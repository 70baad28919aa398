"""Eval scripts under torchrun: the videos are dealt out, the masks are those of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inference.runner import Report, join_reports, share_videos
from scripts import make_synthetic

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    flags = "--layouts davis --num_videos 7 --num_frames 12 --num_objects 2 --height 48 --width 68"
    assert make_synthetic.main([str(root), *flags.split()]) == 0
    return root / "DAVIS" / "2017"


def start(davis: Path, weights: Path, output: Path, processes: int) -> subprocess.Popen[str]:
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    flags = ["--davis_path", davis, "--model", weights, "--output", output, "--device", "cpu"]
    return subprocess.Popen(
        [*command, str(ROOT / "eval_davis.py"), *map(str, flags)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def masks(output: Path) -> dict[str, bytes]:
    return {str(p.relative_to(output)): p.read_bytes() for p in sorted(output.rglob("*.png"))}


@pytest.fixture(scope="module")
def whole(
    davis: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The masks of a single process."""
    output = tmp_path_factory.mktemp("whole")
    assert "7 videos, 84 frames\n" in finish(start(davis, tiny_weights, output, 1))
    assert len(masks(output)) == 84
    return masks(output)


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_gives_the_same_masks(
    processes: int, davis: Path, tiny_weights: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    said = finish(start(davis, tiny_weights, tmp_path, processes))
    assert said.count(f"7 videos, 84 frames, by {processes} processes") == 1, said
    assert masks(tmp_path) == whole
    assert len(json.loads((tmp_path / "run.json").read_text())["videos"]) == 7
    assert not [*tmp_path.glob(".run.*")]


def test_a_process_that_is_killed(
    davis: Path, tiny_weights: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """The others end; the same command goes on and segments nothing twice."""
    output = tmp_path / "out"
    process = start(davis, tiny_weights, output, 2)
    deadline = time.monotonic() + 120
    while not (done := [p for p in output.glob("val-*") if p.is_dir()]):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0, said
    before = {p.name: p.stat().st_mtime_ns for p in done for p in p.glob("*.png")}
    complete = {p.name for p in output.glob("val-*") if p.is_dir()}
    said = finish(start(davis, tiny_weights, output, 2))
    assert f"{len(complete)} videos were complete before" in said
    after = {p.name: p.stat().st_mtime_ns for p in done for p in p.glob("*.png")}
    assert before == after
    assert masks(output) == whole


def videos(*lengths: int) -> list[Any]:
    class Video(SimpleNamespace):
        def __len__(self) -> int:
            return self.length

    return [Video(name=f"v{number}", length=length) for number, length in enumerate(lengths)]


def test_videos_are_dealt_out_by_length() -> None:
    shares = share_videos(videos(10, 70, 20, 30, 40), 2)
    assert [[v.name for v in share] for share in shares] == [["v1", "v2"], ["v4", "v3", "v0"]]
    assert share_videos(videos(5), 3)[1:] == [[], []]
    assert share_videos([], 2) == [[], []]


def test_one_report_of_all() -> None:
    first = Report(2, 1, 20, 3, ["a"], 4.0, 9.0, {"x": "broken"}, memory_frames=[5, 2])
    second = Report(3, 1, 40, 0, [], 8.0, 10.0, {}, memory_frames=[3])
    joined = join_reports([first, second])
    assert joined == Report(5, 1, 60, 3, ["a"], 6.0, 10.0, {"x": "broken"}, 2, [5, 2, 3])
    assert "by 2 processes" in str(joined)
    assert "memory frames: largest 5" in str(joined)
