"""The eval scripts, from the command line to the masks."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from model.checkpoint import save_network
from model.methods import build_network
from model.network import NetworkSpec
from tests import eval_fixtures
from tests.eval_fixtures import (
    NAMES,
    NUM_FRAMES,
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

FPS = re.compile(r"FPS [\d.]+ without I/O \([\d.]+ s\), [\d.]+ with I/O \([\d.]+ s\)")


def make_generic(root: Path, source: Path, video: str, masks: dict[int, np.ndarray]) -> None:
    shutil.copytree(source, root / "JPEGImages" / video)
    for index, mask in masks.items():
        write_mask(root / "Annotations" / video / f"{index:05d}.png", mask, DAVIS_PALETTE)


def square(top: int, left: int, value: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + 14, left : left + 14] = value
    return mask


@pytest.mark.parametrize("split", ["val", "test-dev"])
def test_davis_2017(evaluate: Evaluate, synthetic: Path, tmp_path: Path, split: str) -> None:
    root = synthetic / "DAVIS" / "2017"
    result = evaluate("davis", root, "--split", split)
    assert result.code == 0
    assert names_in(tmp_path / "out") == {"run.json", f"{split}-000", f"{split}-001"}
    part = "trainval" if split == "val" else split
    for video in (f"{split}-000", f"{split}-001"):
        paths = sorted((tmp_path / "out" / video).iterdir())
        assert [path.name for path in paths] == [f"{name}.png" for name in NAMES]
        annotation = root / part / "Annotations" / "480p" / video / "00000.png"
        np.testing.assert_array_equal(read_labels(paths[0]), read_labels(annotation))
        for path in paths:
            with Image.open(path) as mask:
                assert mask.mode == "P"
                assert mask.size == SIZE[::-1]
                assert bytes(mask.getpalette() or []) == DAVIS_PALETTE
            assert set(np.unique(read_labels(path))) <= {0, 1, 2}
    assert "2 videos, 22 frames" in result.out
    assert FPS.search(result.out)
    # Of frames 0, 5 and 10, the last one is not stored.
    assert "Largest number of frames in memory: 2" in result.out


def test_davis_2016(evaluate: Evaluate, synthetic: Path, tmp_path: Path) -> None:
    result = evaluate("davis_2016", synthetic / "DAVIS")
    assert result.code == 0
    for video in ("single-val-000", "single-val-001"):
        paths = sorted((tmp_path / "out" / video).iterdir())
        assert [path.name for path in paths] == [f"{name}.png" for name in NAMES]
        annotation = synthetic / "DAVIS" / "2016" / "Annotations" / "480p" / video / "00000.png"
        np.testing.assert_array_equal(read_labels(paths[0]), read_labels(annotation))
        for path in paths:
            with Image.open(path) as mask:
                assert mask.mode == "L"
            assert read_labels(path).shape == SIZE
            assert set(np.unique(read_labels(path))) <= {0, 255}
    assert FPS.search(result.out)


def test_youtube(evaluate: Evaluate, synthetic: Path, tmp_path: Path) -> None:
    """Only the frames that meta.json lists are written, and objects start at their first mask."""
    root = synthetic / "YouTube"
    result = evaluate("youtube", root)
    assert result.code == 0
    required = tmp_path / "out"
    for video in ("valid00000", "valid00001"):
        names = [path.stem for path in sorted((required / video).iterdir())]
        assert names == ["00000", "00005", "00010"]
    assert FPS.search(result.out)

    every = tmp_path / "all"
    assert evaluate("youtube", root, "--output_all", "--output", every).code == 0
    for video in ("valid00000", "valid00001"):
        assert [path.stem for path in sorted((every / video).iterdir())] == NAMES
        for path in (required / video).iterdir():
            np.testing.assert_array_equal(read_labels(path), read_labels(every / video / path.name))

    meta = json.loads((root / "valid" / "meta.json").read_text())["videos"]
    num_before_start = 0
    for video, entry in meta.items():
        for label, item in entry["objects"].items():
            first = item["frames"][0]
            annotation = read_labels(root / "valid" / "Annotations" / video / f"{first}.png")
            mask = read_labels(every / video / f"{first}.png")
            assert (mask[annotation == int(label)] == int(label)).all()
            for name in NAMES[: int(first)]:
                assert int(label) not in read_labels(every / video / f"{name}.png")
                num_before_start += 1
        for name in NAMES:
            present = set(np.unique(read_labels(every / video / f"{name}.png")))
            assert present <= {0, *map(int, entry["objects"])}
    assert num_before_start, "an object of the synthetic videos starts after frame 0"


def test_generic_keeps_the_labels_of_the_masks(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    root = tmp_path / "generic"
    first = np.maximum(square(3, 4, 3), square(25, 40, 200))
    make_generic(root, frames_of(davis, "val-000"), "mine", {0: first, 4: square(20, 5, 255)})
    make_generic(root, frames_of(davis, "val-001"), "later", {2: square(9, 9, 77)})
    result = evaluate("generic", root)
    assert result.code == 0
    masks = {name: read_labels(tmp_path / "out" / "mine" / f"{name}.png") for name in NAMES}
    np.testing.assert_array_equal(masks["00000"], first)
    assert (masks["00004"][square(20, 5, 255) > 0] == 255).all()
    for index, mask in enumerate(masks.values()):
        assert set(np.unique(mask)) <= {0, 3, 200} | ({255} if index >= 4 else set())
    later = [read_labels(path) for path in sorted((tmp_path / "out" / "later").iterdir())]
    assert len(later) == NUM_FRAMES
    assert not later[0].any()
    assert not later[1].any()
    np.testing.assert_array_equal(later[2], square(9, 9, 77))


@pytest.mark.parametrize("script", [*EVAL_SCRIPTS])
@pytest.mark.parametrize("side", [32, 57])
def test_masks_have_the_native_size(
    evaluate: Evaluate, davis: Path, synthetic: Path, tmp_path: Path, script: str, side: int
) -> None:
    """Whatever --size is; the annotation must survive both resizings."""
    generic = tmp_path / "generic"
    make_generic(generic, frames_of(davis, "val-000"), "mine", {0: square(9, 9, 9)})
    root = {"youtube": synthetic / "YouTube", "generic": generic, "davis": davis}
    assert evaluate(script, root.get(script, synthetic / "DAVIS"), "--size", side).code == 0
    paths = sorted((tmp_path / "out").rglob("*.png"))
    assert paths
    assert {read_labels(path).shape for path in paths} == {SIZE}
    if script == "generic":
        mask, annotation = read_labels(paths[0]) == 9, square(9, 9, 9) == 9
        assert (mask & annotation).sum() / (mask | annotation).sum() > 0.8


def test_a_video_of_one_frame(evaluate: Evaluate, davis: Path, tmp_path: Path) -> None:
    for name in NAMES[1:]:
        (frames_of(davis, "val-000") / f"{name}.jpg").unlink()
        (masks_of(davis, "val-000") / f"{name}.png").unlink()
    result = evaluate("davis", davis)
    assert result.code == 0
    (path,) = (tmp_path / "out" / "val-000").iterdir()
    annotation = masks_of(davis, "val-000") / "00000.png"
    np.testing.assert_array_equal(read_labels(path), read_labels(annotation))
    assert f"2 videos, {NUM_FRAMES + 1} frames" in result.out


@pytest.mark.parametrize("script", ["davis", "youtube"])
@pytest.mark.parametrize("side", [0, 32])
def test_overlay(
    evaluate: Evaluate, synthetic: Path, tmp_path: Path, script: str, side: int
) -> None:
    root = synthetic / {"davis": "DAVIS/2017", "youtube": "YouTube"}[script]
    assert evaluate(script, root, "--overlay", "--size", side).code == 0
    videos = sorted((tmp_path / "out").glob("*.mp4"))
    assert len(videos) == 2
    for path in videos:
        masks = sorted((tmp_path / "out" / path.stem).iterdir())
        assert {mask.suffix for mask in masks} == {".png"}
        reader = cv2.VideoCapture(str(path))
        num_frames = 0
        while True:
            is_read, frame = reader.read()
            if not is_read:
                break
            assert frame.shape == (*SIZE, 3)
            num_frames += 1
        reader.release()
        assert num_frames == len(masks)


def test_memory_options_have_an_effect(evaluate: Evaluate, davis: Path, tmp_path: Path) -> None:
    """With random weights, every change of the memory changes the masks."""
    outputs = {}
    for flags in ("", "--mem_every 1", "--include_last", "--top 0", "--top 1", "--size 64"):
        output = tmp_path / f"out{flags.replace(' ', '')}"
        assert evaluate("davis", davis, "--output", output, *flags.split()).code == 0
        outputs[flags] = tuple(read_files(output).items())
    assert len({*outputs.values()}) == len(outputs)


def test_half_precision_runs_on_the_cpu(evaluate: Evaluate, davis: Path, tmp_path: Path) -> None:
    half, full = tmp_path / "half", tmp_path / "full"
    assert evaluate("davis", davis, "--amp", "--output", half).code == 0
    assert evaluate("davis", davis, "--output", full).code == 0
    assert read_files(half).keys() == read_files(full).keys()
    agreement = np.mean(
        [
            (read_labels(path) == read_labels(half / path.relative_to(full))).mean()
            for path in full.rglob("*.png")
        ]
    )
    assert 0.8 < agreement < 1


def test_weights_of_stage_0(evaluate: Evaluate, davis: Path, tmp_path: Path) -> None:
    """They lack an input channel, which is added."""
    torch.manual_seed(0)
    network = build_network(NetworkSpec("stcn", "tiny", is_single_object=True))
    save_network(tmp_path / "stage0.pth", network, {})
    result = evaluate("davis", davis, "--model", tmp_path / "stage0.pth")
    assert result.code == 0
