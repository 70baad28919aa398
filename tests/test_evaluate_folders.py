"""Scores of any folder of masks against any other: sparse annotations, later objects, sizes."""

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
FRAMES = (0, 3, 10, 11)  # annotated ones, in this order though "10" sorts before "3"


def boxes(*labels: int) -> np.ndarray:
    """A 6x6 box for each label, each at a place of its own."""
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
    """cat: objects 1 and, from frame 10 on, 2; the annotation is sparse."""
    root = tmp_path / "truth"
    save(root / "cat", {0: boxes(1), 3: boxes(1), 10: boxes(1, 2), 11: boxes(1, 2)})
    return root


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Perfect predictions of the same, of every frame."""
    root = tmp_path / "results"
    save(root / "cat", {frame: boxes(1, 2) if frame >= 10 else boxes(1) for frame in range(12)})
    return root


def run(results: Path, ground_truth: Path, *more: object) -> int:
    paths = ["--results_path", str(results), "--ground_truth_path", str(ground_truth)]
    return main([*paths, *map(str, more)])


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["Sequence"]: row for row in csv.DictReader(file)}


def content(results: Path, ground_truth: Path, tmp_path: Path, *more: object) -> dict:
    assert run(results, ground_truth, "--json", tmp_path / "scores.json", *more) == 0

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads((tmp_path / "scores.json").read_text(), parse_constant=refuse)


def test_objects_are_scored_after_the_annotation_that_first_shows_them(
    results: Path, ground_truth: Path, tmp_path: Path
) -> None:
    # Object 1 is missed on frame 10, object 2 on frame 10 too, which is the mask it is given by.
    save(results / "cat", {10: boxes()})
    found = content(results, ground_truth, tmp_path)
    assert found["frames"]["cat"] == ["3", "10", "11"]
    assert found["objects"]["cat_1"]["frames"]["J"] == [1, 0, 1]
    assert found["objects"]["cat_2"]["frames"] == {"J": [None, None, 1], "F": [None, None, 1]}
    assert found["objects"]["cat_1"]["J-Mean"] == pytest.approx(2 / 3)
    assert found["objects"]["cat_2"]["J-Decay"] == 0
    assert found["global"]["J&F-Mean"] == pytest.approx(5 / 6)
    assert found["warnings"] == []
    assert found["categories"] == {}


def test_the_given_masks_need_no_prediction(
    results: Path, ground_truth: Path, tmp_path: Path
) -> None:
    save(ground_truth / "cat", {0: boxes()})  # so that frame 3 is the first to show an object
    for frame in (0, 1, 2, 3, 4):
        (results / "cat" / f"{frame}.png").unlink()
    found = content(results, ground_truth, tmp_path)
    assert found["frames"]["cat"] == ["10", "11"]
    assert found["objects"]["cat_1"]["frames"]["J"] == [1, 1]


def test_missing_predictions_are_named(
    results: Path, ground_truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "cat" / "11.png").unlink()
    save(ground_truth / "dog", {0: boxes(1), 1: boxes(1)})
    assert run(results, ground_truth) == 2
    error = capsys.readouterr().err
    assert f"{results / 'cat' / '11.png'} is missing." in error
    assert f"{results / 'dog'} is missing: there are no predictions" in error


def test_the_csv_has_no_split_in_its_name(results: Path, ground_truth: Path) -> None:
    assert run(results, ground_truth) == 0
    assert sorted(path.name for path in results.glob("*.csv")) == ["all_results.csv"]
    assert [*rows(results / "all_results.csv")] == ["cat_1", "cat_2", "cat", "global"]


def test_masks_of_one_sequence_right_in_the_folder(results: Path, ground_truth: Path) -> None:
    assert run(results / "cat", ground_truth / "cat") == 0
    assert [*rows(results / "cat" / "all_results.csv")] == ["cat_1", "cat_2", "cat", "global"]


def test_masks_beside_folders_of_masks_are_refused(
    results: Path, ground_truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(ground_truth, {0: boxes(1)})
    assert run(results, ground_truth) == 2
    assert f"{ground_truth} holds masks (0.png) beside folders of masks" in capsys.readouterr().err


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
    found = content(results, ground_truth, tmp_path)
    assert [*found["objects"]] == ["cat_255"]
    assert found["global"]["J&F-Mean"] == 1
    assert found["warnings"] == []


def test_void_beside_other_labels_is_no_object(
    ground_truth: Path, results: Path, tmp_path: Path
) -> None:
    void = np.where(boxes(3) > 0, 255, boxes(1)).astype(np.uint8)
    save(ground_truth / "cat", {0: void, 3: void})
    assert [*content(results, ground_truth, tmp_path)["objects"]] == ["cat_1", "cat_2"]


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        ((1,), "never show the labels [2], which count as empty"),
        ((7,), "hold only the labels [7], none of the annotation's [1, 2], and count as empty"),
    ],
)
def test_objects_that_no_prediction_shows_are_named(
    results: Path,
    ground_truth: Path,
    tmp_path: Path,
    shown: Sequence[int],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(results / "cat", {frame: boxes(*shown) for frame in range(12)})
    found = content(results, ground_truth, tmp_path)
    assert found["objects"]["cat_2"]["J-Mean"] == 0
    assert len(found["warnings"]) == 1
    assert sentence in found["warnings"][0]
    assert f"warning: {found['warnings'][0]}" in capsys.readouterr().err


def test_an_object_of_the_last_annotation_alone_is_left_out(
    results: Path, ground_truth: Path, tmp_path: Path
) -> None:
    save(ground_truth / "cat", {11: boxes(1, 2, 3)})
    found = content(results, ground_truth, tmp_path)
    assert [*found["objects"]] == ["cat_1", "cat_2"]
    assert found["warnings"] == [
        "The labels [3] of cat are left out: no annotated frame follows one that shows them."
    ]


def test_a_sequence_that_cannot_be_scored_is_left_out(
    results: Path, ground_truth: Path, tmp_path: Path
) -> None:
    save(ground_truth / "dog", {4: boxes(1)})
    found = content(results, ground_truth, tmp_path)
    assert [*found["sequences"]] == ["cat"]
    (warning,) = found["warnings"]
    assert (
        f"Sequence dog is left out: {ground_truth / 'dog'} holds no annotated frame after"
        in warning
    )


def test_nothing_to_score(
    results: Path, ground_truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "given" / "cat", {0: boxes(1)})
    assert run(results, tmp_path / "given") == 2
    assert f"Nothing in {tmp_path / 'given'} can be scored" in capsys.readouterr().err
    # An object of which no mask follows, and void that is none.
    save(tmp_path / "given" / "cat", {0: boxes(255), 1: boxes(1, 255)})
    assert run(results, tmp_path / "given") == 2
    assert "error: Nothing can be scored:\n- The labels [1] of cat" in capsys.readouterr().err
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
    assert f"{results / 'cat' / '3.png'} is 80x40 pixels, its annotation 40x20; --resize" in error
    assert "(and 1 more frames of this sequence)" in error
    found = content(results, ground_truth, tmp_path, "--resize")
    assert found["global"]["J&F-Mean"] == 1
    assert found["warnings"] == [
        "The predictions of cat are resized to their annotations, nearest neighbour: 2 frames from "
        "80x40 to 40x20 pixels."
    ]


def test_more_processes_give_the_same(
    results: Path, ground_truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.scoring.MANY_FRAMES", 0)
    save(ground_truth / "dog", {0: boxes(3), 1: boxes(2, 3), 2: boxes(2)})
    save(results / "dog", {1: boxes(2), 2: boxes(2)})
    one, two = (content(results, ground_truth, tmp_path, "--num_workers", n) for n in (1, 2))
    assert {**one, "scoring": 0} == {**two, "scoring": 0}
    assert [*one["objects"]] == ["cat_1", "cat_2", "dog_2", "dog_3"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_annotation_is_named(
    results: Path,
    ground_truth: Path,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("evaluation.scoring.MANY_FRAMES", 0)
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
        return np.array(Image.open(tmp_path / "figures" / "worst.png"))

    sheet = draw()
    assert sheet.shape == (22 + 2 * 160, 4 * 320, 3)
    # The first tile is frame 10, where nothing is predicted; three frames are scored.
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
    assert "lacks frame 10, which --figures draws on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--year", "2016"], "--year does nothing with --ground_truth_path"),
        (["--split", "val"], "--split does nothing with --ground_truth_path"),
        (["--train_meta", "meta.json"], "--train_meta does nothing with --ground_truth_path"),
        (["--image_path", "images"], "--image_path does nothing without --figures"),
    ],
)
def test_flags_that_do_nothing(
    results: Path,
    ground_truth: Path,
    flags: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(results, ground_truth, *flags) == 2
    assert f"error: {sentence}" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--ground_truth_path", "b", "--davis_path", "c"]])
def test_exactly_one_kind_of_annotations(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--results_path", "a", *more])
    assert error.value.code == 2
    assert "--davis_path" in capsys.readouterr().err
