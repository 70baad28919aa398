"""Scores of any folder of masks: sparse ground truth, objects that appear later, sizes."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.evaluate import main

SIZE = (20, 40)
FRAMES = (0, 3, 10, 11)  # with ground truth; in natural order, "10" after "3"


def boxes(*labels: int) -> np.ndarray:
    """Draw a 6x6 box for each label, at a position that depends on the label."""
    result = np.zeros(SIZE, np.uint8)
    for label in labels:
        left = 2 + 8 * (label % 4)
        result[5:11, left : left + 6] = label
    return result


def save(folder: Path, masks: dict[int, np.ndarray], palette: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for frame, labels in masks.items():
        image = Image.fromarray(labels)
        if palette:
            image.putpalette(list(range(256)) * 3)
        image.save(folder / f"{frame}.png")


@pytest.fixture
def ground_truth(tmp_path: Path) -> Path:
    """Sparse ground truth of cat: object 1, and object 2 from frame 10 on."""
    root = tmp_path / "ground_truth"
    save(root / "cat", {0: boxes(1), 3: boxes(1), 10: boxes(1, 2), 11: boxes(1, 2)})
    return root


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Perfect predictions on every frame."""
    root = tmp_path / "results"
    save(root / "cat", {frame: boxes(1, 2) if frame >= 10 else boxes(1) for frame in range(12)})
    return root


def run(results: Path, ground_truth: Path, *more: object) -> int:
    paths = ["--results_path", str(results), "--ground_truth_path", str(ground_truth)]
    return main([*paths, *map(str, more)])


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["Sequence"]: row for row in csv.DictReader(file)}


def read_scores(results: Path, ground_truth: Path, tmp_path: Path, *more: object) -> dict:
    """Score, and read the JSON file; it must not contain NaN."""
    assert run(results, ground_truth, "--json", tmp_path / "scores.json", *more) == 0

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not valid JSON")

    return json.loads((tmp_path / "scores.json").read_text(), parse_constant=refuse)


def test_objects_are_scored_after_their_annotation(
    results: Path, ground_truth: Path, tmp_path: Path
) -> None:
    # Both objects are missed on frame 10, which is the annotation of object 2.
    save(results / "cat", {10: boxes()})
    scores = read_scores(results, ground_truth, tmp_path)
    assert scores["frames"]["cat"] == ["3", "10", "11"]
    assert scores["objects"]["cat_1"]["frames"]["J"] == [1, 0, 1]
    assert scores["objects"]["cat_2"]["frames"] == {"J": [None, None, 1], "F": [None, None, 1]}
    assert scores["objects"]["cat_1"]["J-Mean"] == pytest.approx(2 / 3)
    assert scores["objects"]["cat_2"]["J-Decay"] == 0
    assert scores["global"]["J&F-Mean"] == pytest.approx(5 / 6)
    assert scores["warnings"] == []
    assert scores["categories"] == {}


def test_annotations_need_no_prediction(results: Path, ground_truth: Path, tmp_path: Path) -> None:
    save(ground_truth / "cat", {0: boxes()})  # frame 3 is now the first with an object
    for frame in (0, 1, 2, 3, 4):
        (results / "cat" / f"{frame}.png").unlink()
    scores = read_scores(results, ground_truth, tmp_path)
    assert scores["frames"]["cat"] == ["10", "11"]
    assert scores["objects"]["cat_1"]["frames"]["J"] == [1, 1]


def test_missing_predictions_are_refused(
    results: Path, ground_truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "cat" / "11.png").unlink()
    save(ground_truth / "dog", {0: boxes(1), 1: boxes(1)})
    assert run(results, ground_truth) == 2
    error = capsys.readouterr().err
    assert f"{results / 'cat' / '11.png'} is missing." in error
    assert f"{results / 'dog'} is missing: there are no predictions" in error


def test_csv_name_has_no_split(results: Path, ground_truth: Path) -> None:
    assert run(results, ground_truth) == 0
    assert sorted(path.name for path in results.glob("*.csv")) == ["all_results.csv"]
    assert [*rows(results / "all_results.csv")] == ["cat_1", "cat_2", "cat", "global"]


def test_masks_of_one_sequence_directly_in_the_folder(results: Path, ground_truth: Path) -> None:
    assert run(results / "cat", ground_truth / "cat") == 0
    assert [*rows(results / "cat" / "all_results.csv")] == ["cat_1", "cat_2", "cat", "global"]


def test_masks_beside_folders_of_masks_are_refused(
    results: Path, ground_truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(ground_truth, {0: boxes(1)})
    assert run(results, ground_truth) == 2
    assert f"{ground_truth} contains both masks (0.png) and folders" in capsys.readouterr().err


@pytest.mark.parametrize("bits", [8, 1])
def test_grey_masks_of_one_object(
    ground_truth: Path, tmp_path: Path, results: Path, bits: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for root in (ground_truth, results):
        for path in root.rglob("*.png"):
            path.unlink()
        save(root / "cat", {frame: boxes(255) for frame in FRAMES}, palette=False)
    if bits == 1:
        for path in ground_truth.rglob("*.png"):
            Image.open(path).convert("1").save(path)
    scores = read_scores(results, ground_truth, tmp_path)
    assert [*scores["objects"]] == ["cat_255"]
    assert scores["global"]["J&F-Mean"] == 1
    assert scores["warnings"] == []


def test_void_is_no_object_if_there_are_others(
    ground_truth: Path, results: Path, tmp_path: Path
) -> None:
    void = np.where(boxes(3) > 0, 255, boxes(1)).astype(np.uint8)
    save(ground_truth / "cat", {0: void, 3: void})
    assert [*read_scores(results, ground_truth, tmp_path)["objects"]] == ["cat_1", "cat_2"]


@pytest.mark.parametrize(
    ("labels", "warning"),
    [
        ((1,), "never contain the labels [2], which count as empty"),
        ((7,), "contain only the labels [7], none of the ground truth's [1, 2], and count as"),
    ],
)
def test_objects_missing_in_all_predictions_warn(
    results: Path,
    ground_truth: Path,
    tmp_path: Path,
    labels: Sequence[int],
    warning: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(results / "cat", {frame: boxes(*labels) for frame in range(12)})
    scores = read_scores(results, ground_truth, tmp_path)
    assert scores["objects"]["cat_2"]["J-Mean"] == 0
    assert len(scores["warnings"]) == 1
    assert warning in scores["warnings"][0]
    assert f"warning: {scores['warnings'][0]}" in capsys.readouterr().err


def test_an_object_of_the_last_frame_only_is_not_scored(
    results: Path, ground_truth: Path, tmp_path: Path
) -> None:
    save(ground_truth / "cat", {11: boxes(1, 2, 3)})
    scores = read_scores(results, ground_truth, tmp_path)
    assert [*scores["objects"]] == ["cat_1", "cat_2"]
    assert scores["warnings"] == [
        "The labels [3] of cat are not scored: there is no ground-truth mask after the first one "
        "that shows them."
    ]


def test_a_sequence_with_only_annotations_is_not_scored(
    results: Path, ground_truth: Path, tmp_path: Path
) -> None:
    save(ground_truth / "dog", {4: boxes(1)})
    scores = read_scores(results, ground_truth, tmp_path)
    assert [*scores["sequences"]] == ["cat"]
    (warning,) = scores["warnings"]
    folder = ground_truth / "dog"
    assert f"Sequence dog is not scored: {folder} has no ground-truth mask after" in warning


def test_nothing_to_score(
    results: Path, ground_truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = tmp_path / "annotations"
    save(annotations / "cat", {0: boxes(1)})
    assert run(results, annotations) == 2
    assert f"{annotations} has nothing to score" in capsys.readouterr().err
    # Object 1 is on the last frame only, and void is no object.
    save(annotations / "cat", {0: boxes(255), 1: boxes(1, 255)})
    assert run(results, annotations) == 2
    assert "error: There is no object to score:\n- The labels [1] of" in capsys.readouterr().err
    assert run(results, tmp_path / "nowhere") == 2
    assert f"The folder {tmp_path / 'nowhere'} does not exist" in capsys.readouterr().err


def test_other_sizes_are_refused_or_resized(
    results: Path, ground_truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for frame in (3, 10):
        path = results / "cat" / f"{frame}.png"
        with Image.open(path) as image:
            image.resize((80, 40), Image.Resampling.NEAREST).save(path)
    assert run(results, ground_truth) == 2
    error = capsys.readouterr().err
    assert f"{results / 'cat' / '3.png'} has 80x40 pixels, its ground truth 40x20: add" in error
    assert "(and 1 more in this sequence)" in error
    scores = read_scores(results, ground_truth, tmp_path, "--resize")
    assert scores["global"]["J&F-Mean"] == 1
    assert scores["warnings"] == [
        "The predictions of cat are resized to their ground truth by nearest neighbour: 2 frames "
        "from 80x40 to 40x20 pixels."
    ]


def test_several_processes_give_equal_scores(
    results: Path, ground_truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.scoring.MIN_FRAMES_FOR_PROCESSES", 0)
    save(ground_truth / "dog", {0: boxes(3), 1: boxes(2, 3), 2: boxes(2)})
    save(results / "dog", {1: boxes(2), 2: boxes(2)})
    one, two = (read_scores(results, ground_truth, tmp_path, "--num_workers", n) for n in (1, 2))
    assert {**one, "scoring": 0} == {**two, "scoring": 0}
    assert [*one["objects"]] == ["cat_1", "cat_2", "dog_2", "dog_3"]


@pytest.mark.parametrize("workers", [1, 2])
def test_damaged_ground_truth_is_named(
    results: Path,
    ground_truth: Path,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("evaluation.scoring.MIN_FRAMES_FOR_PROCESSES", 0)
    path = ground_truth / "cat" / "10.png"
    path.write_bytes(path.read_bytes()[:-30])
    assert run(results, ground_truth, "--num_workers", workers) == 2
    assert f"error: The mask {path} cannot be read" in capsys.readouterr().err


def test_figures_on_grey_and_on_images(
    results: Path, ground_truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(results / "cat", {10: boxes()})

    def draw(*more: object) -> np.ndarray:
        assert run(results, ground_truth, "--figures", tmp_path / "figures", *more) == 0
        assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["cat.png", "worst.png"]
        return np.array(Image.open(tmp_path / "figures" / "worst.png"))[:, 22:]  # no margin

    sheet = draw()
    assert sheet.shape == (22 + 2 * 160, 4 * 320, 3)
    # Three frames are scored. The first tile is frame 10, where the prediction is empty.
    assert (sheet[22:182, :320] == 128).all()
    assert (sheet[182:, :320] != 128).any()
    assert (sheet[:, 3 * 320 :] == 255).all()
    for frame in FRAMES:
        path = tmp_path / "images" / "cat" / f"{frame}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1], (90, 120, 60)).save(path)
    sheet = draw("--image_path", tmp_path / "images")
    assert (np.abs(sheet[30:170, :310].astype(int) - [90, 120, 60]) < 5).all()
    (tmp_path / "images" / "cat" / "10.jpg").unlink()
    flags = ["--figures", tmp_path / "figures", "--image_path", tmp_path / "images"]
    assert run(results, ground_truth, *flags) == 2
    assert "has no image of frame 10: --figures needs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--year", "2016"], "--year does nothing with --ground_truth_path"),
        (["--split", "val"], "--split does nothing with --ground_truth_path"),
        (["--train_meta", "meta.json"], "--train_meta does nothing with --ground_truth_path"),
        (["--image_path", "images"], "--image_path does nothing without --figures"),
    ],
)
def test_options_without_effect_are_refused(
    results: Path,
    ground_truth: Path,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(results, ground_truth, *flags) == 2
    assert f"error: {message}" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--ground_truth_path", "b", "--davis_path", "c"]])
def test_exactly_one_option_names_the_ground_truth(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--results_path", "a", *more])
    assert error.value.code == 2
    assert "--davis_path" in capsys.readouterr().err
