"""Eval scripts under torchrun: videos are distributed, masks equal those of one process."""

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

from inference.run_report import Report, join_reports
from inference.runner import share_videos
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
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def read_masks(output: Path) -> dict[str, bytes]:
    return {str(p.relative_to(output)): p.read_bytes() for p in sorted(output.rglob("*.png"))}


@pytest.fixture(scope="module")
def expected(
    davis: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The masks of a single process."""
    output = tmp_path_factory.mktemp("single")
    assert "7 videos, 84 frames\n" in finish(start(davis, tiny_weights, output, 1))
    assert len(read_masks(output)) == 84
    return read_masks(output)


@pytest.mark.parametrize("processes", [2, 3])
def test_the_number_of_processes_does_not_change_the_masks(
    processes: int, davis: Path, tiny_weights: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    report = finish(start(davis, tiny_weights, tmp_path, processes))
    assert report.count(f"7 videos, 84 frames, by {processes} processes") == 1, report
    assert read_masks(tmp_path) == expected
    assert len(json.loads((tmp_path / "run.json").read_text())["videos"]) == 7
    assert not [*tmp_path.glob(".rank*")]


def find_complete(output: Path) -> list[Path]:
    """Folders of the complete videos: those with a digest in run.json or in a list."""
    paths = [*output.glob("run.json"), *output.glob(".rank*.json")]
    contents = [json.loads(path.read_text()) for path in paths]
    entries = {k: v for content in contents for k, v in content.get("videos", content).items()}
    return [output / name for name, entry in entries.items() if entry["digest"]]


def test_a_run_with_a_killed_process_is_resumed(
    davis: Path, tiny_weights: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    """The other process ends too; the same command segments only incomplete videos."""
    output = tmp_path / "out"
    process = start(davis, tiny_weights, output, 2)
    deadline = time.monotonic() + 120
    while not find_complete(output):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode != 0, printed
    complete = find_complete(output)
    before = {path: path.stat().st_mtime_ns for folder in complete for path in folder.iterdir()}
    report = finish(start(davis, tiny_weights, output, 2))
    assert f"{len(complete)} videos were complete before" in report
    after = {path: path.stat().st_mtime_ns for folder in complete for path in folder.iterdir()}
    assert before == after
    assert read_masks(output) == expected


def make_videos(*lengths: int) -> list[Any]:
    """Stand-ins for videos with these numbers of frames."""

    class Video(SimpleNamespace):
        def __len__(self) -> int:
            return self.length

    return [Video(name=f"v{number}", length=length) for number, length in enumerate(lengths)]


def test_videos_are_distributed_by_length() -> None:
    shares = share_videos(make_videos(10, 70, 20, 30, 40), 2)
    assert [[v.name for v in share] for share in shares] == [["v1", "v2"], ["v4", "v3", "v0"]]
    assert share_videos(make_videos(5), 3)[1:] == [[], []]
    assert share_videos([], 2) == [[], []]


def test_reports_are_joined() -> None:
    first = Report(2, 1, 20, 3, ["a"], 4.0, 9.0, {"x": "broken"}, memory_frames=[5, 2])
    second = Report(3, 1, 40, 0, [], 8.0, 10.0, {}, memory_frames=[3])
    joined = join_reports([first, second])
    assert joined == Report(5, 1, 60, 3, ["a"], 6.0, 10.0, {"x": "broken"}, 2, [5, 2, 3])
    assert "by 2 processes" in str(joined)
    assert "Largest number of frames in memory: 5" in str(joined)
