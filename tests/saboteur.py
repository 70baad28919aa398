"""train.py, with accidents: `python tests/saboteur.py PLAN ...flags of train.py`.

PLAN is a JSON list with one accident for each start of the run: [kind, iteration, rank], of the
kinds "kill" (as kill -9 would), "term" (SIGTERM), "tear" (killed half-way through the checkpoint of
that iteration), or null. Which start it is: TORCHELASTIC_RESTART_COUNT, or START.

It also draws random numbers in every forward pass, as dropout would, so that a run goes on as if
nothing had happened only where random states are restored.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F

import train
from model.trainer import Trainer
from model.unroll import ClipUnroll


def main() -> int:
    """Arrange the accident of this start, and train."""
    plan = json.loads(sys.argv[1])
    start = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", os.environ.get("START", "0")))
    accident = plan[start] if start < len(plan) else None
    if accident and accident[2] == int(os.environ.get("RANK", "0")):
        arrange(*accident[:2])
    forward = ClipUnroll.forward

    def with_dropout(self: ClipUnroll, images: torch.Tensor, *rest: Any) -> dict[str, torch.Tensor]:
        return forward(self, F.dropout(images, 0.05), *rest)

    patch(ClipUnroll, "forward", with_dropout)
    return train.main(sys.argv[2:])


def patch(owner: Any, name: str, value: Any) -> None:
    """Replace something for the rest of this process."""
    setattr(owner, name, value)


def arrange(kind: str, iteration: int) -> None:
    """Let an iteration (or the saving of its checkpoint) end badly."""
    step, save = Trainer.step, torch.save

    def bad_step(self: Trainer, *args: Any, **options: Any) -> Any:
        result = step(self, *args, **options)
        if self.iteration == iteration:
            os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGTERM)
        return result

    def bad_save(content: Any, path: Path, **options: Any) -> None:
        save(content, path, **options)
        if isinstance(content, dict) and content.get("iteration") == iteration:  # a checkpoint
            with open(path, "r+b") as file:
                file.truncate(path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    if kind == "tear":
        patch(torch, "save", bad_save)
    else:
        patch(Trainer, "step", bad_step)


if __name__ == "__main__":
    sys.exit(main())
