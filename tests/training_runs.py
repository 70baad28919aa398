"""Tiny runs of train.py, and their files, for several test files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from util.hyper_para import TrainSettings
from util.parse_settings import parse_train

TINY = (
    "--size tiny --crop_size 32 -b 2 --num_workers 0 --device cpu --no_amp --report_interval 1 "
    "--lr 1e-3"
).split()

# (name of the run, further options) -> exit status
Train = Callable[..., int]


def make_train(synthetic: Path, saves: Path) -> Train:
    """Return a function that runs train.py on static images with TINY and further options."""

    def run(name: str, *options: object, mixed_precision: bool = False) -> int:
        argv = ["--id", name, "--static_root", str(synthetic / "static")]
        argv += ["--save_dir", str(saves), *TINY]
        if mixed_precision:
            argv.remove("--no_amp")
        if "--load_network" not in options:
            argv += ["--backbone_weights", "none"]
        return train.main([*argv, *map(str, options)])

    return run


def train_done(synthetic: Path, saves: Path) -> Path:
    """Train two iterations; return the folder of the run, which is named `done`."""
    assert make_train(synthetic, saves)("done", "-i", 2) == 0
    return saves / "done"


def parse_one(argv: list[str]) -> TrainSettings:
    """Parse the options of one stage."""
    (settings,) = parse_train(argv)
    return settings


def load(path: Path) -> dict[str, Any]:
    """Read a file of weights or a checkpoint."""
    return torch.load(path, weights_only=True)


def load_weights(folder: Path, iteration: int) -> dict[str, torch.Tensor]:
    """Read the weights of a run at an iteration."""
    return load(folder / f"{folder.name}_{iteration}.pth")["weights"]


def read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the curves of a run from TensorBoard's file: name -> (iteration, value)."""
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag.removeprefix("train/"): [(point.step, point.value) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def assert_equal(a: object, b: object) -> None:
    """Compare bit for bit, through dictionaries and lists."""
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list):
        assert isinstance(b, list)
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_equal(left, right)
    else:
        assert a == b
