"""The comparison: a table of entries, each run in a process of its own."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import eval_davis
from evaluation.comparison import Row, draw, format_markdown
from evaluation.protocols import select_davis
from evaluation.scoring import score
from model.checkpoint import save_network
from model.methods import build_network
from model.network import NetworkSpec
from scripts import compare
from tests.conftest import NUM_FRAMES
from util.signals import INTERRUPTED

FLAGS = "--mem_every 2 --mem_capacity 3"
SECOND = "tiny_mem_every_2_mem_capacity_3"
FILES = ("compare.csv", "compare.json", "compare.md", "compare.png")


@pytest.fixture(scope="module")
def davis(synthetic: Path) -> Path:
    return synthetic / "DAVIS" / "2017"


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, davis: Path, tiny_weights: Path) -> Path:
    """What a comparison of two memories left; read only, copy what a test damages."""
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
    """Bytes and time of all files below a folder."""
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


def row(name: str, jf: float | None, fps: float) -> Row:
    return Row(name, "stcn", jf, jf, jf, fps, fps / 2, 900.0, 800.0, 9, 4.5, 2, 40)


# What is measured and written


def test_the_rows(compared: Path, davis: Path, tiny_weights: Path, tmp_path: Path) -> None:
    first, second = read(compared)["rows"]
    assert [first["name"], second["name"]] == ["tiny", SECOND]
    assert [first["method"], second["method"]] == ["stcn", "stcn"]
    # Of 11 frames, the last of which is not remembered: 0 and 5; 3 at most of 0, 2, 4, 6 and 8.
    assert [first["largest_memory"], second["largest_memory"]] == [2, 3]
    assert [first["mean_memory"], second["mean_memory"]] == [2, 3]
    for found in (first, second):
        assert (found["num_videos"], found["num_frames"]) == (2, 2 * NUM_FRAMES)
        assert found["fps"] > found["fps_with_io"] > 0
        assert found["peak_mib"] >= found["loaded_mib"] > 50
        scores = score(select_davis(compared / found["name"] / "masks", davis)).overall
        assert found["jf"] == pytest.approx(scores.mean)
        assert found["region"] == pytest.approx(scores.region.mean)
        assert found["boundary"] == pytest.approx(scores.boundary.mean)
    argv = ["--model", str(tiny_weights), "--davis_path", str(davis), "--device", "cpu"]
    assert eval_davis.main([*argv, "--output", str(tmp_path), *FLAGS.split()]) == 0
    for path in sorted(tmp_path.glob("*/*.png")):
        there = compared / SECOND / "masks" / path.relative_to(tmp_path)
        assert there.read_bytes() == path.read_bytes()


def test_the_files(compared: Path) -> None:
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
    for line, found in zip(lines[2:4], record["rows"], strict=True):
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        assert cells[0] == found["name"]
        assert cells[2] == f"{found['jf']:.3f}"
        assert cells[5:7] == [f"{found['fps']:.2f}", f"{found['fps_with_io']:.2f}"]
        assert cells[8:] == [str(found["largest_memory"]), f"{found['mean_memory']:.1f}"]
    assert f"2 videos, {2 * NUM_FRAMES} frames of DAVIS 2017 val" in "\n".join(lines)
    with (compared / "compare.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(line["J&F"]) for line in table] == [found["jf"] for found in record["rows"]]
    assert [float(line["FPS"]) for line in table] == [found["fps"] for found in record["rows"]]
    with Image.open(compared / "compare.png") as image:
        assert image.format == "PNG"
    assert record["settings"]["davis_path"]
    assert [found["run"]["settings"]["mem_every"] for found in record["rows"]] == [5, 2]
    assert all(
        {"git", "torch", "weights_sha256"} <= found["run"].keys() for found in record["rows"]
    )


def test_untrained_methods_on_any_videos(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = "--methods rde --net_size tiny --size 32 --device cpu".split()
    argv += ["--data_path", str(synthetic / "generic"), "--output", str(tmp_path)]
    assert compare.main(argv) == 0
    (found,) = read(tmp_path)["rows"]
    assert (found["name"], found["method"], found["jf"]) == ("rde", "rde", None)
    assert found["largest_memory"] == 3  # first, latest, and the embedding
    said = capsys.readouterr().out
    assert "J&F" not in said
    assert "The networks are untrained" in said
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, ".lock", "rde"}


def test_tables_with_and_without_scores() -> None:
    rows = [row("a|b", 0.7654, 12.345), row("c", None, 3)]
    assert format_markdown(rows, has_scores=True).splitlines()[2:] == [
        r"| a\|b | stcn | 0.765 | 0.765 | 0.765 | 12.35 | 6.17 | 900 | 9 | 4.5 |",
        "| c | stcn | - | - | - | 3.00 | 1.50 | 900 | 9 | 4.5 |",
    ]
    assert format_markdown(rows, has_scores=False).splitlines()[3:] == [
        "| c | stcn | 3.00 | 1.50 | 900 | 9 | 4.5 |"
    ]


def test_figures_with_and_without_scores(tmp_path: Path) -> None:
    sizes = []
    for name, rows in {
        "points": [row("a", 0.7, 12), row("b", 0.7, 12), row("c", None, 1)],
        "bars": [row("a", None, 12), row("b", None, 3)],
    }.items():
        draw(rows, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            sizes.append(image.size)
    assert sizes[0] != sizes[1]


# Going on, and what fails


def test_an_interrupted_comparison_goes_on(
    output: Path,
    davis: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Entries that were done are read back; the one that was cut off is timed on all frames."""
    before, masks = contents(output / "tiny"), contents(output / SECOND / "masks")
    (output / SECOND / "result.json").unlink()
    shutil.rmtree(output / SECOND / "masks" / "val-001")
    entries = tiny_weights, f"{tiny_weights} {FLAGS}"

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", interrupted)
        assert run(davis, output, *entries) == INTERRUPTED
    said = capsys.readouterr()
    assert "the same command goes on with what is left" in said.err
    assert "tiny (1 of 2): done before" in said.out
    assert [found["name"] for found in read(output)["rows"]] == ["tiny"]

    assert run(davis, output, *entries) == 0
    assert contents(output / "tiny") == before
    assert [found["num_frames"] for found in read(output)["rows"]] == [2 * NUM_FRAMES] * 2
    again = contents(output / SECOND / "masks")
    assert again.keys() == masks.keys()
    for name in masks:
        assert name == "run.json" or again[name][0] == masks[name][0]


def test_an_entry_that_fails_is_named_and_the_others_are_there(
    output: Path,
    davis: Path,
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken.pth"
    save_tiny(broken, 1e30)
    assert run(davis, output, broken, tiny_weights) == 1
    assert [found["name"] for found in read(output)["rows"]] == ["tiny"]
    why = read(output)["failures"]["broken"]
    assert "val-000: frame 00001: The network's answer" in why
    assert "is not finite" in why
    assert not (output / "broken" / "result.json").exists()
    assert f"FAILED broken: {why}" in (output / "compare.md").read_text()
    said = capsys.readouterr().out
    assert f"FAILED broken: {why}" in said
    assert "| tiny | stcn |" in said


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (-9, "Signal 9 ended its process: was there too little memory?"),
        (3, "Its process ended with status 3, see above."),
    ],
)
def test_processes_that_end_without_a_word(
    davis: Path,
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    why: str,
) -> None:
    ended = subprocess.CompletedProcess([], status, stdout="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    assert run(davis, tmp_path / "out", tiny_weights) == 1
    assert read(tmp_path / "out")["failures"] == {"tiny": why}
    assert read(tmp_path / "out")["rows"] == []


# Bad input


def test_results_of_another_run_are_refused(
    output: Path, davis: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(output)

    def refused(*entries: object, flags: str) -> str:
        assert run(davis, output, *entries, flags=flags) == 2
        assert contents(output) == before
        return capsys.readouterr().err

    said = refused(f"{tiny_weights} --mem_every 4", flags="--names tiny")
    assert f"{output / 'tiny'} holds a result that was made otherwise: mem_every was 5 and" in said
    assert "split was" not in said
    other = output.parent / "tiny.pth"
    save_tiny(other, 1)
    assert "made otherwise: weights_sha256 was" in refused(other, flags="")
    copied = shutil.copytree(davis, output.parent / "davis")
    listing = copied / "trainval" / "ImageSets" / "2017" / "val.txt"
    listing.write_text("val-000\n")
    assert run(copied, output, tiny_weights) == 2
    assert "made otherwise: videos was" in capsys.readouterr().err

    (output / "tiny" / "result.json").write_text("{}")
    before = contents(output)
    assert "result.json is not a result of a comparison" in refused(tiny_weights, flags="")


@pytest.mark.parametrize(
    ("entry", "flags", "sentence"),
    [
        ("nowhere.pth", "", "nowhere: There is no file nowhere.pth: give the path"),
        ("{w} --mem_evry 3", "", "has no flag --mem_evry: did you mean --mem_every?"),
        ("{w} --mem_evry 3", "", "The entry '{w} --mem_evry 3' cannot be run, see above."),
        ("{w} --mode gt", "", "tiny_mode_gt: --mode does nothing with --memory every_n"),
        ("{w} --memory quality", "", "--memory quality needs a head that scores masks"),
        ("{w} --mem_capacity 1", "", "mem_capacity 1 is too small"),
        ("{w} --split train", "", "has a --split of its own, but this must be the same for all"),
        ("{w} --output x", "", "has a --output of its own"),
        ("{w} 'x", "", "is no checkpoint with flags (No closing quotation)"),
        ("{w}", "", "Two entries are named tiny: tell them apart with --names."),
        ("{w}", "--names A a", "Two entries are named A: tell them apart with --names."),
        ("{w}", "--names a", "There are 2 entries but 1 --names"),
        ("{w}", "--names a b/c", "'b/c' is to be a folder: give --names without '/'"),
        ("{w} --top 5", "--split vall", "there is no split vall of DAVIS 2017"),
        ("{w} --top 5", "--device quux", "'quux' is no device"),
    ],
)
def test_bad_entries_are_refused_before_any_is_run(
    davis: Path,
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    entry: str,
    flags: str,
    sentence: str,
) -> None:
    weights = str(tiny_weights)
    assert run(davis, tmp_path / "out", weights, entry.replace("{w}", weights), flags=flags) == 2
    said = capsys.readouterr()
    assert sentence.replace("{w}", weights) in said.err
    assert said.out == ""
    assert not (tmp_path / "out").exists()


def test_weights_that_do_not_fit_are_refused_before_any_is_run(
    davis: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(tiny_weights, weights_only=True)
    content["weights"].popitem()
    torch.save(content, tmp_path / "partial.pth")
    assert run(davis, tmp_path / "out", tiny_weights, tmp_path / "partial.pth") == 2
    assert "partial.pth do not fit. Missing: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("--methods fcn --davis_path d", "There is no method 'fcn': choose from stcn, gsfm"),
        ("--models a --davis_path d --net_size tiny", "--net_size does nothing with --models"),
        ("--models a --data_path d --year 2016", "--year does nothing with --data_path"),
        ("--models a --data_path d --split val", "--split does nothing in eval_generic.py"),
        (
            "--models a --davis_path d --size -1",
            "--size must be 0 (the frames' own) or at least 32",
        ),
        ("--models a", "one of the arguments --davis_path --data_path is required"),
    ],
)
def test_flags_that_do_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: str, sentence: str
) -> None:
    try:
        status = compare.main([*argv.split(), "--output", str(tmp_path / "out")])
    except SystemExit as error:
        status = int(error.code or 0)
    assert status == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file(
    davis: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("mine")
    assert run(davis, tmp_path / "out", tiny_weights) == 2
    assert f"The output folder {tmp_path / 'out'} cannot be written" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"
