"""A polite end: SIGTERM and Ctrl-C are remembered, and obeyed when the work at hand is done."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

# What shells and schedulers know as "ended by SIGTERM" and "by Ctrl-C".
STOPPED = 128 + signal.SIGTERM
INTERRUPTED = 128 + signal.SIGINT


class StopRequest:
    """While it is entered, the first SIGTERM or SIGINT only sets `asked`; the second one raises
    KeyboardInterrupt. In threads, which get no signals, it does nothing."""

    def __init__(self) -> None:
        self.asked = 0  # number of the signal
        self._before: dict[int, Any] = {}

    @property
    def status(self) -> int:
        """The exit status that says what ended the run; of a process that was not asked itself,
        the one of SIGTERM."""
        return INTERRUPTED if self.asked == signal.SIGINT else STOPPED

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = number


def leave_signals_to_main() -> None:
    """For worker processes: a scheduler signals all processes of a job, but the main one decides.

    Workers end with it, as PyTorch's do when their parent is gone.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
