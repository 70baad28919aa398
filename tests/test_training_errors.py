"""Failures of train.py: bad losses, missing and damaged data, unwritable folders."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training_runs import (
    Train,
    assert_equal,
    load,
    load_weights,
    make_train,
    read_curves,
)


@pytest.fixture
def start(synthetic: Path, tmp_path: Path) -> Train:
    return make_train(synthetic, tmp_path / "saves")


def test_loss_that_is_not_finite_stops_the_run(
    start: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files of earlier iterations stay."""
    assert start("wild", "-i", 9, "--lr", 1e30, "--save_interval", 1) == 2
    errors = capsys.readouterr().err
    assert re.search(
        r"train.py: error: The loss is (nan|inf) at iteration 1. .*bad_batch_1_rank0.pth holds the "
        r"batch and the weights. Resume from .* with --no_amp, or start again with a lower --lr",
        errors,
    )
    assert "Traceback" not in errors
    folder = tmp_path / "saves" / "wild"
    assert {path.name for path in folder.glob("*.pth")} == {
        "wild_1.pth", "wild_1_checkpoint.pth", "wild_checkpoint.pth", "bad_batch_1_rank0.pth",
    }  # fmt: skip
    bad = load(folder / "bad_batch_1_rank0.pth")
    assert bad["images"].shape == (2, 3, 3, 32, 32)
    assert bad["labels"].shape == (2, 3, 32, 32)
    assert not math.isfinite(bad["scalars"]["total_loss"])
    assert_equal(bad["weights"], load_weights(folder, 1))
    assert load(folder / "wild_checkpoint.pth")["iteration"] == 1
    assert [step for step, _ in read_curves(folder)["total_loss"]] == [1]


def test_missing_data(
    start: Train, synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(synthetic / "static", tmp_path / "damaged")
    (tmp_path / "damaged" / "ECSSD" / "image0001.png").unlink()
    for name, sentence in [
        ("nowhere", "does not exist: put the static images there"),
        ("empty", "contains no images with masks"),
        ("damaged", "ECSSD have no mask of the same name"),
    ]:
        assert start("x", "-i", 1, "--static_root", tmp_path / name) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("train.py: error: ")
        assert sentence in errors
        assert str(tmp_path / name) in errors
    assert not (tmp_path / "saves").exists()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_truncated_images_are_named_in_one_sentence(
    start: Train,
    synthetic: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    truncate: Callable[[Path], None],
    num_workers: int,
) -> None:
    """Without the traceback of a worker: one image that ends the run, then all images."""
    root = tmp_path / "static"
    shutil.copytree(synthetic / "static" / "ECSSD", root / "ECSSD")
    truncate(root / "ECSSD" / "image0001.jpg")
    options = ("-i", 3, "--static_root", root, "--num_workers", num_workers)
    assert start("x", *options, "--max_bad_share", 0) == 2
    errors = capsys.readouterr().err
    assert re.search(r"^train.py: error: .*image0001\.jpg cannot be read", errors, re.MULTILINE)
    assert "Traceback" not in errors
    truncate(root / "ECSSD" / "image0000.jpg")
    assert start("y", *options) == 2
    errors = capsys.readouterr().err
    assert re.search(
        r"^train.py: error: None of 3 samples .*image000\d\.jpg cannot be read",
        errors,
        re.MULTILINE,
    )
    assert "Traceback" not in errors


def test_unwritable_folder(
    start: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "saves").write_text("a file instead of a folder")
    assert start("x", "-i", 1) == 2
    assert str(tmp_path / "saves") in capsys.readouterr().err
