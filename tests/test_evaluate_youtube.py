"""Scores in YouTube-VOS' layout: seen and unseen categories, later objects, public sets."""

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


def described(category: str, start: int = 0) -> dict[str, Any]:
    return {"category": category, "frames": FRAMES[start:]}


@pytest.fixture
def youtube(tmp_path: Path) -> Path:
    """Videos a (a cat, and a yak from the second frame on) and b (a yak), annotated throughout."""
    root = tmp_path / "YouTube"
    videos = {"a": {"1": described("cat"), "2": described("yak", 1)}, "b": {"1": described("yak")}}
    write_meta(root / "valid", videos)
    write_meta(root / "train", {"t": {"1": described("cat")}, "u": {"1": described("dog")}})
    for index, frame in enumerate(FRAMES):
        save(root / "valid" / "Annotations" / "a" / f"{frame}.png", boxes(*(1, 2)[: index + 1]))
        save(root / "valid" / "Annotations" / "b" / f"{frame}.png", boxes(1))
    return root


@pytest.fixture
def results(tmp_path: Path, youtube: Path) -> Path:
    """Perfect, save for object 2 of a, which is missed on one of its two scored frames."""
    folder = tmp_path / "results"
    shutil.copytree(youtube / "valid" / "Annotations", folder)
    save(folder / "a" / "00015.png", boxes(1))
    return folder


def run(results: Path, youtube: Path, *more: object) -> int:
    paths = ["--results_path", str(results), "--yv_path", str(youtube)]
    return main([*paths, *map(str, more)])


def failure(capsys: pytest.CaptureFixture[str], results: Path, youtube: Path, *more: object) -> str:
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
    found = json.loads((tmp_path / "scores.json").read_text())
    # Three objects: the cat 1, the yaks 0.5 and 1.
    assert found["global"]["J&F-Mean"] == pytest.approx(5 / 6)
    assert found["categories"]["unseen"]["F-Mean"] == 0.75
    assert found["categories"]["G"]["J&F-Mean"] == 0.875
    seen = {name: item["is_seen"] for name, item in found["objects"].items()}
    assert seen == {"a_1": True, "a_2": False, "b_1": False}
    assert found["objects"]["a_2"]["frames"]["J"] == [None, 1, 0]
    with (results / "all_results-valid.csv").open(newline="") as file:
        names = [row["Sequence"] for row in csv.DictReader(file)]
    assert names == ["a_1", "a_2", "b_1", "a", "b", "global", "seen", "unseen", "G"]
    assert [path.name for path in results.glob("*.csv")] == ["all_results-valid.csv"]


def test_g_of_seen_categories_alone(
    results: Path, youtube: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_meta(tmp_path / "own", {"t": {"1": described("cat"), "2": described("yak")}})
    assert run(results, youtube, "--train_meta", tmp_path / "own" / "meta.json") == 0
    lines = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert ["seen", "0.833"] in lines
    assert ["G", "0.833"] in lines
    assert not [line for line in lines if line[:1] == ["unseen"]]


def test_the_resized_training_set_tells_categories_too(results: Path, youtube: Path) -> None:
    (youtube / "train").rename(youtube / "train_480p")
    assert run(results, youtube) == 0


def test_the_training_categories_are_missing(
    results: Path, youtube: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(youtube / "train")
    message = failure(capsys, results, youtube)
    assert f"is not {youtube / 'train' / 'meta.json'} or {youtube / 'train_480p'}" in message
    assert "give it with --train_meta" in message
    message = failure(capsys, results, youtube, "--train_meta", youtube / "other.json")
    assert f"is not {youtube / 'other.json'}: give it" in message


def test_a_public_set_cannot_be_scored(
    results: Path, youtube: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = youtube / "valid" / "Annotations"
    shutil.rmtree(youtube / "train")  # nobody shall look for it in vain
    for path in annotations.rglob("*.png"):
        if path.parent.name + path.stem not in ("a00000", "a00005", "b00000"):
            path.unlink()
    save(annotations / "a" / "00005.png", boxes(2))  # the public sets' way: the new object alone
    message = failure(capsys, results, youtube)
    assert f"Nothing in {annotations} can be scored" in message
    assert "scripts/make_submission.py" in message


def test_the_masks_of_eval_youtube_against_what_is_public(
    synthetic: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--yv_path", str(synthetic / "YouTube"), "--output", str(tmp_path / "out")]
    eval_flags = ["--model", str(tiny_weights), "--device", "cpu", "--size", "48"]
    assert eval_youtube.main([*flags, *eval_flags]) == 0
    assert run(tmp_path / "out", synthetic / "YouTube") == 2
    assert "as the public sets do" in capsys.readouterr().err


def test_a_video_with_given_masks_alone_is_left_out(
    results: Path, youtube: Path, tmp_path: Path
) -> None:
    for frame in FRAMES[1:]:
        (youtube / "valid" / "Annotations" / "b" / f"{frame}.png").unlink()
    assert run(results, youtube, "--json", tmp_path / "scores.json") == 0
    found = json.loads((tmp_path / "scores.json").read_text())
    assert [*found["sequences"]] == ["a"]
    assert "Sequence b is left out" in found["warnings"][0]


def test_objects_and_frames_are_those_of_meta_json(
    results: Path, youtube: Path, tmp_path: Path
) -> None:
    annotations = youtube / "valid" / "Annotations"
    save(annotations / "b" / "00007.png", boxes(1))  # not named, and not predicted
    save(annotations / "b" / "00010.png", boxes(1, 3))  # 3 is not named
    videos = {
        "a": {"1": described("cat"), "2": described("yak", 1)},
        "b": {"1": described("yak"), "4": described("cat")},  # 4 is not annotated
    }
    write_meta(youtube / "valid", videos)
    assert run(results, youtube, "--json", tmp_path / "scores.json") == 0
    found = json.loads((tmp_path / "scores.json").read_text())
    assert [*found["objects"]] == ["a_1", "a_2", "b_1"]
    assert found["frames"]["b"] == [*FRAMES[1:]]
    assert found["warnings"] == [
        "The labels [4] of b are left out: no annotated frame follows one that shows them."
    ]


def test_problems_are_listed_together(
    results: Path, youtube: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "a" / "00010.png").unlink()
    videos = {
        "a": {"1": described("cat"), "2": described("yak", 1)},
        "b": {"one": described("yak"), "2": {"frames": FRAMES}},
    }
    write_meta(youtube / "valid", videos)
    message = failure(capsys, results, youtube)
    assert f"{results / 'a' / '00010.png'} is missing." in message
    assert "names object one, 2 of video b, which has no category or no label from 1" in message


def test_splits(
    results: Path, youtube: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(youtube / "valid", youtube / "own")
    assert run(results, youtube, "--split", "own") == 0
    assert (results / "all_results-own.csv").is_file()
    capsys.readouterr()
    message = failure(capsys, results, youtube, "--split", "none")
    assert f"{youtube / 'none' / 'meta.json'} does not exist" in message


@pytest.mark.parametrize("flags", [["--year", "2017"], ["--image_path", "images"]])
def test_flags_that_do_nothing(
    results: Path, youtube: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"{flags[0]} does nothing with --yv_path" in failure(capsys, results, youtube, *flags)


@pytest.mark.parametrize("place", ["valid/JPEGImages", "all_frames/valid_all_frames/JPEGImages"])
def test_figures_find_the_images(
    results: Path, youtube: Path, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for video in "ab":
        for frame in FRAMES:
            path = youtube / place / video / f"{frame}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", SIZE[::-1], (90, 120, 60)).save(path)
    assert run(results, youtube, "--figures", tmp_path / "figures") == 0
    written = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert written == ["a.png", "b.png", "worst.png"]
    sheet = np.array(Image.open(tmp_path / "figures" / "worst.png"))
    assert (np.abs(sheet[26:40, 2:310].astype(int) - [90, 120, 60]) < 5).all()
    shutil.rmtree(youtube / place)
    assert run(results, youtube, "--figures", tmp_path / "figures") == 0  # on grey
