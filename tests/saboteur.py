"""train.py with accidents: `python tests/saboteur.py PLAN ...`, then the options of train.py.

PLAN is a JSON list with an accident for each start of the run, [kind, iteration, rank], or null.
Kinds are "kill" (SIGKILL), "term" (SIGTERM) and "tear" (SIGKILL while the checkpoint of that
iteration is written). The environment variable TORCHELASTIC_RESTART_COUNT, or START, has the number
of the start.

Every forward pass applies dropout, so that a resumed run equals an uninterrupted one only if random
states are restored.
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
    """Arrange the accident of this start and train."""
    plan = json.loads(sys.argv[1])
    start = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", os.environ.get("START", "0")))
    accident = plan[start] if start < len(plan) else None
    if accident and accident[2] == int(os.environ.get("RANK", "0")):
        arrange(*accident[:2])
    forward = ClipUnroll.forward

    def forward_with_dropout(
        self: ClipUnroll, images: torch.Tensor, *rest: Any
    ) -> dict[str, torch.Tensor]:
        return forward(self, F.dropout(images, 0.05), *rest)

    patch(ClipUnroll, "forward", forward_with_dropout)
    return train.main(sys.argv[2:])


def patch(owner: Any, name: str, value: Any) -> None:
    """Replace something for the rest of this process."""
    setattr(owner, name, value)


def arrange(kind: str, iteration: int) -> None:
    """End the process after an iteration, or while its checkpoint is written."""
    step, save = Trainer.step, torch.save

    def failing_step(self: Trainer, *args: Any, **options: Any) -> Any:
        result = step(self, *args, **options)
        if self.iteration == iteration:
            os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGTERM)
        return result

    def failing_save(content: Any, path: Path, **options: Any) -> None:
        save(content, path, **options)
        if isinstance(content, dict) and content.get("iteration") == iteration:  # a checkpoint
            with open(path, "r+b") as file:
                file.truncate(path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    if kind == "tear":
        patch(torch, "save", failing_save)
    else:
        patch(Trainer, "step", failing_step)


if __name__ == "__main__":
    sys.exit(main())
