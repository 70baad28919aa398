"""Clocks shared by the benchmarks: the unit of a machine, functions of a network, file access."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from datasets.synthetic import make_clip
from util.images import read_image
from util.masks import DAVIS_PALETTE, write_mask

REPEATS = 5


def synchronise(device: torch.device) -> None:
    """Wait until a device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def time_call(run: Callable[[], object], device: torch.device | None = None) -> float:
    """Seconds of one call, including the work that it leaves to the device."""
    start = time.perf_counter()
    run()
    if device is not None:
        synchronise(device)
    return time.perf_counter() - start


@torch.inference_mode()
def measure_unit(device: torch.device) -> float:
    """Seconds of the unit, which makes figures of different machines comparable: the best of 5.

    The unit is one float32 convolution of (1, 256, 120, 216) with 256 3x3 filters and padding 1, by
    torch's own implementation.
    """
    image = torch.randn(1, 256, 120, 216, device=device)
    filters = torch.randn(256, 256, 3, 3, device=device) / 48
    return min(
        time_call(lambda: F.conv2d(image, filters, padding=1), device) for _ in range(REPEATS)
    )


class Stopwatch:
    """Sums of the time of functions by stage. Each call waits for the device.

    Args:
        stages: names of the stages.
    """

    def __init__(self, device: torch.device, stages: Iterable[str]) -> None:
        self._device = device
        self.seconds: dict[str, float] = dict.fromkeys(stages, 0.0)

    def reset(self) -> None:
        """Set all sums to 0."""
        self.seconds = dict.fromkeys(self.seconds, 0.0)

    def watch(self, owner: object, function: str, stage: str) -> None:
        """Replace a method of an object by one that adds its time to a stage."""
        inner: Callable[..., Any] = getattr(owner, function)

        def timed(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = inner(*args, **options)
            synchronise(self._device)
            self.seconds[stage] += time.perf_counter() - start
            return result

        object.__setattr__(owner, function, timed)


def measure_io(height: int, width: int) -> dict[str, float]:
    """Milliseconds to decode a JPEG ("decode") and to write a mask ("encode"): the best of 5."""
    image, labels = next(iter(make_clip(1, height, width, 3, seed=0)))
    with tempfile.TemporaryDirectory() as name:
        frame, mask = Path(name, "frame.jpg"), Path(name, "mask.png")
        Image.fromarray(image).save(frame, quality=95)
        runs: dict[str, Callable[[], object]] = {
            "decode": lambda: read_image(frame),
            "encode": lambda: write_mask(mask, labels, DAVIS_PALETTE),
        }
        return {
            name: min(1e3 * time_call(run) for _ in range(REPEATS)) for name, run in runs.items()
        }
