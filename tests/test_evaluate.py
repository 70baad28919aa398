from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.protocols import select_davis
from evaluation.report import Scores
from evaluation.scoring import score
from scripts.benchmarks import bench_scores
from scripts.evaluate import main

SHARED = Path(__file__).resolve().parents[2] / "shared"
NUM_FRAMES = 5
SIZE = (20, 30)


def save(path: Path, labels: np.ndarray, palette: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8))
    if palette:
        image.putpalette(list(range(256)) * 3)  # of a shorter one Pillow keeps fewer bits
    image.save(path)


def annotation(*labels: int) -> np.ndarray:
    """A 6x6 box for each label, side by side."""
    result = np.zeros(SIZE, dtype=np.uint8)
    for index, label in enumerate(labels):
        result[5:11, 2 + 8 * index : 8 + 8 * index] = label
    return result


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """DAVIS 2017 with the sequences cat (objects 1 and 2) and dog (object 1), 5 frames each."""
    root = tmp_path / "davis"
    listing = root / "trainval" / "ImageSets" / "2017" / "val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("cat\ndog\n\n")
    for frame in range(NUM_FRAMES):
        for name, labels in (("cat", (1, 2)), ("dog", (1,))):
            path = root / "trainval" / "Annotations" / "480p" / name / f"{frame:05d}.png"
            save(path, annotation(*labels))
    return root


@pytest.fixture
def results(tmp_path: Path, davis: Path) -> Path:
    """Perfect predictions."""
    folder = tmp_path / "results"
    shutil.copytree(davis / "trainval" / "Annotations" / "480p", folder)
    return folder


def evaluate_davis(results: Path, davis: Path, year: int = 2017, num_workers: int = 1) -> Scores:
    return score(select_davis(results, davis, year), num_workers)


def run(results: Path, davis: Path, *more: str) -> int:
    return main(["--results_path", str(results), "--davis_path", str(davis), *more])


def failure(capsys: pytest.CaptureFixture[str], results: Path, davis: Path, *more: str) -> str:
    assert run(results, davis, *more) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err[captured.err.index("error: ") :]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("root", ["", "trainval"])
def test_perfect_predictions_score_one(results: Path, davis: Path, root: str) -> None:
    scores = evaluate_davis(results, davis / root)
    assert [score.name for score in scores.objects] == ["cat_1", "cat_2", "dog_1"]
    assert scores.overall.mean == scores.overall.region.recall == 1
    assert scores.overall.region.decay == scores.overall.boundary.decay == 0
    assert scores.warnings == ()


def test_first_and_last_frame_are_not_scored(results: Path, davis: Path) -> None:
    save(results / "cat" / "00000.png", annotation())
    (results / "cat" / "00004.png").unlink()
    assert evaluate_davis(results, davis).overall.mean == 1


def test_global_figures_weigh_objects_not_sequences(results: Path, davis: Path) -> None:
    for frame in (1, 2, 3):
        save(results / "dog" / f"{frame:05d}.png", annotation())
    # One of three scored frames of cat's second object is missed, as the whole dog is.
    save(results / "cat" / "00003.png", annotation(1))
    scores = evaluate_davis(results, davis)
    assert [score.region.mean for score in scores.objects] == pytest.approx([1, 2 / 3, 0])
    assert scores.overall.region.mean == pytest.approx(5 / 9)
    assert scores.overall.mean == pytest.approx(5 / 9)
    means = {name: score.boundary.mean for name, score in scores.sequences.items()}
    assert means == pytest.approx({"cat": 5 / 6, "dog": 0})
    # Of three frames the decay's first bin holds 0 and 1, the last only 2.
    assert scores.objects[1].region.decay == 1


def test_void_is_no_object_and_unknown_labels_are_ignored(results: Path, davis: Path) -> None:
    void = annotation(1)
    void[15:, :] = 255
    for frame in range(NUM_FRAMES):
        save(davis / "trainval" / "Annotations" / "480p" / "dog" / f"{frame:05d}.png", void)
        save(results / "dog" / f"{frame:05d}.png", annotation(1, 7))
    scores = evaluate_davis(results, davis)
    assert [score.name for score in scores.objects] == ["cat_1", "cat_2", "dog_1"]
    assert scores.overall.mean == 1
    assert scores.warnings == ()


def test_predictions_on_void_pixels_count_as_wrong(results: Path, davis: Path) -> None:
    # As officially: void is background in the truth and the prediction stays as it is.
    for frame in range(NUM_FRAMES):
        ground_truth = annotation(1)
        ground_truth[5:11, 8:14] = 255
        save(davis / "trainval" / "Annotations" / "480p" / "dog" / f"{frame:05d}.png", ground_truth)
        save(results / "dog" / f"{frame:05d}.png", np.where(ground_truth > 0, 1, 0))
    assert evaluate_davis(results, davis).sequences["dog"].region.mean == 0.5


def test_only_unknown_labels_warn(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for frame in range(NUM_FRAMES):
        save(results / "dog" / f"{frame:05d}.png", annotation(38), palette=False)
    assert run(results, davis) == 0
    error = capsys.readouterr().err
    assert "warning: The predictions of dog" in error
    assert "only the labels [38], none of the annotation's [1]" in error


def test_report_and_csv_files(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(results / "cat" / "00003.png", annotation(1))
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


def test_csv_at_another_place_leaves_the_results_folder_alone(
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


def test_results_folder_missing(davis: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = failure(capsys, davis / "nowhere", davis)
    assert f"The results folder {davis / 'nowhere'} does not exist" in message


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (["--split", "test"], "there is no split test of DAVIS 2017: choose from train, val"),
        (["--split", "train"], "trainval/ImageSets/2017/train.txt does not exist"),
        (["--year", "2016"], "DAVIS 2016 is not in"),
    ],
)
def test_list_of_sequences_missing(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str], more: list[str], wanted: str
) -> None:
    assert wanted in failure(capsys, results, davis, *more)


def test_all_problems_are_listed_before_anything_is_scored(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(results / "dog")
    (results / "cat" / "00001.png").unlink()
    (results / "cat" / "00002.png").write_bytes(b"no image")
    save(results / "cat" / "00003.png", np.zeros((10, 15)))
    message = failure(capsys, results, davis)
    cat = results / "cat"
    assert f"{cat / '00001.png'} is missing." in message
    assert f"{cat / '00002.png'} is not a readable image." in message
    assert f"{cat / '00003.png'} is 15x10 pixels, its annotation 30x20; --resize" in message
    assert f"{results / 'dog'} is missing: there are no predictions" in message


def test_many_faults_of_one_kind_take_one_line(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for frame in (1, 2, 3):
        (results / "cat" / f"{frame:05d}.png").unlink()
    message = failure(capsys, results, davis)
    assert f"{results / 'cat' / '00001.png'} is missing (and 2 more frames" in message
    assert "00002.png" not in message


def test_ten_problems_are_listed_and_the_rest_counted(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"cat{index:02d}" for index in range(12)]
    (davis / "trainval" / "ImageSets" / "2017" / "val.txt").write_text("\n".join(names))
    message = failure(capsys, results, davis)
    assert "cat09 holds 0 annotated frames" in message
    assert "cat10" not in message
    assert "and 2 more" in message


def test_sequence_too_short_to_score(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = davis / "trainval" / "Annotations" / "480p" / "cat"
    for frame in (2, 3, 4):
        (folder / f"{frame:05d}.png").unlink()
    assert f"{folder} holds 2 annotated frames" in failure(capsys, results, davis)


def test_damaged_mask_is_named(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = results / "cat" / "00002.png"
    path.write_bytes(path.read_bytes()[:-30])
    assert f"The mask {path} cannot be read" in failure(capsys, results, davis)


def test_colour_mask_is_refused(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = results / "cat" / "00002.png"
    with Image.open(path) as image:
        image.convert("RGB").save(path)
    message = failure(capsys, results, davis)
    assert f"The mask {path} is not scored, since its pixels are RGB" in message


def test_first_annotation_without_object(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = davis / "trainval" / "Annotations" / "480p" / "dog" / "00000.png"
    save(path, annotation(255))
    assert f"The annotation {path} holds no object" in failure(capsys, results, davis)


def test_csv_that_cannot_be_written(
    results: Path, davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "scores.csv"
    assert run(results, davis, "--csv", str(target)) == 2
    captured = capsys.readouterr()
    assert "global" in captured.out  # the scores are not lost
    assert f"error: The scores cannot be written to {target}" in captured.err


def test_resized_predictions_warn(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for frame in (1, 2):
        save(results / "cat" / f"{frame:05d}.png", annotation(1, 2).repeat(2, 0).repeat(2, 1))
    assert run(results, davis, "--resize") == 0
    captured = capsys.readouterr()
    assert "warning: The predictions of cat are resized" in captured.err
    assert "2 frames from 60x40 to 30x20 pixels" in captured.err
    rows = [line.split() for line in captured.out.splitlines()]
    assert [row[1] for row in rows if row[:1] == ["global"]] == ["1.000"]


def test_an_object_that_no_prediction_shows_is_named(
    results: Path, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for frame in range(NUM_FRAMES):
        save(results / "cat" / f"{frame:05d}.png", annotation(1))
    assert run(results, davis) == 0
    assert f"cat in {results / 'cat'} never show the labels [2]" in capsys.readouterr().err


@pytest.fixture
def davis_2016(tmp_path: Path) -> Path:
    """DAVIS 2016 with the sequence cow, 5 grey frames, the last scored one in colour."""
    root = tmp_path / "davis_2016"
    listing = root / "2017" / "trainval" / "ImageSets" / "2016" / "val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("cow\n")
    for frame in range(NUM_FRAMES):
        path = root / "2016" / "Annotations" / "480p" / "cow" / f"{frame:05d}.png"
        ground_truth = annotation(255)
        ground_truth[0, :] = 100  # not above 127: background
        save(
            path,
            np.stack([ground_truth] * 4, axis=-1) if frame == 3 else ground_truth,
            palette=False,
        )
    return root


@pytest.mark.parametrize(
    ("labels", "palette"), [((1,), True), ((255,), True), ((255,), False), ((1,), False)]
)
def test_2016_takes_whatever_is_not_background(
    tmp_path: Path, davis_2016: Path, labels: tuple[int, ...], palette: bool
) -> None:
    for frame in range(NUM_FRAMES):
        save(tmp_path / "out" / "cow" / f"{frame:05d}.png", annotation(*labels), palette)
    scores = evaluate_davis(tmp_path / "out", davis_2016, year=2016)
    assert [score.name for score in scores.objects] == ["cow_1"]
    assert scores.overall.mean == 1


def test_2016_joins_labels_and_warns_of_nothing(tmp_path: Path, davis_2016: Path) -> None:
    for frame in range(NUM_FRAMES):
        save(tmp_path / "out" / "cow" / f"{frame:05d}.png", annotation(1, 2))
    scores = evaluate_davis(tmp_path / "out", davis_2016, year=2016)
    assert scores.overall.region.mean == 0.5
    assert scores.warnings == ()


def test_2016_refuses_soft_masks(
    tmp_path: Path, davis_2016: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soft = annotation(255)
    soft[4, :] = 90
    for frame in range(NUM_FRAMES):
        save(tmp_path / "out" / "cow" / f"{frame:05d}.png", soft, palette=False)
    message = failure(capsys, tmp_path / "out", davis_2016, "--year", "2016")
    path = tmp_path / "out" / "cow" / "00001.png"
    assert f"The mask {path} holds values on both sides of 127" in message


def test_reference_figures_on_real_data(capsys: pytest.CaptureFixture[str]) -> None:
    """The official code's figures for predicting each frame by the annotation 3 frames before."""
    reference = SHARED / "reference" / "davis_metrics.json"
    data = SHARED / "data" / "DAVIS"
    if not reference.is_file() or not data.is_dir():
        pytest.skip("needs ../shared, the reference figures and their data")
    flags = ["--davis_path", str(data), "--expected", str(reference), "--repeats", "1"]
    assert bench_scores.main(flags) == 0, capsys.readouterr()


def test_more_processes_give_the_same(
    results: Path, davis: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.scoring.MANY_FRAMES", 0)
    save(results / "cat" / "00002.png", annotation(2, 1))
    one, two = (evaluate_davis(results, davis, num_workers=n) for n in (1, 2))
    assert one.objects == two.objects
    assert one.frames == two.frames
    for name, curves in one.curves.items():
        assert np.array_equal(curves, two.curves[name])


def test_json_holds_every_frame_and_the_run(
    results: Path, davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(results / "cat" / "00002.png", annotation(2, 1))
    (results / "run.json").write_text(json.dumps({"runs": [{"settings": {"top": 3}}]}))
    assert run(results, davis, "--json", str(tmp_path / "scores.json")) == 0
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["run"]["settings"] == {"top": 3}
    assert [*found["sequences"]] == ["cat", "dog"]  # the worst first
    assert found["frames"]["cat"] == ["00001", "00002", "00003"]
    assert found["objects"]["cat_1"]["frames"]["J"] == [1, 0, 1]
    assert found["global"]["J&F-Mean"] == pytest.approx(evaluate_davis(results, davis).overall.mean)
    (results / "run.json").unlink()
    assert run(results, davis, "--json", str(tmp_path / "scores.json")) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["run"] is None


def test_figures(
    results: Path, davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(results, davis, "--figures", str(tmp_path / "figures")) == 2
    assert "lacks frame 00001, which --figures draws on" in capsys.readouterr().err
    for path in sorted((davis / "trainval" / "Annotations" / "480p").rglob("*.png")):
        frame = Path(str(path).replace("Annotations", "JPEGImages")).with_suffix(".jpg")
        frame.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1], (90, 120, 60)).save(frame)
    save(results / "cat" / "00002.png", annotation(2, 1))
    assert run(results, davis, "--figures", str(tmp_path / "figures")) == 0
    written = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert written == ["cat.png", "dog.png", "worst.png"]
    sheet = np.array(Image.open(tmp_path / "figures" / "worst.png"))
    assert sheet.shape[1] == 4 * 320
    # The first tile is the frame where the objects are swapped: prediction and truth differ.
    height = round(320 * SIZE[0] / SIZE[1])
    first, second = sheet[22 : 22 + height, :320], sheet[22 + height : 22 + 2 * height, :320]
    assert (first != second).any()
    other = sheet[22 : 22 + height, 320:640], sheet[22 + height : 22 + 2 * height, 320:640]
    assert np.array_equal(*other)
