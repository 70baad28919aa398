"""scripts/experiments/directions.py on synthetic clips with objects that disappear."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.synthetic_layouts import write_image
from inference.predictor import Predictor
from inference_core_yv import InferenceCoreYV
from scripts.experiments import directions
from util.hyper_para import EvalSettings
from util.masks import DAVIS_PALETTE, write_mask

NUM_FRAMES, SIZE = 52, (32, 48)
# Clip -> object -> first frame without the object.
END_FRAMES: dict[str, dict[int, int]] = {
    "stays": {1: 99, 2: 99},
    "one-disappears": {1: 99, 2: 15},
    "all-disappear": {1: 30, 2: 15},
}


def draw(root: Path, name: str, end_frames: dict[int, int], num_frames: int = NUM_FRAMES) -> None:
    """Draw two squares that move down, in the layout of DAVIS 2017."""
    rng = np.random.default_rng(0)
    ground = rng.integers(90, 120, (*SIZE, 3), np.uint8)
    base = root / "2017" / "trainval"
    for index in range(num_frames):
        image, labels = ground.copy(), np.zeros(SIZE, np.uint8)
        for label, end in end_frames.items():
            if index < end:
                top = 4 + index // 8
                box = (slice(top, top + 12), slice(24 * label - 20, 24 * label - 6))
                image[box], labels[box] = (250, 40, 40) if label == 1 else (20, 60, 240), label
        write_image(base / "JPEGImages" / "480p" / name / f"{index:05d}.jpg", image)
        path = base / "Annotations" / "480p" / name / f"{index:05d}.png"
        write_mask(path, labels, DAVIS_PALETTE)
    listing = base / "ImageSets" / "2017" / "val.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    with listing.open("a") as file:
        file.write(f"{name}\n")


def measure(root: Path, weights: Path) -> dict[str, Any]:
    argv = ["--davis_path", root, "--model", weights, "--device", "cpu", "--json", root / "f.json"]
    assert directions.main([*map(str, argv)]) == 0
    return json.loads((root / "f.json").read_text())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("davis")
    for name, end_frames in END_FRAMES.items():
        draw(root, name, end_frames)
    draw(root, "short", END_FRAMES["stays"], num_frames=2)
    return measure(root, tiny_weights)


def notes_of(results: dict[str, Any], name: str) -> list[str]:
    return [note.split(": ", 1)[1] for note in results["notes"] if note.startswith(f"{name}: ")]


def test_a_clip_whose_objects_stay(results: dict[str, Any]) -> None:
    assert [*results["J&F"]["stays"]] == ["forwards", "backwards", "both"]
    effects = results["edits"]["stays"]
    assert effects["changed before frame 40"] == 0
    assert effects["changed from frame 40 on"] > 0
    first, last, count = effects[directions.ADDED_OBJECT]
    assert first == 20
    assert last < 50
    assert 1 <= count <= 30
    assert notes_of(results, "stays") == []


def test_an_object_that_disappears_is_not_scored(results: dict[str, Any]) -> None:
    assert [*results["J&F"]["one-disappears"]] == ["forwards", "backwards", "both"]
    effects = results["edits"]["one-disappears"]
    assert effects["changed before frame 40"] == 0
    assert len(effects) == 4  # no object is added
    assert notes_of(results, "one-disappears") == [
        "object 2 is not scored, because it is not on the last frame.",
        "no object is added, because object 2 is not on frame 20.",
    ]


def test_a_clip_that_ends_empty_is_scored_forwards_only(results: dict[str, Any]) -> None:
    assert [*results["J&F"]["all-disappear"]] == ["forwards"]
    assert "all-disappear" not in results["edits"]
    notes = notes_of(results, "all-disappear")
    assert "only forwards is scored" in notes[0]
    assert notes[1] == "no mask is corrected, because no object is on frame 40."


def test_the_mean_is_of_clips_with_all_directions(results: dict[str, Any]) -> None:
    lines = directions.format_report(results).splitlines()
    (mean,) = (line.split() for line in lines if line.startswith("mean"))
    rows = [results["J&F"][name] for name in ("stays", "one-disappears")]
    expected = [f"{np.mean([row[d] for row in rows]):.3f}" for d in directions.DIRECTIONS]
    assert mean[1:] == expected
    (alone,) = (line.split() for line in lines if line.startswith("all-disappear  "))
    assert alone[2:] == ["-", "-"]
    assert [line for line in lines if line.startswith("note: short: ")]


def test_an_object_that_is_lost_at_once_is_on_no_frame(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = {index: np.zeros(SIZE, np.uint8) for index in range(NUM_FRAMES)}
    ground_truth = np.zeros(SIZE, np.uint8)
    ground_truth[4:9, 4:9], ground_truth[20:25, 20:25] = 1, 2
    frames: Any = [np.zeros((*SIZE, 3), np.uint8)] * NUM_FRAMES
    clip = directions.AnnotatedClip("lost", frames, lambda _: ground_truth, [1, 2])
    predictor = Predictor(EvalSettings(model=str(tiny_weights), device="cpu"), InferenceCoreYV)
    monkeypatch.setattr(directions, "propagate", lambda *_: empty)
    effects, _ = directions.edit(clip, predictor, empty, [1, 2])
    assert effects[directions.ADDED_OBJECT] == [None, None, 0]
