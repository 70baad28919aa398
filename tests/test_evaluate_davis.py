"""Scores of DAVIS 2016 and 2017: the official protocol, and the files that are written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.protocols import select_davis
from evaluation.report import Scores
from evaluation.scoring import score
from scripts.benchmarks import bench_scores
from tests.davis_example import (
    ANNOTATIONS,
    NUM_FRAMES,
    SIZE,
    draw_boxes,
    fail,
    run,
    save_mask,
    write_davis,
    write_perfect_results,
)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    return write_davis(tmp_path / "davis")


@pytest.fixture
def results(tmp_path: Path, davis: Path) -> Path:
    return write_perfect_results(tmp_path / "results", davis)


def score_davis(results: Path, davis: Path, year: int = 2017, num_workers: int = 1) -> Scores:
    return score(select_davis(results, davis, year), num_workers)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("root", ["", "trainval"])
def test_perfect_predictions_score_one(results: Path, davis: Path, root: str) -> None:
    scores = score_davis(results, davis / root)
    assert [score.name for score in scores.objects] == ["cat_1", "cat_2", "dog_1"]
    assert scores.overall.mean == scores.overall.region.recall == 1
    assert scores.overall.region.decay == scores.overall.boundary.decay == 0
    assert scores.warnings == ()


def test_first_and_last_frame_are_not_scored(results: Path, davis: Path) -> None:
    save_mask(results / "cat" / "00000.png", draw_boxes())
    (results / "cat" / "00004.png").unlink()
    assert score_davis(results, davis).overall.mean == 1


def test_overall_scores_average_objects_not_sequences(results: Path, davis: Path) -> None:
    for frame in (1, 2, 3):
        save_mask(results / "dog" / f"{frame:05d}.png", draw_boxes())
    # The dog is missed on all scored frames, the second object of cat on one of three.
    save_mask(results / "cat" / "00003.png", draw_boxes(1))
    scores = score_davis(results, davis)
    assert [score.region.mean for score in scores.objects] == pytest.approx([1, 2 / 3, 0])
    assert scores.overall.region.mean == pytest.approx(5 / 9)
    assert scores.overall.mean == pytest.approx(5 / 9)
    means = {name: score.boundary.mean for name, score in scores.sequences.items()}
    assert means == pytest.approx({"cat": 5 / 6, "dog": 0})
    # With three frames, the first bin of the decay has frames 0 and 1, the last only frame 2.
    assert scores.objects[1].region.decay == 1


def test_void_is_no_object_and_unknown_labels_are_ignored(results: Path, davis: Path) -> None:
    void = draw_boxes(1)
    void[15:, :] = 255
    for frame in range(NUM_FRAMES):
        save_mask(davis / ANNOTATIONS / "dog" / f"{frame:05d}.png", void)
        save_mask(results / "dog" / f"{frame:05d}.png", draw_boxes(1, 7))
    scores = score_davis(results, davis)
    assert [score.name for score in scores.objects] == ["cat_1", "cat_2", "dog_1"]
    assert scores.overall.mean == 1
    (warning,) = scores.warnings
    assert f"{results / 'dog'} contain the labels [7], which the ground truth does not" in warning


def test_predictions_on_void_pixels_count_as_wrong(results: Path, davis: Path) -> None:
    # As in the official code: void is background in the ground truth only.
    for frame in range(NUM_FRAMES):
        ground_truth = draw_boxes(1)
        ground_truth[5:11, 8:14] = 255
        save_mask(davis / ANNOTATIONS / "dog" / f"{frame:05d}.png", ground_truth)
        save_mask(results / "dog" / f"{frame:05d}.png", np.where(ground_truth > 0, 1, 0))
    assert score_davis(results, davis).sequences["dog"].region.mean == 0.5


def test_report_and_csv_files(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_mask(results / "cat" / "00003.png", draw_boxes(1))
    assert run(results, davis) == 0
    output = capsys.readouterr().out
    rows = [line.split() for line in output.splitlines()]
    assert ["cat_2", "0.667", "0.667", "0.667", "1.000", "0.667", "0.667", "1.000"] in rows
    assert ["cat", "0.833", "0.833", "0.833", "0.500", "0.833", "0.833", "0.500"] in rows
    assert ["global", "0.889", "0.889", "0.889", "0.333", "0.889", "0.889", "0.333"] in rows
    (overall,) = read_csv(results / "global_results-val.csv")
    assert list(overall) == [
        *("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
    ]
    assert float(overall["J&F-Mean"]) == pytest.approx(8 / 9, abs=1e-6)
    objects = read_csv(results / "per-sequence_results-val.csv")
    assert list(objects[0])[:3] == ["Sequence", "J-Mean", "F-Mean"]
    assert [row["Sequence"] for row in objects] == ["cat_1", "cat_2", "dog_1"]
    assert float(objects[1]["J-Decay"]) == 1


def test_csv_option_writes_nothing_to_the_results_folder(
    results: Path, davis: Path, tmp_path: Path
) -> None:
    before = sorted(results.rglob("*"))
    target = tmp_path / "scores" / "run.csv"
    assert run(results, davis, "--csv", str(target)) == 0
    assert [row["Sequence"] for row in read_csv(target)] == [
        *("cat_1", "cat_2", "dog_1"),
        *("cat", "dog", "global"),
    ]
    assert sorted(results.rglob("*")) == before


@pytest.fixture
def davis_2016(tmp_path: Path) -> Path:
    """DAVIS 2016 with the sequence cow: 5 grey masks, but the last scored one is in colour."""
    root = tmp_path / "davis_2016"
    listing = root / "2017" / "trainval" / "ImageSets" / "2016" / "val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("cow\n")
    for frame in range(NUM_FRAMES):
        path = root / "2016" / "Annotations" / "480p" / "cow" / f"{frame:05d}.png"
        ground_truth = draw_boxes(255)
        ground_truth[0, :] = 100  # not above 127: background
        if frame == 3:
            ground_truth = np.stack([ground_truth] * 4, axis=-1)
        save_mask(path, ground_truth, palette=False)
    return root


@pytest.mark.parametrize(
    ("labels", "palette"), [((1,), True), ((255,), True), ((255,), False), ((1,), False)]
)
def test_2016_scores_any_label_as_the_object(
    tmp_path: Path, davis_2016: Path, labels: tuple[int, ...], palette: bool
) -> None:
    for frame in range(NUM_FRAMES):
        save_mask(tmp_path / "out" / "cow" / f"{frame:05d}.png", draw_boxes(*labels), palette)
    scores = score_davis(tmp_path / "out", davis_2016, year=2016)
    assert [score.name for score in scores.objects] == ["cow_1"]
    assert scores.overall.mean == 1


def test_2016_merges_several_labels_without_a_warning(tmp_path: Path, davis_2016: Path) -> None:
    for frame in range(NUM_FRAMES):
        save_mask(tmp_path / "out" / "cow" / f"{frame:05d}.png", draw_boxes(1, 2))
    scores = score_davis(tmp_path / "out", davis_2016, year=2016)
    assert scores.overall.region.mean == 0.5
    assert scores.warnings == ()


def test_2016_refuses_soft_masks(
    tmp_path: Path, davis_2016: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soft = draw_boxes(255)
    soft[4, :] = 90
    for frame in range(NUM_FRAMES):
        save_mask(tmp_path / "out" / "cow" / f"{frame:05d}.png", soft, palette=False)
    message = fail(capsys, tmp_path / "out", davis_2016, "--year", "2016")
    path = tmp_path / "out" / "cow" / "00001.png"
    assert f"The mask {path} has values on both sides of 127" in message


def test_reference_scores_on_real_data(capsys: pytest.CaptureFixture[str]) -> None:
    """The official code's scores of predictions that are the ground truth of 3 frames before."""
    reference = SHARED / "reference" / "davis_metrics.json"
    data = SHARED / "data" / "DAVIS"
    if not reference.is_file() or not data.is_dir():
        pytest.skip("needs ../shared: the reference scores and their data")
    flags = ["--davis_path", str(data), "--expected", str(reference), "--repeats", "1"]
    assert bench_scores.main(flags) == 0, capsys.readouterr()


def test_several_processes_give_equal_scores(
    results: Path, davis: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.scoring.MIN_FRAMES_FOR_PROCESSES", 0)
    save_mask(results / "cat" / "00002.png", draw_boxes(2, 1))
    one, two = (score_davis(results, davis, num_workers=n) for n in (1, 2))
    assert one.objects == two.objects
    assert one.frames == two.frames
    for name, curves in one.curves.items():
        assert np.array_equal(curves, two.curves[name])


def test_json_has_every_frame_and_the_run(
    results: Path, davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_mask(results / "cat" / "00002.png", draw_boxes(2, 1))
    (results / "run.json").write_text(json.dumps({"runs": [{"settings": {"top": 3}}]}))
    assert run(results, davis, "--json", str(tmp_path / "scores.json")) == 0
    content = json.loads((tmp_path / "scores.json").read_text())
    assert content["run"]["settings"] == {"top": 3}
    assert [*content["sequences"]] == ["cat", "dog"]  # lowest J&F first
    assert content["frames"]["cat"] == ["00001", "00002", "00003"]
    assert content["objects"]["cat_1"]["frames"]["J"] == [1, 0, 1]
    mean = score_davis(results, davis).overall.mean
    assert content["global"]["J&F-Mean"] == pytest.approx(mean)
    (results / "run.json").unlink()
    assert run(results, davis, "--json", str(tmp_path / "scores.json")) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["run"] is None


def test_figures(
    results: Path, davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(results, davis, "--figures", str(tmp_path / "figures")) == 2
    assert "has no image of frame 00001: --figures needs" in capsys.readouterr().err
    for path in sorted((davis / ANNOTATIONS).rglob("*.png")):
        frame = Path(str(path).replace("Annotations", "JPEGImages")).with_suffix(".jpg")
        frame.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1], (90, 120, 60)).save(frame)
    save_mask(results / "cat" / "00002.png", draw_boxes(2, 1))
    assert run(results, davis, "--figures", str(tmp_path / "figures")) == 0
    written = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert written == ["cat.png", "dog.png", "worst.png"]
    sheet = np.array(Image.open(tmp_path / "figures" / "worst.png"))
    assert sheet.shape[1] == 22 + 4 * 320
    height = round(320 * SIZE[0] / SIZE[1])
    assert all((sheet[22 + at : 22 + at + height, :22] < 99).any() for at in (0, height))  # names
    sheet = sheet[:, 22:]
    # The objects are swapped in the first tile: prediction and ground truth differ.
    first, second = sheet[22 : 22 + height, :320], sheet[22 + height : 22 + 2 * height, :320]
    assert (first != second).any()
    other = sheet[22 : 22 + height, 320:640], sheet[22 + height : 22 + 2 * height, 320:640]
    assert np.array_equal(*other)
