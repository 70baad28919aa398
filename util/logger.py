"""What a training run tells: console and file log, progress bar, TensorBoard."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import progressbar
import torch

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


class TrainLog:
    """The main process's log of a run.

    Args:
        folder: of the run: TensorBoard's files and log.txt go there.
        iterations: where the run ends; `start` where it begins.
    """

    def __init__(self, folder: Path, start: int, iterations: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and used here alone

        self.logger = make_logger(folder)
        self.writer = SummaryWriter(str(folder), purge_step=start)
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
        make_logger(None)
