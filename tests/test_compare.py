"""scripts/compare.py: measured values, resumed comparisons, failures and refused entries."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import eval_davis
from evaluation.protocols import select_davis
from evaluation.scoring import score
from model.checkpoint import save_network
from model.methods import build_network
from model.network import NetworkSpec
from scripts import compare
from tests.conftest import NUM_FRAMES
from util.child_process import ChildFailed
from util.signals import INTERRUPTED

FLAGS = "--mem_every 2 --mem_capacity 3"
SECOND = "tiny_mem_every_2_mem_capacity_3"
FILES = ("compare.csv", "compare.json", "compare.md", "compare.png")


@pytest.fixture(scope="module")
def davis(synthetic: Path) -> Path:
    return synthetic / "DAVIS" / "2017"


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, davis: Path, tiny_weights: Path) -> Path:
    """Output of a comparison of two memory policies. Tests must copy it before changing it."""
    output = tmp_path_factory.mktemp("compared") / "out"
    assert run(davis, output, tiny_weights, f"{tiny_weights} {FLAGS}") == 0
    return output


@pytest.fixture
def output(compared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(compared, tmp_path / "out")


def run(davis: Path, output: Path, *entries: object, flags: str = "") -> int:
    argv = ["--models", *map(str, entries), "--davis_path", str(davis), "--output", str(output)]
    return compare.main([*argv, "--device", "cpu", *flags.split()])


def read(folder: Path, name: str = "compare.json") -> Any:
    return json.loads((folder / name).read_text())


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and modification times of all files in a folder and its subfolders."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in files
    }


def save_tiny(path: Path, scale: float) -> None:
    network = build_network(NetworkSpec("stcn", "tiny"))
    with torch.no_grad():
        for parameter in network.key_encoder.parameters():
            parameter.mul_(scale)
    save_network(path, network, {})


def test_rows(compared: Path, davis: Path, tiny_weights: Path, tmp_path: Path) -> None:
    first, second = read(compared)["rows"]
    assert [first["name"], second["name"]] == ["tiny", SECOND]
    assert [first["method"], second["method"]] == ["stcn", "stcn"]
    # The last of 11 frames is not stored. Stored are 0 and 5, or three of 0, 2, 4, 6 and 8.
    assert [first["largest_memory"], second["largest_memory"]] == [2, 3]
    assert [first["mean_memory"], second["mean_memory"]] == [2, 3]
    for row in (first, second):
        assert (row["num_videos"], row["num_frames"]) == (2, 2 * NUM_FRAMES)
        assert row["fps"] > row["fps_with_io"] > 0
        assert row["peak_mib"] >= row["loaded_mib"] > 50
        scores = score(select_davis(compared / row["name"] / "masks", davis)).overall
        assert row["jf"] == pytest.approx(scores.mean)
        assert row["region"] == pytest.approx(scores.region.mean)
        assert row["boundary"] == pytest.approx(scores.boundary.mean)
    argv = ["--model", str(tiny_weights), "--davis_path", str(davis), "--device", "cpu"]
    assert eval_davis.main([*argv, "--output", str(tmp_path), *FLAGS.split()]) == 0
    for path in sorted(tmp_path.glob("*/*.png")):
        mask = compared / SECOND / "masks" / path.relative_to(tmp_path)
        assert mask.read_bytes() == path.read_bytes()


def test_files(compared: Path) -> None:
    assert {path.name for path in compared.iterdir()} == {*FILES, ".lock", "tiny", SECOND}
    record = read(compared)
    lines = (compared / "compare.md").read_text().splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:6]] == [
        "name",
        "method",
        "J&F",
        "J",
        "F",
    ]
    for line, row in zip(lines[2:4], record["rows"], strict=True):
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        assert cells[0] == row["name"]
        assert cells[2] == f"{row['jf']:.3f}"
        assert cells[5:7] == [f"{row['fps']:.2f}", f"{row['fps_with_io']:.2f}"]
        assert cells[8:] == [str(row["largest_memory"]), f"{row['mean_memory']:.1f}"]
    assert f"2 videos, {2 * NUM_FRAMES} frames of DAVIS 2017 val" in "\n".join(lines)
    with (compared / "compare.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(line["J&F"]) for line in table] == [row["jf"] for row in record["rows"]]
    assert [float(line["FPS"]) for line in table] == [row["fps"] for row in record["rows"]]
    with Image.open(compared / "compare.png") as image:
        assert image.format == "PNG"
    assert record["settings"]["davis_path"]
    runs = [row["run"] for row in record["rows"]]
    assert [run["settings"]["mem_every"] for run in runs] == [5, 2]
    assert all({"git", "torch", "weights_sha256"} <= run.keys() for run in runs)


def test_untrained_methods_on_any_videos(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = "--methods rde --net_size tiny --size 32 --device cpu".split()
    argv += ["--data_path", str(synthetic / "generic"), "--output", str(tmp_path)]
    assert compare.main(argv) == 0
    (row,) = read(tmp_path)["rows"]
    assert (row["name"], row["method"], row["jf"]) == ("rde", "rde", None)
    assert row["largest_memory"] == 3  # first, latest, and the embedding
    output = capsys.readouterr().out
    assert "J&F" not in output
    assert "The networks are untrained" in output
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, ".lock", "rde"}


def test_an_interrupted_comparison_is_resumed(
    output: Path,
    davis: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Entries with a result do not run again; the interrupted one is timed on all frames."""
    before, masks = contents(output / "tiny"), contents(output / SECOND / "masks")
    (output / SECOND / "result.json").unlink()
    shutil.rmtree(output / SECOND / "masks" / "val-001")
    entries = tiny_weights, f"{tiny_weights} {FLAGS}"

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(compare, "run_script", interrupted)
        assert run(davis, output, *entries) == INTERRUPTED
    captured = capsys.readouterr()
    assert "run the same command again to resume" in captured.err
    assert "tiny (1 of 2): already done" in captured.out
    assert [row["name"] for row in read(output)["rows"]] == ["tiny"]

    assert run(davis, output, *entries) == 0
    assert contents(output / "tiny") == before
    assert [row["num_frames"] for row in read(output)["rows"]] == [2 * NUM_FRAMES] * 2
    again = contents(output / SECOND / "masks")
    assert again.keys() == masks.keys()
    for name in masks:
        assert name == "run.json" or again[name][0] == masks[name][0]


def test_a_failed_entry_is_reported_with_the_rows_of_the_others(
    output: Path,
    davis: Path,
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken.pth"
    save_tiny(broken, 1e30)
    assert run(davis, output, broken, tiny_weights) == 1
    assert [row["name"] for row in read(output)["rows"]] == ["tiny"]
    reason = read(output)["failures"]["broken"]
    assert "val-000: frame 00001: The probabilities are not finite" in reason
    assert not (output / "broken" / "result.json").exists()
    assert f"FAILED broken: {reason}" in (output / "compare.md").read_text()
    printed = capsys.readouterr().out
    assert f"FAILED broken: {reason}" in printed
    assert "| tiny | stcn |" in printed


def test_a_killed_entry_is_reported(
    davis: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise ChildFailed("SIGKILL ended the child process.", 137)

    monkeypatch.setattr(compare, "run_script", killed)
    assert run(davis, tmp_path / "out", tiny_weights) == 1
    failures = read(tmp_path / "out")["failures"]
    assert failures == {"tiny": "SIGKILL ended the child process."}
    assert read(tmp_path / "out")["rows"] == []


def test_results_of_another_run_are_refused(
    output: Path, davis: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(output)

    def refused(*entries: object, flags: str) -> str:
        assert run(davis, output, *entries, flags=flags) == 2
        assert contents(output) == before
        return capsys.readouterr().err

    error = refused(f"{tiny_weights} --mem_every 4", flags="--names tiny")
    folder = output / "tiny"
    assert f"{folder} contains the result of a different run: mem_every was 5 and" in error
    assert "split was" not in error
    other = output.parent / "tiny.pth"
    save_tiny(other, 1)
    assert "different run: weights_sha256 was" in refused(other, flags="")
    copied = shutil.copytree(davis, output.parent / "davis")
    listing = copied / "trainval" / "ImageSets" / "2017" / "val.txt"
    listing.write_text("val-000\n")
    assert run(copied, output, tiny_weights) == 2
    assert "different run: videos was" in capsys.readouterr().err

    (output / "tiny" / "result.json").write_text("{}")
    before = contents(output)
    assert "result.json is not a result of a comparison" in refused(tiny_weights, flags="")


@pytest.mark.parametrize(
    ("entry", "flags", "message"),
    [
        ("nowhere.pth", "", "nowhere: There is no file nowhere.pth: give the path"),
        ("{w} --mem_evry 3", "", "has no option --mem_evry: did you mean --mem_every?"),
        ("{w} --mem_evry 3", "", "The entry '{w} --mem_evry 3' cannot run: see the error above."),
        ("{w} --mode gt", "", "tiny_mode_gt: --mode does nothing with --memory every_n"),
        ("{w} --memory quality", "", "--memory quality needs a quality head"),
        ("{w} --mem_capacity 1", "", "mem_capacity 1 is too small"),
        ("{w} --split train", "", "changes --split, which must be the same for all entries"),
        ("{w} --output x", "", "changes --output, which"),
        ("{w} 'x", "", "is not a checkpoint or method with options (No closing quotation)"),
        ("{w}", "", "Two entries are named tiny: give other names with --names."),
        ("{w}", "--names A a", "Two entries are named A: give other names with --names."),
        ("{w}", "--names a", "There are 2 entries but 1 --names"),
        ("{w}", "--names a b/c", "'b/c' becomes a folder: give --names without '/'"),
        ("{w} --top 5", "--split vall", "DAVIS 2017 has no split vall"),
        ("{w} --top 5", "--device quux", "'quux' is not a device"),
    ],
)
def test_invalid_entries_are_refused_before_any_runs(
    davis: Path,
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    entry: str,
    flags: str,
    message: str,
) -> None:
    weights = str(tiny_weights)
    assert run(davis, tmp_path / "out", weights, entry.replace("{w}", weights), flags=flags) == 2
    captured = capsys.readouterr()
    assert message.replace("{w}", weights) in captured.err
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


def test_weights_that_do_not_fit_are_refused_before_any_entry_runs(
    davis: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(tiny_weights, weights_only=True)
    content["weights"].popitem()
    torch.save(content, tmp_path / "partial.pth")
    assert run(davis, tmp_path / "out", tiny_weights, tmp_path / "partial.pth") == 2
    assert "partial.pth do not fit. Missing: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_ground_truth_is_checked_before_any_entry_runs(
    davis: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = shutil.copytree(davis, tmp_path / "davis")
    folder = copied / "trainval" / "Annotations" / "480p" / "val-001"
    mask = folder / "00004.png"
    mask.write_bytes(mask.read_bytes()[:60])
    assert run(copied, tmp_path / "out", tiny_weights) == 2
    assert f"{mask} " in capsys.readouterr().err
    for path in [*folder.iterdir()][1:]:
        if path.name != "00000.png":
            path.unlink()
    assert run(copied, tmp_path / "out", tiny_weights) == 2
    assert "val-001 has" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--methods fcn --davis_path d", "There is no method 'fcn': choose from stcn, gsfm"),
        ("--models a --davis_path d --net_size tiny", "--net_size does nothing with --models"),
        ("--models a --data_path d --year 2016", "--year does nothing with --data_path"),
        ("--models a --data_path d --split val", "--split does nothing in eval_generic.py"),
        ("--models a --davis_path d --size -1", "--size must be 0 (native) or at least 32"),
        ("--models a", "one of the arguments --davis_path --data_path is required"),
    ],
)
def test_options_without_effect_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: str, message: str
) -> None:
    try:
        status = compare.main([*argv.split(), "--output", str(tmp_path / "out")])
    except SystemExit as error:
        status = int(error.code or 0)
    assert status == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_output_is_a_file(
    davis: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("mine")
    assert run(davis, tmp_path / "out", tiny_weights) == 2
    assert f"The output folder {tmp_path / 'out'} cannot be written" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"
