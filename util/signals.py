"""Ends of runs: SIGTERM and Ctrl-C end training after its current iteration."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

# Exit statuses of shells and schedulers after SIGTERM and after Ctrl-C.
STOPPED = 128 + signal.SIGTERM
INTERRUPTED = 128 + signal.SIGINT


class StopRequest:
    """Context that records the first SIGTERM or SIGINT in `received`.

    A second signal raises KeyboardInterrupt, and a third one ends the process at once. But a second
    SIGTERM has no effect: a scheduler signals all processes, and torchrun passes on its own SIGTERM
    to the same processes. In a thread other than the main one, which receives no signals, the
    context does nothing.
    """

    def __init__(self) -> None:
        self.received = 0  # number of the signal
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    @property
    def status(self) -> int:
        """Exit status of the run; that of SIGTERM if another process received the signal."""
        return INTERRUPTED if self.received == signal.SIGINT else STOPPED

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received == number == signal.SIGTERM:
            return
        if self.received:
            for handled in self._before:
                signal.signal(handled, signal.SIG_DFL)
            raise KeyboardInterrupt
        self.received = number


def end_process(main: Callable[[], int]) -> NoReturn:
    """Run a command and end the process with its exit status, without Python's own clean-up.

    The clean-up of torch takes more than a second of a core, and waits for threads and processes
    that may not end. The command must have closed its files.
    """
    try:
        status = main()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def leave_signals_to_main() -> None:
    """Ignore SIGTERM and SIGINT in a worker process.

    A scheduler signals all processes of a job, but only the main process decides when to end.
    Workers end with it (datasets/loader.py).
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
