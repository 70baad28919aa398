"""eval_generic.py: directions, corrections, summaries; probabilities that are kept and merged."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import eval_davis
import eval_generic
from inference.probability_files import PROBABILITIES, read_probabilities
from inference.tracker import Tracker
from scripts import merge_probabilities
from util.masks import DAVIS_PALETTE, write_mask
from util.signals import INTERRUPTED

# An untrained network is sure of nothing, and its masks cover all or nothing.
TRAINED = Path(__file__).resolve().parents[1] / "saves" / "stcn_small.pth"
NUM_FRAMES, SIZE = 11, (48, 68)  # as tests/conftest.py makes them


@pytest.fixture
def frames(synthetic: Path) -> Path:
    return synthetic / "DAVIS" / "2017" / "trainval" / "JPEGImages" / "480p" / "val-000"


@pytest.fixture
def ground_truth(synthetic: Path) -> Path:
    return synthetic / "DAVIS" / "2017" / "trainval" / "Annotations" / "480p" / "val-000"


def segment(weights: Path, output: Path, *flags: object) -> int:
    argv = ["--model", weights, "--output", output, "--device", "cpu", "--size", 0, *flags]
    return eval_generic.main([*map(str, argv)])


def maps(folder: Path) -> list[np.ndarray]:
    return [np.array(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def given(folder: Path, ground_truth: Path, *indices: int) -> Path:
    folder.mkdir()
    for index in indices:
        name = f"{index:05d}.png"
        (folder / name).write_bytes((ground_truth / name).read_bytes())
    return folder


def test_later_masks_of_a_video_correct(
    tmp_path: Path, frames: Path, ground_truth: Path, tiny_weights: Path
) -> None:
    masks = given(tmp_path / "masks", ground_truth, 0, 5)
    code = segment(tiny_weights, tmp_path / "out", "--video", frames, "--mask", masks)
    first = segment(
        tiny_weights, tmp_path / "first", "--video", frames, "--mask", ground_truth / "00000.png"
    )
    assert code == first == 0
    corrected, plain = maps(tmp_path / "out/val-000"), maps(tmp_path / "first/val-000")
    np.testing.assert_array_equal(corrected[5], np.array(Image.open(ground_truth / "00005.png")))
    for index in range(5):
        np.testing.assert_array_equal(corrected[index], plain[index])
    assert (corrected[5] != plain[5]).any()


def test_backwards_writes_all_frames_and_an_overlay_in_order(
    tmp_path: Path, frames: Path, ground_truth: Path
) -> None:
    masks = given(tmp_path / "masks", ground_truth, NUM_FRAMES - 1)
    out = tmp_path / "out"
    flags = ["--video", frames, "--mask", masks, "--direction", "backwards", "--overlay"]
    assert segment(TRAINED, out, *flags) == 0
    found = maps(out / "val-000")
    assert len(found) == NUM_FRAMES
    np.testing.assert_array_equal(found[-1], np.array(Image.open(ground_truth / "00010.png")))
    assert any(labels.any() for labels in found[:-1])
    video = cv2.VideoCapture(str(next(out.glob("val-000.[ma]*"))))
    drawn = []
    while (read := video.read())[0]:
        drawn.append(read[1])
    assert len(drawn) == NUM_FRAMES
    images = [cv2.imread(str(path)) for path in sorted(frames.iterdir())]
    free = [labels == 0 for labels in found]
    errors = [
        [np.abs(d.astype(int) - i)[f].mean() for i, f in zip(images, free, strict=True)]
        for d in drawn
    ]
    nearest = np.array([int(np.argmin(row)) for row in errors])
    assert np.abs(nearest - np.arange(NUM_FRAMES)).max() <= 1  # the codec blurs neighbours


def test_both_ways_takes_the_masks_at_both_ends(
    tmp_path: Path, frames: Path, ground_truth: Path, tiny_weights: Path
) -> None:
    root = tmp_path / "data"
    (root / "JPEGImages").mkdir(parents=True)
    (root / "JPEGImages" / "clip").symlink_to(frames)
    (root / "Annotations").mkdir()
    given(root / "Annotations" / "clip", ground_truth, 0, NUM_FRAMES - 1)
    out = tmp_path / "out"
    assert segment(tiny_weights, out, "--data_path", root, "--direction", "both") == 0
    found = maps(out / "clip")
    for index in (0, -1):
        expected = np.array(Image.open(sorted(ground_truth.iterdir())[index]))
        np.testing.assert_array_equal(found[index], expected)
    assert not [*out.rglob("*.npz")]  # what the first pass left for the second one
    assert segment(tiny_weights, tmp_path / "on", "--data_path", root) == 0
    # Forwards, the layout's later masks are for new objects alone.
    assert (maps(tmp_path / "on/clip")[-1] != found[-1]).any()
    # Another direction is another run.
    assert segment(tiny_weights, out, "--data_path", root) == 2


def test_the_summary_counts_what_was_written(
    tmp_path: Path,
    frames: Path,
    ground_truth: Path,
    tiny_weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mask = ground_truth / "00000.png"
    assert segment(tiny_weights, tmp_path / "out", "--video", frames, "--mask", mask) == 0
    printed = capsys.readouterr().out
    found = maps(tmp_path / "out/val-000")
    with (tmp_path / "out/val-000.csv").open() as file:
        rows = {int(row["object"]): row for row in csv.DictReader(file)}
    assert sorted(rows) == [1, 2]
    for label, row in rows.items():
        areas = [int((labels == label).sum()) for labels in found]
        seen = [index for index, area in enumerate(areas) if area]
        assert int(row["frames_seen"]) == len(seen)
        assert row["first_frame"] == f"{seen[0]:05d}"
        assert row["last_frame"] == f"{seen[-1]:05d}"
        assert float(row["mean_area"]) == pytest.approx(sum(areas) / len(seen), abs=0.06)
        assert int(row["largest_area"]) == max(areas)
        assert row["mean_quality"] == ""  # stcn scores no masks
        assert row["first_frame"] in printed


def test_merged_probabilities(
    tmp_path: Path, synthetic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = synthetic / "DAVIS" / "2017"

    def run(name: str, *flags: str) -> Path:
        argv = ["--davis_path", data, "--model", TRAINED, "--output", tmp_path / name]
        assert eval_davis.main([*map(str, argv), "--device", "cpu", *flags]) == 0
        return tmp_path / name

    plain, flipped = (
        run("plain", "--save_probabilities"),
        run("flip", "--flip", "--save_probabilities"),
    )
    scores = read_probabilities(plain / "val-000" / PROBABILITIES / "00003.npz")
    assert scores.labels == [1, 2]
    assert scores.prob.shape == (3, *SIZE)
    assert np.abs(scores.prob.astype(int).sum(0) - 255).max() <= 2

    def merge(*flags: object) -> int:
        return merge_probabilities.main([*map(str, flags)])

    assert merge("--results_path", plain, plain, "--output", tmp_path / "same") == 0
    for ours, theirs in zip(maps(tmp_path / "same/val-001"), maps(plain / "val-001"), strict=True):
        assert (ours == theirs).mean() > 0.98  # of 1/255ths
    both = ["--results_path", plain, flipped]
    assert merge(*both, "--output", tmp_path / "one", "--weights", 1, 0) == 0
    for ours, theirs in zip(maps(tmp_path / "one/val-001"), maps(plain / "val-001"), strict=True):
        assert (ours == theirs).mean() > 0.98
    assert merge(*both, "--output", tmp_path / "mean") == 0
    merged = maps(tmp_path / "mean/val-000")
    assert any((a != b).any() for a, b in zip(merged, maps(plain / "val-000"), strict=True))
    assert any((a != b).any() for a, b in zip(merged, maps(flipped / "val-000"), strict=True))
    assert Image.open(tmp_path / "mean/val-000/00001.png").mode == "P"

    # What cannot be merged
    capsys.readouterr()
    assert merge(*both, "--output", tmp_path / "mean") == 2
    assert "not empty" in capsys.readouterr().err
    assert merge(*both, "--output", tmp_path / "no", "--weights", 1) == 2
    assert "one for each" in capsys.readouterr().err
    bare = run("bare")
    assert merge("--results_path", plain, bare, "--output", tmp_path / "no") == 2
    assert "--save_probabilities" in capsys.readouterr().err
    (flipped / "val-001" / PROBABILITIES / "00004.npz").unlink()
    assert merge(*both, "--output", tmp_path / "no") == 2
    assert "frame 00004" in capsys.readouterr().err
    (flipped / "val-001" / PROBABILITIES / "00004.npz").write_bytes(b"no zip")
    assert merge(*both, "--output", tmp_path / "no") == 2
    assert "no probabilities that can be read" in capsys.readouterr().err
    assert not [*tmp_path.glob("*no*")]
    # A run that lacks probabilities is done again where they are asked for.
    run("bare", "--save_probabilities")
    assert "segmented again" in capsys.readouterr().out.lower()


def test_a_run_of_before_these_settings_goes_on(
    tmp_path: Path, synthetic: Path, tiny_weights: Path
) -> None:
    """run.json of an older version has no --scales, which were 1 then."""
    argv = ["--davis_path", synthetic / "DAVIS" / "2017", "--model", tiny_weights]
    argv += ["--output", tmp_path / "out", "--device", "cpu"]
    assert eval_davis.main([*map(str, argv)]) == 0
    path = tmp_path / "out" / "run.json"
    path.write_text(path.read_text().replace('"scales"', '"unknown"'))
    assert eval_davis.main([*map(str, argv)]) == 0
    assert eval_davis.main([*map(str, argv), "--scales", "1", "1.5"]) == 2


def test_one_way_masks_go_one_way(
    tmp_path: Path, frames: Path, ground_truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--video", frames, "--mask", ground_truth / "00000.png", "--direction"]
    for direction, why in (("backwards", "nothing before"), ("both", "only one way")):
        assert segment(TRAINED, tmp_path / "out", *flags, direction) == 2
        assert why in capsys.readouterr().err
    with pytest.raises(SystemExit):
        segment(TRAINED, tmp_path / "out", *flags[:4], "--data_path", tmp_path)
    assert "two places" in capsys.readouterr().err


def test_what_is_beside_the_masks_is_of_the_masks(
    tmp_path: Path,
    frames: Path,
    ground_truth: Path,
    tiny_weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    mask = tmp_path / "mask.png"
    mask.write_bytes((ground_truth / "00000.png").read_bytes())
    flags = ["--video", frames, "--mask", mask]
    assert segment(tiny_weights, out, *flags, "--overlay") == 0
    assert [*out.glob("val-000.[ma][pv]*")]
    (out / "val-000.csv").unlink()  # is made again
    assert segment(tiny_weights, out, *flags, "--overlay") == 0
    assert (out / "val-000.csv").exists()
    mask.write_bytes((ground_truth / "00003.png").read_bytes())
    assert segment(tiny_weights, out, *flags) == 0
    assert not [*out.glob("val-000.[ma][pv]*")]  # it showed other masks
    # A video of the same name from another place
    other = tmp_path / "other" / "val-000"
    other.mkdir(parents=True)
    for path in sorted(frames.iterdir())[:5]:
        (other / path.name).write_bytes(path.read_bytes())
    capsys.readouterr()
    assert segment(tiny_weights, out, "--video", other, "--mask", mask) == 2
    assert "has the same name" in capsys.readouterr().err
    assert len(maps(out / "val-000")) == NUM_FRAMES


def test_scales_multiply_the_size(
    tmp_path: Path, frames: Path, ground_truth: Path, tiny_weights: Path
) -> None:
    mask = ground_truth / "00000.png"
    flags = ["--video", frames, "--mask", mask, "--scales", "1", "1.5"]
    argv = ["--model", tiny_weights, "--device", "cpu", "--output", tmp_path / "out"]
    assert eval_generic.main([*map(str, [*argv, *flags, "--size", 32])]) == 0
    assert all(labels.shape == SIZE for labels in maps(tmp_path / "out/val-000"))


def test_a_mask_far_away_is_no_correction(tmp_path: Path, frames: Path, tiny_weights: Path) -> None:
    """A mask that names no frame is refused before anything is written."""
    mask = np.zeros(SIZE, np.uint8)
    mask[:9] = 1
    (tmp_path / "masks").mkdir()
    write_mask(tmp_path / "masks" / "00999.png", mask, DAVIS_PALETTE)
    flags = ["--video", frames, "--mask", tmp_path / "masks", "--direction", "both"]
    assert segment(tiny_weights, tmp_path / "out", *flags) == 2
    assert not (tmp_path / "out").exists()


def test_sizes_that_make_no_sense(
    tmp_path: Path, frames: Path, ground_truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--video", frames, "--mask", ground_truth / "00000.png", "--output", tmp_path / "out"]
    for size, why in (("10", "at least 32"), ("-1", "at least 32"), ("1000000", "over 8640")):
        with pytest.raises(SystemExit):
            eval_generic.main([*map(str, flags), "--size", size])
        assert why in capsys.readouterr().err


def test_a_run_that_left_no_mask_stands_in_nobodys_way(
    tmp_path: Path,
    frames: Path,
    ground_truth: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = ["--video", frames, "--mask", ground_truth / "00000.png"]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "step", interrupt)
        assert segment(tiny_weights, tmp_path / "out", *flags, "--flip") == INTERRUPTED
    assert segment(tiny_weights, tmp_path / "out", *flags) == 0
    assert len(maps(tmp_path / "out" / "val-000")) == NUM_FRAMES
    assert segment(tiny_weights, tmp_path / "out", *flags, "--flip") == 2
