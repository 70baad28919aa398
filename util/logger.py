"""What a training run tells: console and file log, progress bar, TensorBoard."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import numpy as np
import progressbar
import torch

from util.files import atomic_path
from util.masks import DAVIS_PALETTE
from util.overlay import blend


def make_logger(folder: Path | None) -> logging.Logger:
    """A logger to the screen and to `<folder>/log.txt`; silent without a folder (other ranks)."""
    logger = logging.getLogger("train")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in logger.handlers[:]:
        handler.close()
        logger.removeHandler(handler)
    if folder is None:
        logger.addHandler(logging.NullHandler())
        return logger
    folder.mkdir(parents=True, exist_ok=True)
    for handler in (logging.StreamHandler(sys.stderr), logging.FileHandler(folder / "log.txt")):
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    return logger


class Meter:
    """Means over the iterations since the last report."""

    def __init__(self) -> None:
        self.num_iterations = 0
        self.sums: dict[str, torch.Tensor] = {}
        self.seconds_data = self.seconds_compute = 0.0

    def add(self, scalars: Mapping[str, torch.Tensor], data: float, compute: float) -> None:
        """Of one iteration: scalars, seconds waiting for data, and seconds for the rest."""
        self.num_iterations += 1
        self.sums = {name: value + self.sums.get(name, 0) for name, value in scalars.items()}
        self.seconds_data += data
        self.seconds_compute += compute

    def means(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Means, from the sums (averaged over the processes, where there are several)."""
        num = self.num_iterations
        return {
            **{name: total / num for name, total in sums.items()},
            "time_data": self.seconds_data / num,
            "time_compute": self.seconds_compute / num,
        }


class TrainLog:
    """The main process's log of a run.

    Args:
        folder: of the run: TensorBoard's files, log.txt and log.jsonl go there.
        iterations: where the run ends; `start` where it begins.
    """

    def __init__(self, folder: Path, start: int, iterations: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and used here alone

        self.logger = make_logger(folder)
        self.lines = _open_lines(folder / "log.jsonl", start)
        self.writer = SummaryWriter(str(folder), purge_step=start + 1)
        self.bar = progressbar.ProgressBar(
            min_value=start,
            max_value=iterations,
            widgets=[
                progressbar.Counter(), f"/{iterations} ", progressbar.Bar(), " ",
                progressbar.AdaptiveETA(),
            ],
        )  # fmt: skip

    def scalars(self, iteration: int, values: dict[str, float]) -> None:
        """One line in the log, one point in every curve."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")  # clears the bar's line; its next update draws it below
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.logger.info("it %d  %s", iteration, text)
        for name, value in values.items():
            self.writer.add_scalar(f"train/{name}", value, iteration)
        self.lines.write(json.dumps({"iteration": iteration, **values}) + "\n")
        self.lines.flush()

    def images(
        self, iteration: int, images: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor
    ) -> None:
        """A sheet of one clip: frames with true masks above, with predicted masks below.

        Args:
            images: (T, 3, H, W) uint8; labels: (T, H, W); logits: (T-1, O+1, H, W).
        """
        predicted = torch.cat([labels[:1].cpu(), logits.argmax(1).cpu().to(labels.dtype)])
        rows = [
            np.concatenate(
                [
                    blend(frame.permute(1, 2, 0).numpy(), mask.numpy(), DAVIS_PALETTE)
                    for frame, mask in zip(images.cpu(), masks, strict=True)
                ],
                1,
            )
            for masks in (labels.cpu(), predicted)
        ]
        self.writer.add_image("clip", np.concatenate(rows), iteration, dataformats="HWC")

    def update(self, iteration: int) -> None:
        """Move the progress bar."""
        self.bar.update(iteration)

    def close(self) -> None:
        """Finish the bar and the files."""
        self.bar.finish(dirty=True)
        self.writer.close()
        self.lines.close()
        make_logger(None)


def _open_lines(path: Path, start: int) -> TextIO:
    """A JSON-lines log to add to, without what a killed run wrote after its last checkpoint."""
    if path.exists():
        kept = [line for line in path.read_text().splitlines() if _is_before(line, start)]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept))
    return path.open("a")


def _is_before(line: str, start: int) -> bool:
    try:
        return json.loads(line)["iteration"] <= start
    except (ValueError, KeyError):  # cut when the run was killed
        return False
