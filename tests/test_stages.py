"""Curricula from static images to videos, on synthetic data, with two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import eval_davis
import train
from model.checkpoint import save_network
from model.methods import build_network
from model.network import NetworkSpec
from scripts import evaluate, make_synthetic
from util.parse_settings import parse_train

ROOT = Path(__file__).resolve().parents[1]
ITERATIONS = {"stcn": 300, "gsfm": 200, "qdmn": 300, "rde": 300, "imsfr": 200}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic data, with frames large enough for a tiny network to learn."""
    root = tmp_path_factory.mktemp("stages")
    options = "--num_videos 4 --num_frames 16 --num_objects 2 --height 96 --width 136 --seed 7"
    assert make_synthetic.main([str(root), *options.split()]) == 0
    return root


def recipe(data: Path, saves: Path, stage: str, method: str = "stcn") -> list[str]:
    iterations = ITERATIONS[method]
    options = [
        "--method", method, "--id", "t", "--stage", stage, "--save_dir", str(saves),
        "--size", "tiny",
        "--backbone_weights", "none", "-i", str(iterations), "--global_batch", "8", "-b", "4",
        "--crop_size", "64", "--lr", "3e-3", "--steps", str(iterations - 60),
        "--report_interval", "1", "--num_workers", "1", "--no_amp", "--device", "cpu",
        "--start_warm", "100", "--end_warm", "600",
    ]  # fmt: skip
    if "0" in stage:
        options += ["--static_root", str(data / "static")]
    if "1" in stage:
        options += ["--bl_root", str(data / "BL30K")]
    if {"2", "3"} & {*stage}:
        options += ["--davis_root", str(data / "DAVIS"), "--yv_root", str(data / "YouTube")]
    return options


def score(model: Path, data: Path, output: Path) -> float:
    """Segment the validation videos; return J&F."""
    options = ["--model", str(model), "--davis_path", str(data / "DAVIS" / "2017")]
    assert eval_davis.main([*options, "--output", str(output), "--device", "cpu"]) == 0
    options = ["--results_path", str(output), "--davis_path", str(data / "DAVIS" / "2017")]
    assert evaluate.main(options) == 0
    lines = (output / "global_results-val.csv").read_text().splitlines()
    return float(dict(zip(lines[0].split(","), lines[1].split(","), strict=True))["J&F-Mean"])


def score_untrained(method: str, data: Path, folder: Path) -> float:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(NetworkSpec(method, "tiny"))
    save_network(folder / "untrained.pth", network, {})
    return score(folder / "untrained.pth", data, folder / "untrained")


@pytest.mark.parametrize(
    ("method", "stage", "runs"),
    [
        ("stcn", "03", ["t_s0", "t_s03"]),
        ("stcn", "012", ["t_s0", "t_s01", "t_s012"]),
        ("gsfm", "03", ["t_s0", "t_s03"]),
        ("qdmn", "03", ["t_s0", "t_s03"]),
        ("rde", "03", ["t_s0", "t_s03"]),
        ("imsfr", "03", ["t_s0", "t_s03"]),
    ],
)
def test_curriculum_learns(
    data: Path, tmp_path: Path, method: str, stage: str, runs: list[str]
) -> None:
    saves = tmp_path / "saves"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, str(ROOT / "train.py"), *recipe(data, saves, stage, method)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=900,
    )
    assert done.returncode == 0
    assert sorted(path.name for path in saves.iterdir()) == sorted(runs)
    for name, settings in zip(runs, parse_train(recipe(data, saves, stage, method)), strict=True):
        lines = [json.loads(line) for line in (saves / name / "log.jsonl").read_text().splitlines()]
        losses = [line["total_loss"] for line in lines]
        assert len(losses) == settings.iterations
        # The loss includes all pixels up to iteration 100 (--start_warm).
        assert np.mean(losses[70:100]) < (0.7 if settings.stage == "0" else 1) * np.mean(
            losses[:30]
        )
        ious = [line["iou"] for line in lines]
        assert np.mean(ious[-20:]) > np.mean(ious[:20])
    final = saves / runs[-1] / f"{runs[-1]}_{ITERATIONS[method]}.pth"
    assert (
        score(final, data, tmp_path / "masks") > score_untrained(method, data, tmp_path / "u") + 0.1
    )


def test_finished_curriculum_is_not_changed(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that was interrupted in its second stage is resumed there."""
    options = [*recipe(synthetic, tmp_path, "03"), "-i", "2", "--crop_size", "32"]
    options += ["--num_workers", "0", "--global_batch", "2", "--load_model", "auto"]
    assert train.main(options) == 0
    first, last = (tmp_path / name / f"{name}_2.pth" for name in ("t_s0", "t_s03"))
    before = first.stat().st_mtime_ns, last.read_bytes()
    assert train.main(options) == 0
    assert (first.stat().st_mtime_ns, last.read_bytes()) == before
    for path in (tmp_path / "t_s03").glob("*.pth"):
        path.unlink()
    assert train.main(options) == 0
    assert first.stat().st_mtime_ns == before[0]
    files = [torch.load(path, weights_only=True)["weights"] for path in (first, last)]
    channels = [weights["value_encoder.backbone.conv1.weight"].shape[1] for weights in files]
    assert channels == [4, 5]  # image and mask; in stage 3 also the other objects' masks


# Options of the training commands in the authors' READMEs. RDE's do not name the method; options
# that only RDE has imply it.
RDE = "--perturb_max 1 --perturb_min 0.85 --save_interval 10000 --repeat 0"
PUBLISHED = [
    "--id retrain_s0 --stage 0",
    "--id retrain_s01 --load_network {s0} --stage 1",
    "--id retrain_s012 --load_network {s01} --stage 2",
    "--id retrain_s03 --load_network {s0} --stage 3",
    "--method gsfm --id s0-GSFM --stage 0",
    "--method gsfm --id s03-GSFM --stage 3 --load_network {s0g}",
    # QDMN's commands, which train STCN because they do not name the method.
    "--id s0-QDMN --stage 0",
    "--id s03-QDMN --stage 2 --load_network {s0}",
    "--method qdmn --id s0q --stage 0",
    "--method qdmn --id s03q --stage 2 --load_network {s0q}",
    f"--id s0 --stage 0 {RDE} --klloss_weight 10 --start_warm 5000 --end_warm 17500 "
    "--batch_size 16 --lr 2e-05 --steps 37500 --iterations 75000",
    f"--id s03 --stage 3 --load_network {{s0r}} {RDE} --klloss_weight 10 --batch_size 4 --lr 2e-05 "
    "--steps 125000 --iterations 150000",
    f"--id s1 --stage 1 --load_network {{s0r}} {RDE} --klloss_weight 10 --start_warm 20000 "
    "--end_warm 70000 --batch_size 4 --lr 1e-05 --steps 400000 --iterations 500000",
    f"--id s2 --stage 2 --load_network {{s1r}} {RDE} --klloss_weight 5 --decoder_f2_weight 5 "
    "--decoder_f4_weight 5 --start_warm 5000 --end_warm 17500 --batch_size 8 --lr 2e-05 "
    "--steps 62500 --iterations 75000",
    "--method imsfr --id defg --stage 0",
]


def test_published_commands_start(synthetic: Path, tmp_path: Path) -> None:
    weights = {
        key: tmp_path / name / f"{name}_1.pth"
        for key, name in [
            ("s0", "retrain_s0"), ("s0g", "s0-GSFM"), ("s01", "retrain_s01"), ("s0q", "s0q"),
            ("s0r", "s0"), ("s1r", "s1"),
        ]
    }  # fmt: skip
    for line in PUBLISHED:
        options = line.format(**weights).split()
        roots = recipe(synthetic, tmp_path, options[options.index("--stage") + 1])
        small = "--size tiny --crop_size 32 -b 1 -i 1 --num_workers 0 --device cpu".split()
        small += ["--save_dir", str(tmp_path)]
        if "--load_network" not in options:
            small += ["--backbone_weights", "none"]
        places = [option for option in roots if option.endswith("_root")]
        small += [part for option in places for part in (option, roots[roots.index(option) + 1])]
        assert train.main([*options, *small]) == 0, line
    methods = {
        name: torch.load(tmp_path / name / f"{name}_1.pth", weights_only=True)["spec"]["method"]
        for name in ("s0-QDMN", "s03q", "s0", "s03", "s2", "defg")
    }
    assert [*methods.values()] == ["stcn", "qdmn", "rde", "rde", "rde", "imsfr"]
    checkpoint = tmp_path / "s0-QDMN" / "s0-QDMN_checkpoint.pth"
    again = ["--id", "s0-QDMN", "--stage", "0", "--load_model", str(checkpoint)]
    small = "--size tiny --crop_size 32 -b 1 -i 2 --num_workers 0 --device cpu".split()
    small += ["--save_dir", str(tmp_path), "--static_root", str(synthetic / "static")]
    assert train.main([*again, *small]) == 0
