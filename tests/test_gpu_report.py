"""scripts/benchmarks/gpu_report.py: its commands, its page, and its limits of time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import make_synthetic, verify_reference
from scripts.benchmarks import bench_inference, bench_roofline, bench_train, gpu_report
from scripts.benchmarks.report_page import Section, run_section
from util.parse_settings import parse_eval

PARSERS: dict[str, Callable[[list[str]], object]] = {
    "verify_reference.py": verify_reference.parse,
    "make_synthetic.py": make_synthetic.parse,
    "bench_inference.py": bench_inference.parse,
    "bench_train.py": bench_train.parse,
    "bench_roofline.py": bench_roofline.parse,
    "eval_davis.py": lambda argv: parse_eval("davis", argv),
}
PYTHON = sys.executable


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_commands(device: str, tmp_path: Path) -> None:
    arguments = gpu_report.parse(["--output", str(tmp_path)])
    parsed = set()
    for name, section in gpu_report.plan(arguments, device):
        assert name in gpu_report.SECTIONS
        for program, *argv in section.commands:
            if program == PYTHON and argv[0] != "-m":
                script = Path(argv[0])
                assert (gpu_report.ROOT / script).is_file()
                PARSERS[script.name](argv[1:])
                parsed.add(script.name)
    assert parsed == {*PARSERS}


def test_report_of_a_tiny_network(tmp_path: Path) -> None:
    flags = "--device cpu --net_size tiny --methods stcn --height 48 --width 64 --crop_size 48"
    argv = [*flags.split(), "--output", str(tmp_path / "out"), "--sections", "training", "batches"]
    assert gpu_report.main(argv) == 0
    page = (tmp_path / "out/report.md").read_text()
    assert "| Training step of STCN | passed |" in page
    assert "torch 2." in page
    assert "s per step" in page or "ms" in page
    assert "![Inference, images encoded in batches of 8](batches/speed.png)" in page
    assert (tmp_path / "out/batches/speed.png").stat().st_size > 1000


def test_a_failure_and_a_limit_of_time(tmp_path: Path) -> None:
    bad = "import sys; print('half'); sys.exit('no memory left')"
    result = run_section("bad", Section("Bad", [[PYTHON, "-c", bad]]), tmp_path, 60)
    assert (result.verdict, result.text) == ("failed with exit status 1", "half")
    assert result.messages == "no memory left"

    slow = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    start = time.monotonic()
    result = run_section("slow", Section("Slow", [[PYTHON, "-c", slow]] * 2), tmp_path, 5)
    assert result.verdict == "stopped: its time was over"
    assert time.monotonic() - start < 20
    result = run_section("late", Section("Late", [[PYTHON, "-c", slow]]), tmp_path, 1)
    assert result.verdict == "left out: no time was left"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_report_leaves_no_process(number: int, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    slow = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"""
import sys; sys.path.insert(0, {str(gpu_report.ROOT)!r})
from pathlib import Path
from scripts.benchmarks.report_page import Section, run_section
section = Section("Slow", [[sys.executable, "-c", {slow!r}]])
run_section("slow", section, Path({str(tmp_path)!r}), 60)
"""
    process = subprocess.Popen([PYTHON, "-c", code], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(30) != 0
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)
    finally:
        process.kill()
        process.wait()


def test_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu_report.parse(["--output", str(tmp_path), "--height", "8"])
    assert "--height, --width and --crop_size must be at least 32" in capsys.readouterr().err
    assert gpu_report.main(["--output", str(tmp_path), "--device", "gpu"]) == 2
    assert "error: " in capsys.readouterr().err
