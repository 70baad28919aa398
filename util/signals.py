"""A polite end: SIGTERM is remembered, and obeyed when the work at hand is done."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

# What shells and schedulers know as "ended by SIGTERM".
STOPPED = 128 + signal.SIGTERM


class StopRequest:
    """While it is entered, SIGTERM only sets `is_asked`. Not in threads, which get no signals."""

    def __init__(self) -> None:
        self.is_asked = False
        self._before: Any = None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = True


def leave_signals_to_main() -> None:
    """For worker processes: a scheduler signals all processes of a job, but the main one decides.

    Workers end with it, as PyTorch's do when their parent is gone.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
