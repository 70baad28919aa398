"""The page of gpu_report.py: sections run with a time limit, and Markdown."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from util.child_process import raise_on_sigterm
from util.files import atomic_path
from util.provenance import Record

ROOT = Path(__file__).resolve().parents[2]
_MIN_SECONDS = 5.0  # a section is not started with less time left
_NUM_LAST_LINES = 15  # of the messages of a command that failed


class Section(NamedTuple):
    """A part of the report: commands, whose output it shows, and the figures that they draw."""

    title: str
    commands: list[list[str]]  # each begins with a program
    figures: Sequence[str] = ()  # paths in the output folder


class Result(NamedTuple):
    """What became of a section."""

    section: Section
    verdict: str  # "passed", or what is wrong
    seconds: float
    text: str  # standard output of its commands
    messages: str  # the end of the standard error of the command that failed


def run_section(name: str, section: Section, output: Path, seconds: float) -> Result:
    """Run the commands of a section until one fails.

    Args:
        name: name of the log files.
        output: folder of the report.
        seconds: time limit of the section.
    """
    if seconds < _MIN_SECONDS:
        return Result(section, "left out: no time was left", 0, "", "")
    start = time.monotonic()
    logs = output / "logs"
    logs.mkdir(exist_ok=True)
    stdout, stderr = logs / f"{name}.txt", logs / f"{name}_messages.txt"
    verdict = "passed"
    with stdout.open("w") as out, stderr.open("w") as err:
        for command in section.commands:
            try:
                status = _run(command, out.fileno(), err.fileno(), start + seconds)
            except subprocess.TimeoutExpired:
                verdict = "stopped: its time was over"
                break
            if status:
                verdict = f"failed with exit status {status}"
                break
    lines = stderr.read_text(errors="replace").splitlines()
    messages = "" if verdict == "passed" else "\n".join(lines[-_NUM_LAST_LINES:])
    text = stdout.read_text(errors="replace").strip()
    return Result(section, verdict, time.monotonic() - start, text, messages)


def _run(command: Sequence[str], stdout: int, stderr: int, end: float) -> int:
    """Run a command in the project's folder; at its end, none of its processes is left.

    Raises:
        subprocess.TimeoutExpired: it was still running at `end`.
    """
    with raise_on_sigterm():
        process = subprocess.Popen(
            command, stdout=stdout, stderr=stderr, cwd=ROOT, start_new_session=True
        )
        try:
            return process.wait(max(0.0, end - time.monotonic()))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def write_page(
    output: Path, record: Record, device: torch.device, results: Sequence[Result]
) -> None:
    """Write report.md.

    Args:
        output: folder of the report.
        record: from `describe_run`.
        device: the measured device.
        results: of all sections so far.
    """
    name = record["gpu"] if device.type == "cuda" else record["processor"]
    commit = record["git"]
    lines = [
        f"# {name}", "",
        f"Device {device}, torch {record['torch']}, Python {record['python']}, {record['cores']} "
        f"CPU cores, {record['time']}, commit {commit}.", "",
        "| section | result | seconds |", "|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {result.section.title} | {result.verdict} | {result.seconds:.0f} |"
        for result in results
    ]
    for result in results:
        lines += ["", f"## {result.section.title}", ""]
        commands = [
            shlex.join("python" if part == sys.executable else part for part in command)
            for command in result.section.commands
        ]
        lines += ["```console", *(f"$ {command}" for command in commands)]
        lines += [text for text in (result.text, result.messages) if text]
        lines += ["```"]
        figures = [figure for figure in result.section.figures if (output / figure).is_file()]
        lines += [f"\n![{result.section.title}]({figure})" for figure in figures]
    with atomic_path(output / "report.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n")
