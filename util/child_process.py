"""Run a script in a child process and return its result.

The child calls `print_result`, which prints one line of JSON, {"result": ...} or {"error": ...}.
Other lines of its standard output are dropped. Its standard error, with progress bars and
tracebacks, goes to the terminal.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from util.signals import INTERRUPTED

# Exit status of a child whose input was wrong.
BAD_INPUT = 2
# Seconds between SIGTERM and SIGKILL when the parent is interrupted.
_GRACE_SECONDS = 10.0


class ChildFailed(Exception):  # noqa: N818, no suffix Error by choice
    """A child process failed; the message is a sentence for the user.

    Attributes:
        status: exit status of the child; 128 + n if signal n ended it, as in a shell.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def run_script(script: Path | str, arguments: Sequence[str]) -> Any:
    """Run a Python script in a child process and return the result that it printed.

    If this process gets SIGINT or SIGTERM, the child is ended before the function raises
    KeyboardInterrupt or SystemExit.

    Args:
        script: path of a script that calls `print_result`.
        arguments: its command line.

    Raises:
        ChildFailed: the child ended with an error, was ended by a signal, or printed no result.
    """
    process = run_to_end([sys.executable, str(script), *arguments], subprocess.PIPE)
    if process.returncode < 0:
        raise ChildFailed(_describe_signal(-process.returncode), 128 - process.returncode)
    answer = _parse_last_line(process.stdout)
    if "error" in answer:
        raise ChildFailed(answer["error"], process.returncode or 1)
    if process.returncode or "result" not in answer:
        message = f"The child process ended with exit status {process.returncode}"
        message += ": see above." if process.returncode else " but printed no result."
        raise ChildFailed(message, process.returncode or 1)
    return answer["result"]


def run_to_end(
    command: Sequence[str], stdout: int | None = None, patience: float = 0
) -> subprocess.CompletedProcess[str]:
    """Run a command. At SIGINT or SIGTERM, it is ended before the exception is raised.

    Args:
        command: program and arguments.
        stdout: as in `subprocess.Popen`.
        patience: seconds that the command gets to end by itself after SIGINT, which a terminal
            sends to it too.

    Raises:
        KeyboardInterrupt, SystemExit: this process got SIGINT or SIGTERM.
    """
    with raise_on_sigterm():
        process = subprocess.Popen(command, stdout=stdout, text=True)
        try:
            output = process.communicate()[0]
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                    process.wait(patience)
            _end(process)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output)


def print_result(compute: Callable[[], Any]) -> int:
    """Call a function in a child process and print its result for `run_script`.

    Returns:
        The exit status. If the function raises ValueError or OSError, the message of the error is
        printed instead, and the status is `BAD_INPUT`.
    """
    try:
        answer, status = {"result": compute()}, 0
    except (ValueError, OSError) as error:
        answer, status = {"error": str(error)}, BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    print(json.dumps(answer))
    return status


def _parse_last_line(output: str) -> dict[str, Any]:
    """Parse the line of `print_result`; returns an empty dictionary if it is missing."""
    try:
        answer = json.loads(output.strip().rpartition("\n")[2])
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Raise SystemExit at SIGTERM, whose default action would leave the child running.

    A handler of the caller stays. Other threads than the main one receive no signals.
    """
    is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _end(process: subprocess.Popen[str]) -> None:
    """Send SIGTERM, and SIGKILL if the process is still running some seconds later."""
    process.terminate()
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _describe_signal(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal
        name = f"signal {number}"
    message = f"{name} ended the child process"
    if number == signal.SIGKILL:
        message += ", possibly because the machine ran out of memory"
    return f"{message}."
