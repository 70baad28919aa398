"""eval_generic.py: directions, corrections, statistics; saved and merged probabilities."""

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

# The masks of an untrained network are empty or cover the whole frame.
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


def read_maps(folder: Path) -> list[np.ndarray]:
    """Label maps of a video, in order."""
    return [np.array(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def copy_masks(folder: Path, ground_truth: Path, *indices: int) -> Path:
    """Copy the ground truth of some frames into a new folder."""
    folder.mkdir()
    for index in indices:
        name = f"{index:05d}.png"
        (folder / name).write_bytes((ground_truth / name).read_bytes())
    return folder


def test_later_masks_of_a_video_are_corrections(
    tmp_path: Path, frames: Path, ground_truth: Path, tiny_weights: Path
) -> None:
    masks = copy_masks(tmp_path / "masks", ground_truth, 0, 5)
    code = segment(tiny_weights, tmp_path / "out", "--video", frames, "--mask", masks)
    first = segment(
        tiny_weights, tmp_path / "first", "--video", frames, "--mask", ground_truth / "00000.png"
    )
    assert code == first == 0
    corrected, plain = read_maps(tmp_path / "out/val-000"), read_maps(tmp_path / "first/val-000")
    np.testing.assert_array_equal(corrected[5], np.array(Image.open(ground_truth / "00005.png")))
    for index in range(5):
        np.testing.assert_array_equal(corrected[index], plain[index])
    assert (corrected[5] != plain[5]).any()


def test_backwards_writes_all_frames_and_an_ordered_overlay(
    tmp_path: Path, frames: Path, ground_truth: Path
) -> None:
    annotation = copy_masks(tmp_path / "masks", ground_truth, NUM_FRAMES - 1)
    out = tmp_path / "out"
    flags = ["--video", frames, "--mask", annotation, "--direction", "backwards", "--overlay"]
    assert segment(TRAINED, out, *flags) == 0
    masks = read_maps(out / "val-000")
    assert len(masks) == NUM_FRAMES
    np.testing.assert_array_equal(masks[-1], np.array(Image.open(ground_truth / "00010.png")))
    assert any(labels.any() for labels in masks[:-1])
    video = cv2.VideoCapture(str(next(out.glob("val-000.[ma]*"))))
    drawn = []
    while (read := video.read())[0]:
        drawn.append(read[1])
    assert len(drawn) == NUM_FRAMES
    images = [cv2.imread(str(path)) for path in sorted(frames.iterdir())]
    background = [labels == 0 for labels in masks]
    errors = [
        [np.abs(d.astype(int) - i)[b].mean() for i, b in zip(images, background, strict=True)]
        for d in drawn
    ]
    nearest = np.array([int(np.argmin(row)) for row in errors])
    assert np.abs(nearest - np.arange(NUM_FRAMES)).max() <= 1  # the codec blurs neighbours


def test_both_ways_uses_the_masks_at_both_ends(
    tmp_path: Path, frames: Path, ground_truth: Path, tiny_weights: Path
) -> None:
    root = tmp_path / "data"
    (root / "JPEGImages").mkdir(parents=True)
    (root / "JPEGImages" / "clip").symlink_to(frames)
    (root / "Annotations").mkdir()
    copy_masks(root / "Annotations" / "clip", ground_truth, 0, NUM_FRAMES - 1)
    out = tmp_path / "out"
    assert segment(tiny_weights, out, "--data_path", root, "--direction", "both") == 0
    both = read_maps(out / "clip")
    for index in (0, -1):
        expected = np.array(Image.open(sorted(ground_truth.iterdir())[index]))
        np.testing.assert_array_equal(both[index], expected)
    assert not [*out.rglob("*.npz")], "the temporary files must be deleted"
    assert segment(tiny_weights, tmp_path / "forwards", "--data_path", root) == 0
    # Forwards, later masks only add new objects.
    assert (read_maps(tmp_path / "forwards/clip")[-1] != both[-1]).any()
    # The same output folder refuses another direction.
    assert segment(tiny_weights, out, "--data_path", root) == 2


def test_statistics_match_the_masks(
    tmp_path: Path,
    frames: Path,
    ground_truth: Path,
    tiny_weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mask = ground_truth / "00000.png"
    assert segment(tiny_weights, tmp_path / "out", "--video", frames, "--mask", mask) == 0
    printed = capsys.readouterr().out
    masks = read_maps(tmp_path / "out/val-000")
    with (tmp_path / "out/val-000.csv").open() as file:
        rows = {int(row["object"]): row for row in csv.DictReader(file)}
    assert sorted(rows) == [1, 2]
    for label, row in rows.items():
        areas = [int((labels == label).sum()) for labels in masks]
        indices = [index for index, area in enumerate(areas) if area]
        assert int(row["frames_seen"]) == len(indices)
        assert row["first_frame"] == f"{indices[0]:05d}"
        assert row["last_frame"] == f"{indices[-1]:05d}"
        assert float(row["mean_area"]) == pytest.approx(sum(areas) / len(indices), abs=0.06)
        assert int(row["largest_area"]) == max(areas)
        assert row["mean_quality"] == ""  # stcn predicts no quality
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
    frame = read_probabilities(plain / "val-000" / PROBABILITIES / "00003.npz")
    assert frame.labels == [1, 2]
    assert frame.prob.shape == (3, *SIZE)
    assert np.abs(frame.prob.astype(int).sum(0) - 255).max() <= 2

    def merge(*flags: object) -> int:
        return merge_probabilities.main([*map(str, flags)])

    assert merge("--results_path", plain, plain, "--output", tmp_path / "same") == 0
    for labels, expected in zip(
        read_maps(tmp_path / "same/val-001"), read_maps(plain / "val-001"), strict=True
    ):
        assert (labels == expected).mean() > 0.98  # probabilities are rounded to 1/255
    both = ["--results_path", plain, flipped]
    assert merge(*both, "--output", tmp_path / "one", "--weights", 1, 0) == 0
    for labels, expected in zip(
        read_maps(tmp_path / "one/val-001"), read_maps(plain / "val-001"), strict=True
    ):
        assert (labels == expected).mean() > 0.98
    assert merge(*both, "--output", tmp_path / "mean") == 0
    merged = read_maps(tmp_path / "mean/val-000")
    assert any((a != b).any() for a, b in zip(merged, read_maps(plain / "val-000"), strict=True))
    assert any((a != b).any() for a, b in zip(merged, read_maps(flipped / "val-000"), strict=True))
    assert Image.open(tmp_path / "mean/val-000/00001.png").mode == "P"

    # Refused
    capsys.readouterr()
    assert merge(*both, "--output", tmp_path / "mean") == 2
    assert "not empty" in capsys.readouterr().err
    assert merge(*both, "--output", tmp_path / "no", "--weights", 1) == 2
    assert "one weight per run" in capsys.readouterr().err
    bare = run("bare")
    assert merge("--results_path", plain, bare, "--output", tmp_path / "no") == 2
    assert "--save_probabilities" in capsys.readouterr().err
    (flipped / "val-001" / PROBABILITIES / "00004.npz").unlink()
    assert merge(*both, "--output", tmp_path / "no") == 2
    assert "frame 00004" in capsys.readouterr().err
    (flipped / "val-001" / PROBABILITIES / "00004.npz").write_bytes(b"no zip")
    assert merge(*both, "--output", tmp_path / "no") == 2
    assert "cannot be read as probabilities" in capsys.readouterr().err
    assert not [*tmp_path.glob("*no*")]
    # --save_probabilities segments a run without probabilities again.
    run("bare", "--save_probabilities")
    assert "segmented again" in capsys.readouterr().out.lower()


def test_directions_without_a_later_mask_are_refused(
    tmp_path: Path, frames: Path, ground_truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--video", frames, "--mask", ground_truth / "00000.png", "--direction"]
    for direction, reason in (("backwards", "only a mask of"), ("both", "belong to first frames")):
        assert segment(TRAINED, tmp_path / "out", *flags, direction) == 2
        assert reason in capsys.readouterr().err
    with pytest.raises(SystemExit):
        segment(TRAINED, tmp_path / "out", *flags[:4], "--data_path", tmp_path)
    assert "both name videos" in capsys.readouterr().err


def test_overlay_and_statistics_belong_to_the_masks(
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
    (out / "val-000.csv").unlink()  # written again below
    assert segment(tiny_weights, out, *flags, "--overlay") == 0
    assert (out / "val-000.csv").exists()
    mask.write_bytes((ground_truth / "00003.png").read_bytes())
    assert segment(tiny_weights, out, *flags) == 0
    assert not [*out.glob("val-000.[ma][pv]*")]  # it showed the earlier masks
    # Another video of the same name
    other = tmp_path / "other" / "val-000"
    other.mkdir(parents=True)
    for path in sorted(frames.iterdir())[:5]:
        (other / path.name).write_bytes(path.read_bytes())
    capsys.readouterr()
    assert segment(tiny_weights, out, "--video", other, "--mask", mask) == 2
    assert f"contains masks of {frames}, not of {other}" in capsys.readouterr().err
    assert len(read_maps(out / "val-000")) == NUM_FRAMES


def test_scales_multiply_the_size(
    tmp_path: Path, frames: Path, ground_truth: Path, tiny_weights: Path
) -> None:
    mask = ground_truth / "00000.png"
    flags = ["--video", frames, "--mask", mask, "--scales", "1", "1.5"]
    argv = ["--model", tiny_weights, "--device", "cpu", "--output", tmp_path / "out"]
    assert eval_generic.main([*map(str, [*argv, *flags, "--size", 32])]) == 0
    assert all(labels.shape == SIZE for labels in read_maps(tmp_path / "out/val-000"))


def test_a_mask_without_a_frame_is_refused(
    tmp_path: Path, frames: Path, tiny_weights: Path
) -> None:
    """Before anything is written."""
    mask = np.zeros(SIZE, np.uint8)
    mask[:9] = 1
    (tmp_path / "masks").mkdir()
    write_mask(tmp_path / "masks" / "00999.png", mask, DAVIS_PALETTE)
    flags = ["--video", frames, "--mask", tmp_path / "masks", "--direction", "both"]
    assert segment(tiny_weights, tmp_path / "out", *flags) == 2
    assert not (tmp_path / "out").exists()


def test_sizes_out_of_range_are_refused(
    tmp_path: Path, frames: Path, ground_truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--video", frames, "--mask", ground_truth / "00000.png", "--output", tmp_path / "out"]
    for size, reason in (("10", "at least 32"), ("-1", "at least 32"), ("1000000", "exceeds 8640")):
        with pytest.raises(SystemExit):
            eval_generic.main([*map(str, flags), "--size", size])
        assert reason in capsys.readouterr().err


def test_a_run_without_masks_does_not_block_its_folder(
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
    assert len(read_maps(tmp_path / "out" / "val-000")) == NUM_FRAMES
    assert segment(tiny_weights, tmp_path / "out", *flags, "--flip") == 2
