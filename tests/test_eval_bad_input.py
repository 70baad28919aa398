"""The eval scripts on damaged or missing data, weights, devices and output."""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import inference.writer
import inference_core
from tests import eval_fixtures
from tests.eval_fixtures import (
    SIZE,
    Evaluate,
    frames_of,
    masks_of,
    names_in,
    read_files,
    read_labels,
)
from util.masks import DAVIS_PALETTE, write_mask
from util.presets import EVAL_SCRIPTS

davis, evaluate = eval_fixtures.davis, eval_fixtures.evaluate  # fixtures of this file


def test_a_truncated_frame_fails_only_its_video(
    evaluate: Evaluate, davis: Path, tmp_path: Path, truncate: Callable[[Path], None]
) -> None:
    assert evaluate("davis", davis, "--output", tmp_path / "full").code == 0
    frame = frames_of(davis, "val-000") / "00006.jpg"
    content = frame.read_bytes()
    truncate(frame)
    for _ in range(2):  # the video does not count as complete
        result = evaluate("davis", davis)
        assert result.code == 1
        assert re.search(r"FAILED val-000: .*val-000/00006\.jpg cannot be read", result.out)
        assert names_in(tmp_path / "out") == {"run.json", "val-001"}
    frame.write_bytes(content)
    assert evaluate("davis", davis).code == 0
    assert read_files(tmp_path / "out") == read_files(tmp_path / "full")


def test_a_link_to_a_missing_frame_fails_only_its_video(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    frame = frames_of(davis, "val-000") / "00006.jpg"
    frame.unlink()
    frame.symlink_to(tmp_path / "nowhere.jpg")
    result = evaluate("davis", davis)
    assert result.code == 1
    assert re.search(r"FAILED val-000: .*val-000/00006\.jpg", result.out)
    assert names_in(tmp_path / "out") == {"run.json", "val-001"}


def test_a_frame_of_another_size_fails_its_video(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (70, 48)).save(frames_of(davis, "val-001") / "00010.jpg")
    result = evaluate("davis", davis, "--overlay")
    assert result.code == 1
    assert re.search(r"FAILED val-001: frame .*00010\.jpg is 70x48", result.out)
    assert names_in(tmp_path / "out") == {"run.json", "val-000", "val-000.mp4"}


def test_running_out_of_memory_fails_only_the_video(
    evaluate: Evaluate, davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = inference_core.InferenceCore.step
    calls = 0

    def fail_once(*args: Any, **options: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise torch.OutOfMemoryError("CUDA out of memory.\nOf the allocated memory ...")
        return step(*args, **options)

    monkeypatch.setattr(inference_core.InferenceCore, "step", fail_once)
    result = evaluate("davis", davis)
    assert result.code == 1
    assert "FAILED val-000: CUDA out of memory. (try --amp, --encode_batch 1," in result.out
    assert names_in(tmp_path / "out") == {"run.json", "val-001"}


def test_a_full_disk_fails_the_video(
    evaluate: Evaluate, davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *args: Any) -> None:
        if path.parent.name.startswith(".val-000") and path.stem == "00009":
            raise OSError(28, "No space left on device")
        write_mask(path, *args)

    monkeypatch.setattr(inference.writer, "write_mask", fail)
    result = evaluate("davis", davis, "--overlay")
    assert result.code == 1
    assert re.search(r"FAILED val-000: .*No space left on device", result.out)
    assert names_in(tmp_path / "out") == {"run.json", "val-001", "val-001.mp4"}


def remove_frame(davis: Path) -> None:
    (frames_of(davis, "val-001") / "00004.jpg").unlink()


def blur_mask(davis: Path) -> None:
    path = masks_of(davis, "val-001") / "00000.png"
    mask = cv2.GaussianBlur((read_labels(path) > 0).astype(np.uint8) * 255, (0, 0), 1.5)
    Image.fromarray(mask).save(path)


def resize_mask(davis: Path) -> None:
    path = masks_of(davis, "val-001") / "00000.png"
    write_mask(path, read_labels(path)[:-1], DAVIS_PALETTE)


def empty_mask(davis: Path) -> None:
    write_mask(masks_of(davis, "val-001") / "00000.png", np.zeros(SIZE, np.uint8), DAVIS_PALETTE)


def remove_mask(davis: Path) -> None:
    (masks_of(davis, "val-001") / "00000.png").unlink()


def remove_video(davis: Path) -> None:
    shutil.rmtree(frames_of(davis, "val-001"))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (remove_frame, r"frame 00004\.jpg is missing in .*val-001 between 00003\.jpg and 00005"),
        (blur_mask, r"mask .*val-001/00000\.png has .* it looks anti-aliased"),
        (resize_mask, r"mask .*val-001/00000\.png is 68x47 .*, but its frame is 68x48"),
        (empty_mask, r"mask .*val-001/00000\.png has no object"),
        (remove_mask, r"sequence val-001 has no mask of its first frame: .*00000\.png"),
        (remove_video, r"the frames folder .*val-001 does not exist"),
    ],
)
def test_invalid_videos_are_refused_before_segmentation(
    evaluate: Evaluate,
    davis: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    sentence: str,
) -> None:
    damage(davis)
    result = evaluate("davis", davis)
    assert result.code == 2
    assert re.search(rf"^error: {sentence}", result.err)
    assert result.out == ""
    assert not (tmp_path / "out").exists()


class Payload:
    """Makes a file when it is unpickled, which loading weights must not do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_files_that_are_not_checkpoints(
    evaluate: Evaluate,
    davis: Path,
    tmp_path: Path,
    tiny_weights: Path,
    truncate: Callable[[Path], None],
) -> None:
    path = tmp_path / "weights.pth"
    trace = tmp_path / "trace"

    def pickled() -> None:
        path.write_bytes(pickle.dumps({"a": Payload(trace)}))

    def pickled_by_torch() -> None:
        torch.save({"a": Payload(trace)}, path)

    def truncated() -> None:
        shutil.copy(tiny_weights, path)
        truncate(path)

    def other_network() -> None:
        torch.save({"weight": torch.zeros(3)}, path)

    for make, sentence in [
        (lambda: None, "There is no file"),
        (lambda: path.write_text("no weights"), "is not a checkpoint that torch can read"),
        (lambda: path.write_bytes(b""), "is not a checkpoint that torch can read (0 bytes)"),
        (truncated, "is not a checkpoint that torch can read"),
        (lambda: shutil.copy(frames_of(davis, "val-000") / "00000.jpg", path), "is not a check"),
        (pickled, "contains pickled Python objects, which could run code"),
        (pickled_by_torch, "contains pickled Python objects, which could run code"),
        (lambda: torch.save([1], path), "contains a list, not a dictionary of weights"),
        (other_network, "is not a checkpoint of a known method"),
    ]:
        make()
        result = evaluate("davis", davis, "--model", path)
        assert result.code == 2
        assert result.err.startswith("error: ")
        assert str(path) in result.err
        assert sentence in result.err
        assert result.out == ""
        assert not (tmp_path / "out").exists()
    assert not trace.exists()


def test_missing_data(evaluate: Evaluate, davis: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for script in EVAL_SCRIPTS:
        result = evaluate(script, missing)
        assert result.code == 2
        assert str(missing) in result.err
    result = evaluate("davis", davis, "--split", "vall")
    assert result.code == 2
    assert "has no split vall" in result.err
    assert not (tmp_path / "out").exists()


def test_unavailable_devices(evaluate: Evaluate, davis: Path) -> None:
    result = evaluate("davis", davis, "--device", "quux")
    assert result.code == 2
    assert "'quux' is not a device: use auto, cpu" in result.err
    result = evaluate("davis", davis, "--device", "cuda:99")
    assert result.code == 2
    assert re.search("finds no cuda device|There is no GPU 99", result.err)


def test_an_invalid_video_of_your_own_does_not_stop_the_others(
    evaluate: Evaluate, synthetic: Path, tmp_path: Path
) -> None:
    root = tmp_path / "generic"
    shutil.copytree(synthetic / "generic", root)
    assert evaluate("generic", root, "--output", tmp_path / "full").code == 0
    broken, *others = sorted(path.name for path in (root / "JPEGImages").iterdir())
    assert others
    mask = next((root / "Annotations" / broken).iterdir())
    content = mask.read_bytes()
    write_mask(mask, np.zeros(SIZE, np.uint8), DAVIS_PALETTE)
    result = evaluate("generic", root)
    assert result.code == 1
    assert re.search(rf"^warning: video {broken} is left out: mask .* has no object", result.err)
    assert re.search(rf"FAILED {broken}: mask .*{broken}/\d+\.png has no object", result.out)
    assert not (tmp_path / "out" / broken).exists()
    for name in others:
        assert read_files(tmp_path / "out" / name) == read_files(tmp_path / "full" / name)
    mask.write_bytes(content)
    assert evaluate("generic", root).code == 0
    assert read_files(tmp_path / "out") == read_files(tmp_path / "full")
