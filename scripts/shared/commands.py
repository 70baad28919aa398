"""Experiments that are a list of commands: each is printed, then run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from util.child_process import run_to_end
from util.signals import INTERRUPTED

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 30.0  # seconds for a training to save its state after Ctrl-C


def run_commands(commands: Iterable[list[str]]) -> int:
    """Run Python with each list of arguments.

    Returns:
        Exit status of the first command that fails, or 0.
    """
    try:
        for command in commands:
            print(f"\n$ {shlex.join(command)}", flush=True)
            status = run_to_end([sys.executable, *command], patience=_PATIENCE).returncode
            if status:
                print("The experiment ends with this error: run it again to resume.")
                return status
    except KeyboardInterrupt:
        print("\nInterrupted: run the same command again to resume.", file=sys.stderr)
        return INTERRUPTED
    return 0


def train_command(processes: int, *options: str) -> list[str]:
    """Return the arguments of Python that run train.py in several processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [*launcher, str(ROOT / "train.py"), *options]
