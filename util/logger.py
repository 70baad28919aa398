"""Logs of a training run: console, files, progress bar and TensorBoard."""

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
    """Make a logger that writes to stderr and to <folder>/log.txt.

    Args:
        folder: None disables the log, as in all processes but the main one.
    """
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
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)
    return logger


class Meter:
    """Sums over the iterations since the last log line."""

    def __init__(self) -> None:
        self.num_iterations = 0
        self.sums: dict[str, torch.Tensor] = {}
        self.seconds_data = self.seconds_compute = 0.0

    def add(self, scalars: Mapping[str, torch.Tensor], data: float, compute: float) -> None:
        """Add one iteration.

        Args:
            scalars: losses and statistics, each of shape ().
            data: seconds spent waiting for data.
            compute: other seconds.
        """
        self.num_iterations += 1
        self.sums = {name: value + self.sums.get(name, 0) for name, value in scalars.items()}
        self.seconds_data += data
        self.seconds_compute += compute

    def means(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Means over the iterations.

        Args:
            sums: `self.sums`, averaged over the processes.
        """
        num = self.num_iterations
        return {
            **{name: total / num for name, total in sums.items()},
            "time_data": self.seconds_data / num,
            "time_compute": self.seconds_compute / num,
        }


class TrainLog:
    """Log of a run, written by the main process.

    Args:
        folder: folder of the run, for TensorBoard's files, log.txt and log.jsonl.
        start: first iteration.
        iterations: last iteration.
    """

    def __init__(self, folder: Path, start: int, iterations: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

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
        """Write one line to the log and one point to each curve."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")  # clears the bar, which its next update draws again
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.logger.info("iteration %d  %s", iteration, text)
        for name, value in values.items():
            self.writer.add_scalar(f"train/{name}", value, iteration)
        self.lines.write(json.dumps({"iteration": iteration, **values}) + "\n")
        self.lines.flush()

    def images(
        self, iteration: int, images: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor
    ) -> None:
        """Write an image of one clip: ground truth in the first row, predictions in the second.

        Args:
            images: (T, 3, H, W) uint8.
            labels: (T, H, W) ground truth.
            logits: (T-1, O+1, H, W), of all frames but the first.
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
        """Close the bar and the files."""
        self.bar.finish(dirty=True)
        self.writer.close()
        self.lines.close()
        make_logger(None)


def _open_lines(path: Path, start: int) -> TextIO:
    """Open a JSON-lines log for appending; delete lines after the checkpoint at `start`."""
    if path.exists():
        kept = [line for line in path.read_text().splitlines() if _is_before(line, start)]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept))
    return path.open("a")


def _is_before(line: str, start: int) -> bool:
    try:
        return json.loads(line)["iteration"] <= start
    except (ValueError, KeyError):  # a truncated line of a killed run
        return False
