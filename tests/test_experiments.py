"""scripts/experiments/ run on small data and report what they should."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.davis import davis_2017
from model.checkpoint import save_network
from model.methods import build_network
from model.network import NetworkSpec
from scripts import compare, export_weights, plot_log
from scripts.benchmarks import bench_inference
from scripts.experiments import (
    directions,
    held_out,
    precisions,
    quality_gating,
    train_methods,
    training_data,
)
from util.masks import DAVIS_PALETTE, read_mask, write_mask
from util.parse_settings import parse_train


def test_precisions(
    synthetic: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--davis_path", str(synthetic / "DAVIS"), "--model", str(tiny_weights)]
    path = tmp_path / "precisions.json"
    flags += ["--device", "cpu", "--year", "2017", "--frames", "3", "--json", str(path)]
    assert precisions.main(flags) == 0
    rows = json.loads(path.read_text())["rows"]
    assert rows["float32"]["mean IoU"] == 1
    assert rows["exact"]["mean IoU"] > 0.99
    assert rows["mem_half"]["mean IoU"] > 0.99
    assert 0.5 < rows["half"]["mean IoU"] < 1
    assert all(row["FPS"] > 0 and len(row["IoU"]) == 2 for row in rows.values())
    assert "bfloat16" in capsys.readouterr().out
    assert precisions.main([*flags[:2], "--model", "nowhere.pth"]) == 2


def test_quality_gating(
    synthetic: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "qdmn.pth"
    torch.manual_seed(1)
    network = build_network(NetworkSpec("qdmn", "tiny"))
    network.decoder.pred.weight.data *= 100  # otherwise all masks are empty
    save_network(weights, network, {"settings": {}})
    flags = f"--davis_path {synthetic / 'DAVIS' / '2017'} --output {tmp_path / 'quality'}".split()
    flags += "--num_videos 1 --rates 0 0.9 --seeds 1 --device cpu".split()
    assert quality_gating.main([*flags, "--model", str(weights)]) == 0
    result = json.loads((tmp_path / "quality" / "quality.json").read_text())
    assert [row["rate"] for row in result["rows"]] == [0, 0.9]
    assert all(0 <= row[name] <= 1 for row in result["rows"] for name in quality_gating.MEMORIES)
    assert result["num_masks"] == len(result["masks"]) > 0
    assert {is_damaged for _, _, is_damaged in result["masks"]} == {False, True}
    assert (tmp_path / "quality" / "quality.png").stat().st_size > 1000
    assert quality_gating.main([*flags, "--model", str(weights), "--rates", "1"]) == 0
    result = json.loads((tmp_path / "quality" / "quality.json").read_text())
    assert result["rank_correlation_undamaged"] is None
    assert "undefined over the undamaged ones" in capsys.readouterr().out
    assert quality_gating.main([*flags, "--model", str(tiny_weights)]) == 2
    assert "has no quality head: use weights of qdmn" in capsys.readouterr().err


def test_rank_correlation() -> None:
    increasing = [(0.1, 0.3), (0.2, 0.5), (0.9, 0.6)]
    assert quality_gating.rank_correlation(increasing) == pytest.approx(1)
    ties = [(1.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 3.0)]
    ranks = np.array([[1.5, 1.5, 3, 4], [1, 2, 3.5, 3.5]])
    expected = np.corrcoef(ranks)[0, 1]
    assert quality_gating.rank_correlation(ties) == pytest.approx(expected)
    assert quality_gating.rank_correlation([(0.5, 0.1), (0.5, 0.2)]) is None
    assert quality_gating.rank_correlation([]) is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--rates 0 1.5", "--rates must be probabilities from 0 to 1"),
        ("--seeds 0", "--seeds must be at least 1; it is 0"),
        ("--num_videos 0", "--num_videos must be at least 1; it is 0"),
        ("--mem_every 0", "--mem_every must be at least 1; it is 0"),
        ("--output FILE", "argument --output: FILE is not a folder: choose another path"),
        ("--output FILE/x", "argument --output: FILE is not a folder: choose another path"),
    ],
)
def test_wrong_options_are_refused_before_the_work(
    flags: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"FILE": str(tmp_path / "file"), "FOLDER": str(tmp_path)}
    (tmp_path / "file").touch()
    for name, path in names.items():
        flags, message = flags.replace(name, path), message.replace(name, path)
    argv = ["--model", "a", "--davis_path", "b", "--output", str(tmp_path / "out"), *flags.split()]
    with pytest.raises(SystemExit) as caught:
        quality_gating.parse(argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("parse", [directions.parse, precisions.parse])
def test_a_folder_instead_of_a_json_file(
    parse: Callable[[list[str]], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(["--davis_path", "b", "--json", str(tmp_path)])
    assert f"argument --json: {tmp_path} is a folder: name a file" in capsys.readouterr().err


def plan_experiment(*flags: str) -> list[list[str]]:
    roots = "--static_root S --davis_root D --davis_path D --backbone_weights B.pth".split()
    return [*train_methods.plan(train_methods.parse([*roots, "--output", "out", *flags]))]


def test_commands_of_train_methods() -> None:
    """Each command parses, and each run starts from the weights of the run before."""
    parsers = {
        "export_weights.py": export_weights.parse,
        "plot_log.py": plot_log.parse,
        "compare.py": compare.parse,
        "bench_inference.py": bench_inference.parse,
    }
    runs = []
    for command in plan_experiment("--processes", "4"):
        if command[0] == "-m":
            runs += parse_train(command[6:])
        else:
            parsers[Path(command[0]).name](command[1:])
    assert [run.id for run in runs[:3]] == ["stcn_s0", "stcn_s3", "gsfm_s0"]
    assert len(runs) == 10
    assert runs[1].load_network == "out/saves/stcn_s0/stcn_s0_800.pth"
    assert (runs[1].iterations, runs[1].steps, runs[1].yv_root) == (400, [240, 320, 368], "none")
    assert {(run.batch_size, run.global_batch, run.num_frames) for run in runs} == {(1, 4, 3)}


def test_published_settings_of_train_methods() -> None:
    commands = plan_experiment("--published", "--methods", "rde")
    first, second = (parse_train(command[6:])[0] for command in commands[:2])
    assert (first.iterations, second.iterations, first.batch_size) == (75_000, 150_000, 16)
    assert second.load_network == "out/saves/rde_s0/rde_s0_75000.pth"


def test_processes_of_train_methods_share_the_clips(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        plan_experiment("--processes", "3")
    assert "--processes must divide 4" in capsys.readouterr().err


def test_commands_of_training_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command parses; the runs differ in their data alone."""
    for folder in ("static/A", "held_out/2017"):
        (tmp_path / folder).mkdir(parents=True)
    flags = "--load_network W.pth --davis_root D --iterations 100 --first_set".split()
    roots = ["--static_root", tmp_path / "static", "--held_out", tmp_path / "held_out"]
    argv = [*flags, "A", *map(str, roots), "--output", str(tmp_path / "out")]
    arguments = training_data.parse(argv)
    *trainings, comparison = training_data.plan(arguments)
    runs = [parse_train(command[6:])[0] for command in trainings]
    assert [run.id for run in runs] == ["first_set", "photographs", "two_objects", "videos"]
    assert [run.static_objects for run in runs] == [1, 1, 2, 1]
    assert [run.static_share for run in runs] == [0, 0, 0, 0.5]
    assert {(run.iterations, run.crop_size, run.load_network) for run in runs} == {
        (100, 192, "W.pth")
    }
    assert compare.parse(comparison[1:]).names == ["start", *(run.id for run in runs)]
    training_data.link_first_set(arguments)
    assert [*Path(runs[0].static_root).iterdir()] == [tmp_path / "out/first_set/A"]
    with pytest.raises(SystemExit):
        training_data.parse([*argv, "--first_set", "B"])
    assert f"{tmp_path}/static/B does not exist" in capsys.readouterr().err


def test_held_out_clips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_out, "NUM_FRAMES", 4)
    root = tmp_path / "davis"
    names = [*held_out.HELD_OUT, "bear"]
    base = root / "2017/trainval"
    for t in range(24):
        mask = np.zeros((240, 432), np.uint8)
        mask[80:160, 150:250] = 1
        for name in names:
            for kind in ("JPEGImages", "Annotations"):
                (base / kind / "480p" / name).mkdir(parents=True, exist_ok=True)
            frame = np.full((240, 432, 3), t, np.uint8)
            Image.fromarray(frame).save(base / "JPEGImages/480p" / name / f"{t:05d}.jpg")
            write_mask(base / "Annotations/480p" / name / f"{t:05d}.png", mask, DAVIS_PALETTE)
    lists = base / "ImageSets/2017"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(names))
    output = tmp_path / "held_out"
    argv = ["--davis_root", str(root), "--output", str(output)]
    assert held_out.main(argv) == 0
    assert held_out.main(argv) == 0, "a second run replaces the first one's files"
    assert (output / "train.txt").read_text() == "bear\n"
    videos = davis_2017(output / "2017")
    assert [video.name for video in videos[:4]] == [*held_out.HELD_OUT]
    assert [len(video) for video in videos] == [24] * 4 + [4] * 3
    pair = output / "2017/trainval/Annotations/480p/two-car-car"
    first = read_mask(pair / "00003.png").labels
    assert first.shape == (240, 432)
    assert {*np.unique(first)} == {0, 1, 2}

    (lists / "train.txt").write_text("bear")
    assert held_out.main(argv) == 2
    assert "car-turn, kite-walk, horsejump-low, dance-jump are not among" in capsys.readouterr().err
