"""util/child_process.py: results, failures and interruptions of child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from util.child_process import BAD_INPUT, ChildFailed, print_result, run_script

ROOT = Path(__file__).resolve().parents[1]
CHILD = f"""
import os, signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from util.child_process import print_result

def compute():
    print("a line before the result")
    action, *rest = sys.argv[1:]
    if action == "echo":
        return {{"arguments": rest, "nan": float("nan")}}
    if action == "raise":
        raise ValueError("The mask is empty.\\nSo is the next.")
    if action == "exit":
        sys.exit(3)
    if action == "kill":
        os.kill(os.getpid(), int(rest[0]))
    if action == "sleep":
        Path(rest[0]).write_text(str(os.getpid()))
        time.sleep(60)

if sys.argv[1] == "silent":
    sys.exit(int(sys.argv[2]))
sys.exit(print_result(compute))
"""


@pytest.fixture
def child(tmp_path: Path) -> Path:
    path = tmp_path / "child.py"
    path.write_text(CHILD)
    return path


def test_a_result_is_returned(child: Path) -> None:
    result = run_script(child, ["echo", "--flag", "with space"])
    assert result["arguments"] == ["--flag", "with space"]
    assert result["nan"] != result["nan"]


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        (["raise"], "The mask is empty.\nSo is the next.", BAD_INPUT),
        (["exit"], "The child process ended with exit status 3: see above.", 3),
        (["silent", "3"], "The child process ended with exit status 3: see above.", 3),
        (["silent", "0"], "The child process ended with exit status 0 but printed no result.", 1),
        (["kill", "15"], "SIGTERM ended the child process.", 143),
        (["kill", "9"], "SIGKILL ended the child process, possibly because the machine ran", 137),
    ],
)
def test_failures_have_a_sentence_and_a_status(
    child: Path, arguments: list[str], message: str, status: int
) -> None:
    with pytest.raises(ChildFailed) as error:
        run_script(child, arguments)
    assert message in str(error.value)
    assert error.value.status == status


def test_errors_of_the_code_are_raised() -> None:
    def fail() -> None:
        raise KeyError("name")

    with pytest.raises(KeyError):
        print_result(fail)


ONE_CHILD = """
from util.child_process import run_script
run_script({child}, ["sleep", {path}])
"""
COMMANDS = """
from scripts.shared import commands
commands._PATIENCE = 0.1
sys.exit(commands.run_commands([[{child}, "sleep", {path}]] * 2))
"""


@pytest.mark.parametrize(
    ("code", "number", "status"),
    [
        (ONE_CHILD, signal.SIGINT, -signal.SIGINT),
        (ONE_CHILD, signal.SIGTERM, 143),
        (COMMANDS, signal.SIGINT, 130),
        (COMMANDS, signal.SIGTERM, 143),
    ],
)
def test_the_child_ends_with_its_parent(
    child: Path, tmp_path: Path, code: str, number: int, status: int
) -> None:
    path = tmp_path / "pid"
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + code.format(
        child=repr(str(child)), path=repr(str(path))
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        parent.send_signal(number)
        assert parent.wait(30) == status
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)
    finally:
        parent.kill()
        parent.wait()
