"""Runs of train.py with a tiny network on synthetic images: files, logs and schedules."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model.checkpoint import read_weights
from model.compiled import has_compiler
from model.start import start_network
from model.trainer import share_of_update
from tests.training_runs import (
    TINY,
    Train,
    assert_equal,
    load,
    load_weights,
    make_train,
    parse_one,
    read_curves,
)
from util.provenance import describe_commit

SCALARS = {"loss_1", "loss_2", "iou", "total_loss", "lr", "time_data", "time_compute"}


@pytest.fixture
def saves(tmp_path: Path) -> Path:
    return tmp_path / "saves"


@pytest.fixture
def start(synthetic: Path, saves: Path) -> Train:
    return make_train(synthetic, saves)


def test_run_learns_and_writes_its_files(start: Train, saves: Path) -> None:
    assert start("one", "-i", 40, "-b", 3, "--image_interval", 25, "--save_interval", 30) == 0
    folder = saves / "one"
    (events,) = folder.glob("events.out.tfevents.*")
    names = {path.name for path in folder.iterdir()}
    weights = {f"one_{i}{kind}.pth" for i in (30, 40) for kind in ("", "_checkpoint")}
    logs = {"log.txt", "log.jsonl", "environment.json", events.name}
    assert names - {"changes_0.diff", ".lock"} == weights | {"one_checkpoint.pth"} | logs

    curves = read_curves(folder)
    assert curves.keys() == SCALARS
    assert all([step for step, _ in curve] == list(range(1, 41)) for curve in curves.values())
    losses = [value for _, value in curves["total_loss"]]
    assert losses[0] == pytest.approx(2 * math.log(2), abs=0.2)  # two frames of probability 0.5
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
    for (_, total), (_, one), (_, two) in zip(
        curves["total_loss"], curves["loss_1"], curves["loss_2"], strict=True
    ):
        assert total == pytest.approx(one + two, rel=1e-5)

    images = EventAccumulator(str(folder)).Reload().Images("clip")
    assert [image.step for image in images] == [25, 40]
    sheet = cv2.imdecode(np.frombuffer(images[0].encoded_image_string, np.uint8), 1)
    assert sheet is not None
    assert sheet.shape == (2 * 32, 3 * 32, 3)

    log = (folder / "log.txt").read_text()
    assert len(re.findall(r"^[\d-]+ [\d:]+ iteration \d+  .*total_loss [\d.e-]+", log, re.M)) == 40
    assert "1 processes x 1 passes x batch 3 = 3 clips per iteration" in log
    assert "40 iterations, 4.0 epochs" in log
    assert "'HRSOD_small': 2" in log


def test_files_record_settings_and_provenance(start: Train, saves: Path) -> None:
    assert start("one", "-i", 2, "--gamma", 0.25) == 0
    for name in ("one_2.pth", "one_checkpoint.pth"):
        content = load(saves / "one" / name)
        record = content["record"]
        assert record["settings"]["gamma"] == 0.25
        assert record["settings"]["id"] == "one"
        assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?" if describe_commit() else "", record["git"])
        assert record["iteration"] == 2
        assert {"command", "time", "python", "torch", "machine"} <= record.keys()
        spec = {"method": "stcn", "size": "tiny", "is_single_object": True, "repeat": 0}
        assert content["spec"] == spec
    spec_of_file, _ = read_weights(saves / "one" / "one_2.pth")
    assert spec_of_file.size == "tiny"


def test_environment_is_recorded_at_each_start(start: Train, saves: Path) -> None:
    assert start("one", "-i", 1) == 0
    assert start("one", "-i", 2, "--load_model", "auto") == 0
    first, second = json.loads((saves / "one" / "environment.json").read_text())
    assert (first["iteration"], second["iteration"]) == (0, 1)
    assert first["settings"]["id"] == "one"
    assert first["dataset_sizes"]["FSS"] == 4
    assert (first["num_samples"], first["clips_per_update"]) == (30, 2)
    assert first["packages"]["numpy"] == np.__version__
    assert first["cores"] >= 1
    lines = (saves / "one" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2]
    assert json.loads(lines[0]).keys() == SCALARS | {"iteration"}


def test_log_has_means_over_its_interval(start: Train, saves: Path) -> None:
    assert start("each", "-i", 5) == 0
    assert start("mean", "-i", 5, "--report_interval", 3) == 0
    each = [value for _, value in read_curves(saves / "each")["total_loss"]]
    mean = read_curves(saves / "mean")["total_loss"]
    assert [step for step, _ in mean] == [3, 5]
    assert mean[0][1] == pytest.approx(sum(each[:3]) / 3, rel=1e-5)
    assert mean[1][1] == pytest.approx(sum(each[3:]) / 2, rel=1e-5)


def test_learning_rate_decreases_at_its_steps(start: Train, saves: Path) -> None:
    options = ("-i", 5, "--lr", 0.004, "--gamma", 0.5, "--steps", 2, 4)
    assert start("steps", *options) == 0
    rates = [value for _, value in read_curves(saves / "steps")["lr"]]
    assert rates == pytest.approx([0.004, 0.002, 0.002, 0.001, 0.001])


def test_loss_uses_the_hardest_pixels_after_the_warm_up(start: Train, saves: Path) -> None:
    """Iteration 0 uses all pixels in both runs, so the weights of iteration 1 are equal."""
    assert start("plain", "-i", 2) == 0
    assert start("hard", "-i", 2, "--start_warm", 1, "--end_warm", 1) == 0
    plain, hard = (read_curves(saves / name)["total_loss"] for name in ("plain", "hard"))
    assert hard[0][1] == plain[0][1]
    assert hard[1][1] > 1.02 * plain[1][1]


def test_seed_determines_the_run(start: Train, saves: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert start(name, "-i", 2, "--seed", seed) == 0
    a, b, c = (load_weights(saves / name, 2) for name in "abc")
    assert_equal(a, b)
    assert not torch.equal(a["decoder.pred.weight"], c["decoder.pred.weight"])


def test_backbone_has_its_own_learning_rate(start: Train, saves: Path) -> None:
    """The first step of Adam changes each weight by the learning rate."""
    settings = parse_one(["--id", "x", *TINY, "--backbone_weights", "none"])
    for factor in (0, 0.1, 1):
        name = f"factor{factor}"
        assert start(name, "-i", 1, "--backbone_lr", factor) == 0
        torch.manual_seed(settings.seed)
        before = start_network(settings).state_dict()
        after = load_weights(saves / name, 1)
        changes = {
            part: max(
                (after[k] - v).abs().max().item()
                for k, v in before.items()
                if k.startswith(part) and v.is_floating_point()
            )
            for part in ("key_encoder.backbone.", "value_encoder.backbone.", "decoder.")
        }
        assert changes["key_encoder.backbone."] == pytest.approx(1e-3 * factor, rel=0.02)
        assert changes["value_encoder.backbone."] == pytest.approx(1e-3, rel=0.02)
        assert changes["decoder."] == pytest.approx(1e-3, rel=0.02)


def test_frozen_layers_keep_their_weights(start: Train, saves: Path) -> None:
    settings = parse_one(["--id", "x", *TINY, "--backbone_weights", "none"])
    torch.manual_seed(settings.seed)
    before = start_network(settings).key_encoder.backbone.state_dict()
    for number, frozen in {
        0: (),
        1: ("conv1", "bn1", "layer1"),
        3: ("conv1", "bn1", "layer"),
    }.items():
        name = f"frozen{number}"
        assert start(name, "-i", 1, "--frozen_layers", number) == 0
        after = load_weights(saves / name, 1)
        for key, value in before.items():
            is_same = torch.equal(after[f"key_encoder.backbone.{key}"], value)
            if key.startswith(frozen):
                assert is_same, key
            elif value.ndim == 4:  # biases at 0 have no gradient yet
                assert not is_same, key


def test_static_clips_of_two_objects_train_a_network_for_several(start: Train, saves: Path) -> None:
    assert start("pairs", "-i", 2, "--static_objects", 2) == 0
    saved = load(saves / "pairs" / "pairs_2.pth")
    assert not saved["spec"]["is_single_object"]
    assert saved["weights"]["value_encoder.backbone.conv1.weight"].shape[1] == 5


def test_mixed_precision_keeps_float32_weights(start: Train, saves: Path) -> None:
    assert start("full", "-i", 3) == 0
    assert start("mixed", "-i", 3, mixed_precision=True) == 0
    assert "cpu, float32" in (saves / "full" / "log.txt").read_text()
    assert "cpu, bfloat16" in (saves / "mixed" / "log.txt").read_text()
    full, mixed = (load_weights(saves / name, 3) for name in ("full", "mixed"))
    name = "decoder.pred.weight"
    assert mixed[name].dtype == torch.float32
    assert not torch.equal(full[name], mixed[name])
    losses = [read_curves(saves / name)["total_loss"][0][1] for name in ("full", "mixed")]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_passes_have_the_loss_of_the_whole_batch(start: Train, saves: Path) -> None:
    assert start("whole", "-i", 3, "-b", 4) == 0
    assert start("passes", "-i", 3, "-b", 2, "--global_batch", 4) == 0
    whole, passes = (read_curves(saves / name) for name in ("whole", "passes"))
    for (_, a), (_, b) in zip(whole["total_loss"], passes["total_loss"], strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_clips_of_an_update_are_divided_among_processes() -> None:
    def share(processes: int, *options: str) -> tuple[int, int]:
        return share_of_update(parse_one(["--id", "x", *options]), processes)

    assert share(3, "-b", "8") == (8, 1)
    assert share(2, "-b", "8", "--global_batch", "16") == (8, 1)
    assert share(4, "-b", "8", "--global_batch", "16") == (4, 1)
    assert share(1, "-b", "4", "--global_batch", "10") == (10, 5)  # the fewest equal passes
    assert share(1, "-b", "4", "--global_batch", "7") == (7, 7)
    with pytest.raises(ValueError, match="--global_batch 16 cannot be divided by 3 processes"):
        share(3, "--global_batch", "16")


def test_compilation_needs_a_compiler(
    start: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.compiled.has_compiler", lambda: False)
    assert start("x", "-i", 1, "--compile") == 2
    assert "--compile needs a C++ compiler" in capsys.readouterr().err


@pytest.mark.skipif(not has_compiler(), reason="torch.compile needs a C++ compiler")
def test_compiled_network_has_the_same_loss(start: Train, saves: Path) -> None:
    assert start("eager", "-i", 2, "-b", 1) == 0
    assert start("compiled", "-i", 2, "-b", 1, "--compile") == 0
    eager, compiled = (read_curves(saves / name)["total_loss"] for name in ("eager", "compiled"))
    for (_, a), (_, b) in zip(eager, compiled, strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    names = [load_weights(saves / name, 2).keys() for name in ("eager", "compiled")]
    assert names[0] == names[1]
