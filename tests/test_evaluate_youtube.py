"""Scores of YouTube-VOS: seen and unseen categories, objects that appear later, public sets."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import eval_youtube
from scripts.evaluate import main

SIZE = (24, 40)
FRAMES = ("00000", "00005", "00010", "00015")


def boxes(*labels: int) -> np.ndarray:
    result = np.zeros(SIZE, np.uint8)
    for label in labels:
        result[5:11, 2 + 8 * label : 8 + 8 * label] = label
    return result


def save(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    image.putpalette(list(range(256)) * 3)
    image.save(path)


def write_meta(folder: Path, videos: dict[str, dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {name: {"objects": objects} for name, objects in videos.items()}
    (folder / "meta.json").write_text(json.dumps({"videos": content}))


def describe(category: str, start: int = 0) -> dict[str, Any]:
    """Entry of an object in meta.json, from one of the frames on."""
    return {"category": category, "frames": FRAMES[start:]}


@pytest.fixture
def youtube(tmp_path: Path) -> Path:
    """Ground truth of all frames of a (a cat, and a yak from the second frame on) and b (a yak)."""
    root = tmp_path / "YouTube"
    videos = {"a": {"1": describe("cat"), "2": describe("yak", 1)}, "b": {"1": describe("yak")}}
    write_meta(root / "valid", videos)
    write_meta(root / "train", {"t": {"1": describe("cat")}, "u": {"1": describe("dog")}})
    for index, frame in enumerate(FRAMES):
        save(root / "valid" / "Annotations" / "a" / f"{frame}.png", boxes(*(1, 2)[: index + 1]))
        save(root / "valid" / "Annotations" / "b" / f"{frame}.png", boxes(1))
    return root


@pytest.fixture
def results(tmp_path: Path, youtube: Path) -> Path:
    """Perfect predictions, but object 2 of a is missed on one of its two scored frames."""
    folder = tmp_path / "results"
    shutil.copytree(youtube / "valid" / "Annotations", folder)
    save(folder / "a" / "00015.png", boxes(1))
    return folder


def run(results: Path, youtube: Path, *more: object) -> int:
    paths = ["--results_path", str(results), "--yv_path", str(youtube)]
    return main([*paths, *map(str, more)])


def fail(capsys: pytest.CaptureFixture[str], results: Path, youtube: Path, *more: object) -> str:
    assert run(results, youtube, *more) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err[captured.err.index("error: ") :]


def test_seen_and_unseen_categories(
    results: Path, youtube: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(results, youtube, "--json", tmp_path / "scores.json") == 0
    lines = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert ["seen", "1.000", "1.000"] in lines
    assert ["unseen", "0.750", "0.750"] in lines
    assert ["G", "0.875", "0.875"] in lines
    scores = json.loads((tmp_path / "scores.json").read_text())
    # J&F of the three objects: 1 for the cat, 0.5 and 1 for the yaks.
    assert scores["global"]["J&F-Mean"] == pytest.approx(5 / 6)
    assert scores["categories"]["unseen"]["F-Mean"] == 0.75
    assert scores["categories"]["G"]["J&F-Mean"] == 0.875
    seen = {name: item["is_seen"] for name, item in scores["objects"].items()}
    assert seen == {"a_1": True, "a_2": False, "b_1": False}
    assert scores["objects"]["a_2"]["frames"]["J"] == [None, 1, 0]
    with (results / "all_results-valid.csv").open(newline="") as file:
        names = [row["Sequence"] for row in csv.DictReader(file)]
    assert names == ["a_1", "a_2", "b_1", "a", "b", "global", "seen", "unseen", "G"]
    assert [path.name for path in results.glob("*.csv")] == ["all_results-valid.csv"]


def test_g_without_unseen_categories(
    results: Path, youtube: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_meta(tmp_path / "own", {"t": {"1": describe("cat"), "2": describe("yak")}})
    assert run(results, youtube, "--train_meta", tmp_path / "own" / "meta.json") == 0
    lines = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert ["seen", "0.833"] in lines
    assert ["G", "0.833"] in lines
    assert not [line for line in lines if line[:1] == ["unseen"]]


def test_categories_of_the_resized_training_set(results: Path, youtube: Path) -> None:
    (youtube / "train").rename(youtube / "train_480p")
    assert run(results, youtube) == 0


def test_training_categories_are_missing(
    results: Path, youtube: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(youtube / "train")
    message = fail(capsys, results, youtube)
    paths = f"{youtube / 'train' / 'meta.json'} or {youtube / 'train_480p' / 'meta.json'}"
    assert f"does not exist at {paths}: give its path with --train_meta" in message
    message = fail(capsys, results, youtube, "--train_meta", youtube / "other.json")
    assert f"does not exist at {youtube / 'other.json'}: give its path" in message


def test_a_public_set_cannot_be_scored(
    results: Path, youtube: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = youtube / "valid" / "Annotations"
    shutil.rmtree(youtube / "train")  # the error must not ask for it
    for path in annotations.rglob("*.png"):
        if path.parent.name + path.stem not in ("a00000", "a00005", "b00000"):
            path.unlink()
    save(annotations / "a" / "00005.png", boxes(2))  # only the new object, as in the public sets
    message = fail(capsys, results, youtube)
    assert f"{annotations} has nothing to score" in message
    assert "scripts/make_submission.py" in message


def test_results_of_eval_youtube(
    synthetic: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--yv_path", str(synthetic / "YouTube"), "--output", str(tmp_path / "out")]
    eval_flags = ["--model", str(tiny_weights), "--device", "cpu", "--size", "48"]
    assert eval_youtube.main([*flags, *eval_flags]) == 0
    assert run(tmp_path / "out", synthetic / "YouTube") == 0
    assert "seen" in capsys.readouterr().out
    public = tmp_path / "public"  # without the ground truth beside all frames
    public.mkdir()
    (public / "valid").symlink_to(synthetic / "YouTube" / "valid")
    assert run(tmp_path / "out", public) == 2
    assert "like the public sets" in capsys.readouterr().err


def test_a_video_with_only_annotations_is_not_scored(
    results: Path, youtube: Path, tmp_path: Path
) -> None:
    for frame in FRAMES[1:]:
        (youtube / "valid" / "Annotations" / "b" / f"{frame}.png").unlink()
    assert run(results, youtube, "--json", tmp_path / "scores.json") == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert [*scores["sequences"]] == ["a"]
    assert "Sequence b is not scored" in scores["warnings"][0]


def test_objects_and_frames_are_those_of_meta_json(
    results: Path, youtube: Path, tmp_path: Path
) -> None:
    annotations = youtube / "valid" / "Annotations"
    save(annotations / "b" / "00007.png", boxes(1))  # not in meta.json, and not predicted
    save(annotations / "b" / "00010.png", boxes(1, 3))  # 3 is not in meta.json
    videos = {
        "a": {"1": describe("cat"), "2": describe("yak", 1)},
        "b": {"1": describe("yak"), "4": describe("cat")},  # 4 is in no mask
    }
    write_meta(youtube / "valid", videos)
    assert run(results, youtube, "--json", tmp_path / "scores.json") == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert [*scores["objects"]] == ["a_1", "a_2", "b_1"]
    assert scores["frames"]["b"] == [*FRAMES[1:]]
    assert scores["warnings"] == [
        "The labels [4] of b are not scored: there is no ground-truth mask after the first one "
        "that shows them."
    ]


def test_labels_that_only_predictions_have_are_named(
    results: Path, youtube: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(results / "a" / "00010.png", boxes(1, 2, 4))
    assert run(results, youtube, "--json", tmp_path / "scores.json") == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    sentence = (
        f"The predictions of a in {results / 'a'} contain the labels [4], which the ground truth "
        "does not have: they count as background."
    )
    assert scores["warnings"] == [sentence]
    assert f"warning: {sentence}" in capsys.readouterr().err


def test_problems_are_listed_together(
    results: Path, youtube: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "a" / "00010.png").unlink()
    videos = {
        "a": {"1": describe("cat"), "2": describe("yak", 1)},
        "b": {"one": describe("yak"), "2": {"frames": FRAMES}},
    }
    write_meta(youtube / "valid", videos)
    message = fail(capsys, results, youtube)
    assert f"{results / 'a' / '00010.png'} is missing." in message
    assert "lists object one, 2 of video b without a category or without a label from" in message


def test_splits(
    results: Path, youtube: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(youtube / "valid", youtube / "own")
    assert run(results, youtube, "--split", "own") == 0
    assert (results / "all_results-own.csv").is_file()
    capsys.readouterr()
    message = fail(capsys, results, youtube, "--split", "none")
    assert f"{youtube / 'none' / 'meta.json'} does not exist" in message


@pytest.mark.parametrize("options", [["--year", "2017"], ["--image_path", "images"]])
def test_options_without_effect_are_refused(
    results: Path, youtube: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"{options[0]} does nothing with --yv_path" in fail(capsys, results, youtube, *options)


@pytest.mark.parametrize("folder", ["valid/JPEGImages", "all_frames/valid_all_frames/JPEGImages"])
def test_images_of_figures(
    results: Path, youtube: Path, tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for video in "ab":
        for frame in FRAMES:
            path = youtube / folder / video / f"{frame}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", SIZE[::-1], (90, 120, 60)).save(path)
    assert run(results, youtube, "--figures", tmp_path / "figures") == 0
    written = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert written == ["a.png", "b.png", "worst.png"]
    sheet = np.array(Image.open(tmp_path / "figures" / "worst.png"))
    assert (np.abs(sheet[26:40, 24:332].astype(int) - [90, 120, 60]) < 5).all()
    shutil.rmtree(youtube / folder)
    assert run(results, youtube, "--figures", tmp_path / "figures") == 0  # on grey
