"""Fixtures of several test files: small synthetic data and a tiny network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import progressbar.bar  # noqa: F401, it stores stderr on import, which must not be a test's own
import pytest
import torch
from PIL import Image

from model.checkpoint import save_network
from model.methods import build_network
from model.network import NetworkSpec
from scripts import make_synthetic
from util import devices

if "PYTEST_XDIST_WORKER" in os.environ:
    # With several threads per worker, workers and their child processes run many times slower.
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")

NUM_FRAMES = 11  # minimum of the YouTube layout
HEIGHT, WIDTH = 48, 68  # not square; the width is no multiple of 16, so it is padded


@pytest.fixture(scope="session", autouse=True)
def _release_freed_memory() -> Iterator[None]:
    """Return freed memory to the system: eval scripts that tests call would keep it for good."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "_keep_freed_memory", lambda: None)
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    """--device: where test_reference_training.py trains."""
    parser.addoption("--device", default="cpu", help="device of test_reference_training.py")


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos (images) per split in every layout; tests copy what they modify."""
    root = tmp_path_factory.mktemp("synthetic")
    argv = [
        str(root), "--num_videos", "2", "--num_frames", str(NUM_FRAMES), "--num_objects", "2",
        "--height", str(HEIGHT), "--width", str(WIDTH), "--seed", "3",
    ]  # fmt: skip
    assert make_synthetic.main(argv) == 0
    return root


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint with random weights of a tiny network for several objects."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(NetworkSpec("stcn", "tiny"))
    save_network(path, network, {"settings": {}})
    return path


@pytest.fixture(scope="session")
def smooth_image() -> Callable[[int, int], np.ndarray]:
    """Make smooth images (H, W, 3) uint8, so that resampling changes them little."""

    def make(height: int, width: int) -> np.ndarray:
        y, x = np.mgrid[0:height, 0:width].astype(np.float64)
        waves = [np.sin(x / 9 + y / 17), np.cos(x / 13 - y / 8), np.sin(x / 21) * np.cos(y / 15)]
        return np.round(127.5 + 90 * np.stack(waves, -1)).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def truncate() -> Callable[[Path], None]:
    """Truncate a file to half of its bytes."""

    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])

    return cut


@pytest.fixture(scope="session")
def write_pair() -> Callable[[Path, np.ndarray, Image.Image], tuple[Path, Path]]:
    """Write an image to `stem`.jpg and its mask to `stem`.png; returns their paths."""

    def write(stem: Path, image: np.ndarray, mask: Image.Image) -> tuple[Path, Path]:
        stem.parent.mkdir(parents=True, exist_ok=True)
        paths = stem.with_name(stem.name + ".jpg"), stem.with_name(stem.name + ".png")
        Image.fromarray(image).save(paths[0], quality=95)
        mask.save(paths[1])
        return paths

    return write
