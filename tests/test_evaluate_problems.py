"""Errors and warnings of scripts/evaluate.py on masks in the layout of DAVIS 2017."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.davis_example import (
    ANNOTATIONS,
    NUM_FRAMES,
    draw_boxes,
    fail,
    run,
    save_mask,
    write_davis,
    write_perfect_results,
)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    return write_davis(tmp_path / "davis")


@pytest.fixture
def results(tmp_path: Path, davis: Path) -> Path:
    return write_perfect_results(tmp_path / "results", davis)


def test_results_folder_is_missing(davis: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fail(capsys, davis / "nowhere", davis)
    assert f"The results folder {davis / 'nowhere'} does not exist" in message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--split", "test"], "DAVIS 2017 has no split test: choose from train, val"),
        (["--split", "train"], "trainval/ImageSets/2017/train.txt does not exist"),
        (["--year", "2016"], "DAVIS 2016 is not in"),
    ],
)
def test_list_of_sequences_is_missing(
    results: Path,
    davis: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    expected: str,
) -> None:
    assert expected in fail(capsys, results, davis, *options)


def test_all_problems_are_listed_before_scoring(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(results / "dog")
    (results / "cat" / "00001.png").unlink()
    (results / "cat" / "00002.png").write_bytes(b"no image")
    save_mask(results / "cat" / "00003.png", np.zeros((10, 15)))
    message = fail(capsys, results, davis)
    cat = results / "cat"
    assert f"{cat / '00001.png'} is missing." in message
    assert f"{cat / '00002.png'} is not a readable image." in message
    assert f"{cat / '00003.png'} has 15x10 pixels, its ground truth 30x20: add --resize" in message
    assert f"{results / 'dog'} is missing: there are no predictions" in message


def test_problems_of_one_kind_take_one_line(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for frame in (1, 2, 3):
        (results / "cat" / f"{frame:05d}.png").unlink()
    message = fail(capsys, results, davis)
    assert f"{results / 'cat' / '00001.png'} is missing (and 2 more in this sequence)." in message
    assert "00002.png" not in message


def test_ten_problems_are_listed_and_the_rest_counted(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"cat{index:02d}" for index in range(12)]
    (davis / "trainval" / "ImageSets" / "2017" / "val.txt").write_text("\n".join(names))
    message = fail(capsys, results, davis)
    assert "cat09 has 0 ground-truth masks" in message
    assert "cat10" not in message
    assert "and 2 more" in message


def test_sequence_is_too_short(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = davis / ANNOTATIONS / "cat"
    for frame in (2, 3, 4):
        (folder / f"{frame:05d}.png").unlink()
    assert f"{folder} has 2 ground-truth masks" in fail(capsys, results, davis)


def test_damaged_mask_is_named(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = results / "cat" / "00002.png"
    path.write_bytes(path.read_bytes()[:-30])
    assert f"The mask {path} cannot be read" in fail(capsys, results, davis)


def test_colour_mask_is_refused(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = results / "cat" / "00002.png"
    with Image.open(path) as image:
        image.convert("RGB").save(path)
    message = fail(capsys, results, davis)
    assert f"The mask {path} cannot be scored, because its pixels are RGB" in message


def test_first_annotation_without_object(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = davis / ANNOTATIONS / "dog" / "00000.png"
    save_mask(path, draw_boxes(255))
    assert f"The annotation {path} shows no object" in fail(capsys, results, davis)


def test_csv_cannot_be_written(
    results: Path, davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "scores.csv"
    assert run(results, davis, "--csv", str(target)) == 2
    captured = capsys.readouterr()
    assert "global" in captured.out  # the scores are printed nevertheless
    assert f"error: The scores cannot be written to {target}" in captured.err


def test_resized_predictions_warn(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for frame in (1, 2):
        boxes = draw_boxes(1, 2).repeat(2, 0).repeat(2, 1)
        save_mask(results / "cat" / f"{frame:05d}.png", boxes)
    assert run(results, davis, "--resize") == 0
    captured = capsys.readouterr()
    assert "warning: The predictions of cat are resized" in captured.err
    assert "2 frames from 60x40 to 30x20 pixels" in captured.err
    rows = [line.split() for line in captured.out.splitlines()]
    assert [row[1] for row in rows if row[:1] == ["global"]] == ["1.000"]


def test_only_unknown_labels_warn(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for frame in range(NUM_FRAMES):
        save_mask(results / "dog" / f"{frame:05d}.png", draw_boxes(38), palette=False)
    assert run(results, davis) == 0
    error = capsys.readouterr().err
    assert "warning: The predictions of dog" in error
    assert "only the labels [38], none of the ground truth's [1]" in error


def test_an_object_missing_in_all_predictions_warns(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for frame in range(NUM_FRAMES):
        save_mask(results / "cat" / f"{frame:05d}.png", draw_boxes(1))
    assert run(results, davis) == 0
    assert f"cat in {results / 'cat'} never contain the labels [2]" in capsys.readouterr().err
