"""train.py from command line to files, with a tiny network on synthetic images."""

from __future__ import annotations

import json
import math
import re
import shutil
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision.models
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch._utils import ExceptionWrapper
from torch.utils.data import default_collate

import train
from datasets.clips import ClipSample
from datasets.sampler import ClipBatches
from datasets.static import StaticClips
from model.checkpoint import convert_published, read_weights, save_network
from model.compiled import has_compiler
from model.reference import fill_weights
from model.start import start_network
from model.trainer import Trainer, share_of_update
from model.training_state import resume
from util.files import claimed
from util.hyper_para import TrainSettings
from util.parse_settings import parse_train
from util.provenance import describe_commit
from util.ranks import Ranks
from util.signals import INTERRUPTED

REFERENCE = Path(__file__).parent / "reference" / "stcn_state_dict.json"
SCALARS = {"loss_1", "loss_2", "iou", "total_loss", "lr", "time_data", "time_compute"}
TINY = (
    "--size tiny --crop_size 32 -b 2 --num_workers 0 --device cpu --no_amp --report_interval 1 "
    "--lr 1e-3"
).split()

Train = Callable[..., int]


@pytest.fixture
def start(synthetic: Path, tmp_path: Path) -> Train:
    """Runs train.py with tiny settings into tmp_path/saves; later flags win."""

    def run(name: str, *flags: object, is_mixed: bool = False) -> int:
        argv = ["--id", name, "--static_root", str(synthetic / "static")]
        argv += ["--save_dir", str(tmp_path / "saves"), *TINY]
        if is_mixed:
            argv.remove("--no_amp")
        if "--load_network" not in flags:
            argv += ["--backbone_weights", "none"]
        return train.main([*argv, *map(str, flags)])

    return run


def parse_one(argv: list[str]) -> TrainSettings:
    (settings,) = parse_train(argv)
    return settings


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag.removeprefix("train/"): [(p.step, p.value) for p in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def assert_same(a: Any, b: Any) -> None:
    """Bit for bit, through dictionaries and lists."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    else:
        assert a == b


# A run


def test_a_run_learns_and_leaves_its_files(start: Train, tmp_path: Path) -> None:
    assert start("one", "-i", 40, "-b", 3, "--image_interval", 25, "--save_interval", 30) == 0
    folder = tmp_path / "saves" / "one"
    (events,) = folder.glob("events.out.tfevents.*")
    names = {path.name for path in folder.iterdir()}
    weights = {f"one_{i}{kind}.pth" for i in (30, 40) for kind in ("", "_checkpoint")}
    logs = {"log.txt", "log.jsonl", "environment.json", events.name}
    assert names - {"changes_0.diff", ".lock"} == weights | {"one_checkpoint.pth"} | logs

    found = curves(folder)
    assert found.keys() == SCALARS
    assert all([step for step, _ in curve] == list(range(1, 41)) for curve in found.values())
    losses = [value for _, value in found["total_loss"]]
    assert losses[0] == pytest.approx(2 * math.log(2), abs=0.2)  # undecided, on two frames
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
    for (_, total), (_, one), (_, two) in zip(
        found["total_loss"], found["loss_1"], found["loss_2"], strict=True
    ):
        assert total == pytest.approx(one + two, rel=1e-5)

    images = EventAccumulator(str(folder)).Reload().Images("clip")
    assert [image.step for image in images] == [25, 40]
    sheet = cv2.imdecode(np.frombuffer(images[0].encoded_image_string, np.uint8), 1)
    assert sheet is not None
    assert sheet.shape == (2 * 32, 3 * 32, 3)

    log = (folder / "log.txt").read_text()
    assert len(re.findall(r"^[\d:]+ it \d+  .*total_loss [\d.e-]+", log, re.MULTILINE)) == 40
    assert (
        "1 processes x 1 passes x batch 3 = 3 clips an iteration, 40 iterations, 4.0 epochs" in log
    )
    assert "'HRSOD_small': 2" in log


def test_what_the_files_tell(start: Train, tmp_path: Path) -> None:
    assert start("told", "-i", 2, "--gamma", 0.25) == 0
    for name, iteration in (("told_2.pth", 2), ("told_checkpoint.pth", 2)):
        content = load(tmp_path / "saves" / "told" / name)
        record = content["record"]
        assert record["settings"]["gamma"] == 0.25
        assert record["settings"]["id"] == "told"
        assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?" if describe_commit() else "", record["git"])
        assert record["iteration"] == iteration
        assert {"command", "time", "python", "torch", "machine"} <= record.keys()
        spec = {"method": "stcn", "size": "tiny", "is_single_object": True, "repeat": 0}
        assert content["spec"] == spec
    found, _ = read_weights(tmp_path / "saves" / "told" / "told_2.pth")
    assert found.size == "tiny"


def test_the_log_averages_over_its_interval(start: Train, tmp_path: Path) -> None:
    assert start("each", "-i", 5) == 0
    assert start("mean", "-i", 5, "--report_interval", 3) == 0
    each = [value for _, value in curves(tmp_path / "saves" / "each")["total_loss"]]
    mean = curves(tmp_path / "saves" / "mean")["total_loss"]
    assert [step for step, _ in mean] == [3, 5]
    assert mean[0][1] == pytest.approx(sum(each[:3]) / 3, rel=1e-5)
    assert mean[1][1] == pytest.approx(sum(each[3:]) / 2, rel=1e-5)


def test_the_learning_rate_falls_at_its_steps(start: Train, tmp_path: Path) -> None:
    flags = ("-i", 5, "--lr", 0.004, "--gamma", 0.5, "--steps", 2, 4)
    assert start("steps", *flags) == 0
    rates = [value for _, value in curves(tmp_path / "saves" / "steps")["lr"]]
    assert rates == pytest.approx([0.004, 0.002, 0.002, 0.001, 0.001])


def test_the_hardest_examples_count_after_the_warm_up(start: Train, tmp_path: Path) -> None:
    """Iteration 0 is plain in both runs, which is what makes iteration 1 comparable."""
    assert start("plain", "-i", 2) == 0
    assert start("hard", "-i", 2, "--start_warm", 1, "--end_warm", 1) == 0
    plain, hard = (curves(tmp_path / "saves" / name)["total_loss"] for name in ("plain", "hard"))
    assert hard[0][1] == plain[0][1]
    assert hard[1][1] > 1.02 * plain[1][1]


def test_the_seed_decides(start: Train, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert start(name, "-i", 2, "--seed", seed) == 0
    a, b, c = (load(tmp_path / "saves" / n / f"{n}_2.pth")["weights"] for n in "abc")
    assert_same(a, b)
    assert not torch.equal(a["decoder.pred.weight"], c["decoder.pred.weight"])


def test_the_backbone_learns_at_its_own_rate(start: Train, tmp_path: Path) -> None:
    """Adam's first step is as long as the learning rate, wherever there is a gradient."""
    settings = parse_one(["--id", "x", *TINY, "--backbone_weights", "none"])
    for factor in (0, 0.1, 1):
        name = f"factor{factor}"
        assert start(name, "-i", 1, "--backbone_lr", factor) == 0
        torch.manual_seed(settings.seed)
        before = start_network(settings).state_dict()
        after = load(tmp_path / "saves" / name / f"{name}_1.pth")["weights"]
        moved = {
            part: max(
                (after[k] - v).abs().max().item()
                for k, v in before.items()
                if k.startswith(part) and v.is_floating_point()
            )
            for part in ("key_encoder.backbone.", "value_encoder.backbone.", "decoder.")
        }
        assert moved["key_encoder.backbone."] == pytest.approx(1e-3 * factor, rel=0.02)
        assert moved["value_encoder.backbone."] == pytest.approx(1e-3, rel=0.02)
        assert moved["decoder."] == pytest.approx(1e-3, rel=0.02)


def test_mixed_precision_keeps_float32_weights(start: Train, tmp_path: Path) -> None:
    saves = tmp_path / "saves"
    assert start("whole", "-i", 3) == 0
    assert start("mixed", "-i", 3, is_mixed=True) == 0
    assert "cpu, float32" in (saves / "whole" / "log.txt").read_text()
    assert "cpu, bfloat16" in (saves / "mixed" / "log.txt").read_text()
    whole, mixed = (load(saves / n / f"{n}_3.pth")["weights"] for n in ("whole", "mixed"))
    name = "decoder.pred.weight"
    assert mixed[name].dtype == torch.float32
    assert not torch.equal(whole[name], mixed[name])
    losses = [curves(saves / n)["total_loss"][0][1] for n in ("whole", "mixed")]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


# Going on


def test_a_resumed_run_equals_an_uninterrupted_one(start: Train, tmp_path: Path) -> None:
    """Weights, optimiser and schedule, bit for bit; across steps, warm-up and epochs."""
    saves = tmp_path / "saves"
    flags = ("-b", 4, "--steps", 3, 8, "--start_warm", 2, "--end_warm", 7)
    assert start("whole", "-i", 10, *flags) == 0
    assert start("halves", "-i", 5, *flags) == 0
    checkpoint = saves / "halves" / "halves_checkpoint.pth"
    assert load(checkpoint)["iteration"] == 5
    assert start("halves", "-i", 10, *flags, "--load_model", checkpoint) == 0
    whole = load(saves / "whole" / "whole_checkpoint.pth")
    halves = load(checkpoint)
    for part in ("iteration", "weights", "optimizer", "random_states", "scaler", "spec"):
        assert_same(whole[part], halves[part])
    assert_same(
        load(saves / "whole" / "whole_10.pth")["weights"],
        load(saves / "halves" / "halves_10.pth")["weights"],
    )
    log = (saves / "halves" / "log.txt").read_text()
    assert [int(it) for it in re.findall(r" it (\d+) ", log)] == list(range(1, 11))


@pytest.fixture(scope="module")
def trained(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two iterations, named `done`; read only."""
    saves = tmp_path_factory.mktemp("trained")
    argv = ["--id", "done", "--static_root", str(synthetic / "static"), "--save_dir", str(saves)]
    assert train.main([*argv, *TINY, "-i", "2", "--backbone_weights", "none"]) == 0
    return saves / "done"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--lr 0.5", "--lr was 0.001 and is 0.5"),
        ("--seed 4", "--seed was 14159265 and is 4"),
        ("-b 3", "clips_per_update was 2 and is 3"),
        (
            "--global_batch 4 --seed 4",
            "clips_per_update was 2 and is 4; --seed was 14159265 and is 4",
        ),
        ("--crop_size 48", "--crop_size was 32 and is 48"),
        ("--steps 1", "--steps was [150000] and is [1]"),
    ],
)
def test_resuming_with_other_settings_is_refused(
    start: Train,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: str,
    sentence: str,
) -> None:
    checkpoint = trained / "done_checkpoint.pth"
    assert start("on", "-i", 4, "--load_model", checkpoint, *flags.split()) == 2
    said = capsys.readouterr().err
    assert f"{checkpoint} belongs to a run with other settings: {sentence}. Resume with" in said
    assert not (tmp_path / "saves").exists()


def test_what_cannot_be_resumed(
    start: Train,
    synthetic: Path,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    shutil.copytree(synthetic / "static" / "FSS", tmp_path / "fewer" / "FSS")
    fewer = f"--static_root {tmp_path / 'fewer'}"
    for path, flags, sentence in [
        (trained / "done_2.pth", "", "is no checkpoint to resume from: give the file that ends"),
        (trained / "done_checkpoint.pth", "--size small", "holds another network"),
        (trained / "done_checkpoint.pth", fewer, "other settings: num_samples was 30 and is 4"),
        (trained / "done_checkpoint.pth", "-i 1", "is at iteration 2 already, but the run ends"),
        (tmp_path / "none.pth", "", "There is no file"),
        (tmp_path / "text.pth", "", "is not a checkpoint that torch can read"),
    ]:
        assert start("on", "-i", 4, "--load_model", path, *flags.split()) == 2
        said = capsys.readouterr().err
        assert said.startswith("train.py: error: ")
        assert str(path) in said
        assert sentence in said
    assert not (tmp_path / "saves").exists()


def test_a_finished_run_has_nothing_left_to_do(start: Train, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "saves" / "done")
    checkpoint = tmp_path / "saves" / "done" / "done_checkpoint.pth"
    before = checkpoint.read_bytes()
    assert start("done", "-i", 2, "--load_model", checkpoint) == 0
    assert checkpoint.read_bytes() == before


def test_a_run_is_not_overwritten(
    start: Train, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "saves" / "done"
    shutil.copytree(trained, folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert start("done", "-i", 4) == 2
    said = capsys.readouterr().err
    assert "There is a run done already. Go on with it by --load_model" in said
    assert str(folder / "done_checkpoint.pth") in said
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_run_may_go_on_in_other_passes(start: Train, trained: Path, tmp_path: Path) -> None:
    """The same clips an update, in two passes of one instead of one of two."""
    shutil.copytree(trained, tmp_path / "saves" / "done")
    flags = ("-b", 1, "--global_batch", 2, "--load_model", "auto")
    assert start("done", "-i", 4, *flags) == 0
    assert load(tmp_path / "saves" / "done" / "done_checkpoint.pth")["iteration"] == 4


def test_a_run_may_go_on_where_gradients_are_scaled(synthetic: Path, trained: Path) -> None:
    """From a CPU, which trains in bfloat16 or float32, to a GPU, which trains in float16."""
    flags = ["--id", "done", "--static_root", str(synthetic), "--save_dir", str(trained.parent)]
    settings = parse_one([*flags, *TINY, "-i", "4", "--backbone_weights", "none"])
    network, cpu = start_network(settings), torch.device("cpu")
    record = load(trained / "done_checkpoint.pth")["record"]
    trainer = Trainer(network, settings, record, cpu, torch.float16, Ranks())
    resume(trainer, trained / "done_checkpoint.pth")
    assert trainer.iteration == 2
    assert trainer.scaler.get_scale() > 1
    assert_same(trainer.network.state_dict(), load(trained / "done_2.pth")["weights"])


# Starting from weights


def started(*flags: object) -> dict[str, torch.Tensor]:
    settings = parse_one(["--id", "x", "--size", "tiny", *map(str, flags)])
    return start_network(settings).state_dict()


def test_a_run_starts_from_its_own_weights(start: Train, trained: Path, tmp_path: Path) -> None:
    path = trained / "done_2.pth"
    assert_same(started("--load_network", path), load(path)["weights"])
    assert start("next", "-i", 1, "--load_network", path, "--lr", 1e-5) == 0
    content = load(tmp_path / "saves" / "next" / "next_checkpoint.pth")
    assert content["iteration"] == 1
    before, after = load(path)["weights"], content["weights"]
    change = (after["decoder.pred.weight"] - before["decoder.pred.weight"]).abs().max()
    assert 0 < change < 2e-5  # one step of Adam


def test_the_checkpoint_is_no_network(trained: Path) -> None:
    with pytest.raises(ValueError, match=r"_checkpoint\.pth is a checkpoint to resume train"):
        started("--load_network", trained / "done_checkpoint.pth")


def test_a_run_starts_from_published_weights(tmp_path: Path) -> None:
    shapes = json.loads(REFERENCE.read_text())["train_single_object"]
    published = fill_weights(shapes)
    path = tmp_path / "stcn_s0.pth"
    torch.save(published, path)
    with pytest.raises(ValueError, match=r"stcn_s0.pth holds stcn base, but stcn tiny is to be"):
        started("--load_network", path)
    weights = started("--load_network", path, "--size", "base")
    _, expected = convert_published(published, path)
    assert_same(weights, dict(expected))
    name = "value_encoder.conv1.weight"
    assert torch.equal(weights["value_encoder.backbone.conv1.weight"], published[name])


def test_weights_that_do_not_fit(
    start: Train,
    trained: Path,
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for path, flags, sentence in [
        (trained / "done_2.pth", "--size small", "holds stcn tiny, but stcn small is to be train"),
        (tiny_weights, "", "was trained with several objects (stages 1 to 3)"),
        (tmp_path / "none.pth", "", "There is no file"),
    ]:
        assert start("x", "-i", 1, "--load_network", path, *flags.split()) == 2
        assert f"{path} {sentence}" in capsys.readouterr().err.replace(
            f"There is no file {path}", f"{path} There is no file"
        )
    assert not (tmp_path / "saves").exists()


def test_backbone_weights(tmp_path: Path) -> None:
    """A file of a ResNet fills the key encoder's backbone, half precision and layer4 or not.

    Also over --load_network's.
    """
    network = start_network(parse_one("--id x --size tiny --backbone_weights none".split()))
    theirs = {k: v.half() for k, v in network.key_encoder.backbone.state_dict().items()}
    path = tmp_path / "backbone.pth"
    torch.save({**theirs, "layer4.0.conv1.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}, path)
    weights = started("--backbone_weights", path)
    for name, tensor in theirs.items():
        assert torch.equal(weights[f"key_encoder.backbone.{name}"], tensor.to(weights[
            f"key_encoder.backbone.{name}"].dtype))  # fmt: skip
    start_from = tmp_path / "start.pth"
    save_network(start_from, network, {})
    torch.save({k: v + 1 for k, v in theirs.items()}, path)
    weights = started("--load_network", start_from, "--backbone_weights", path)
    name = "layer1.0.conv1.weight"
    assert torch.equal(weights[f"key_encoder.backbone.{name}"], (theirs[name] + 1).float())
    assert torch.equal(weights["decoder.pred.weight"], network.decoder.pred.weight)

    del theirs["layer1.0.conv1.weight"]
    torch.save(theirs, path)
    with pytest.raises(
        ValueError, match=r"backbone.pth do not fit. Missing: layer1.0.conv1.weight"
    ):
        started("--backbone_weights", path)


def test_imagenet_weights_without_a_network(
    start: Train,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("name resolution")

    monkeypatch.setattr(torchvision.models.ResNet50_Weights, "get_state_dict", unreachable)
    assert start("x", "--backbone_weights", "imagenet", "--size", "small") == 2
    said = capsys.readouterr().err
    assert "The ImageNet weights cannot be downloaded" in said
    assert "give a file of a ResNet with --backbone_weights, or none" in said
    assert start("x", "--backbone_weights", "imagenet") == 2
    said = capsys.readouterr().err
    assert "There are no ImageNet weights for --size tiny: give --backbone_weights none." in said
    assert not (tmp_path / "saves").exists()


# What goes wrong


def test_a_loss_that_is_not_finite_stops_the_run(
    start: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was saved before stays, and can be gone on from."""
    assert start("wild", "-i", 9, "--lr", 1e30, "--save_interval", 1) == 2
    said = capsys.readouterr().err
    assert re.search(
        r"train.py: error: The loss is (nan|inf) at iteration 1. The batch and the weights that "
        r"gave it are in .*bad_batch_1_rank0.pth. Go on from .* with --no_amp, or start anew with",
        said,
    )
    assert "Traceback" not in said
    folder = tmp_path / "saves" / "wild"
    assert {path.name for path in folder.glob("*.pth")} == {
        "wild_1.pth", "wild_1_checkpoint.pth", "wild_checkpoint.pth", "bad_batch_1_rank0.pth",
    }  # fmt: skip
    bad = load(folder / "bad_batch_1_rank0.pth")
    assert bad["images"].shape == (2, 3, 3, 32, 32)
    assert bad["labels"].shape == (2, 3, 32, 32)
    assert not math.isfinite(bad["scalars"]["total_loss"])
    assert_same(bad["weights"], load(folder / "wild_1.pth")["weights"])
    assert load(folder / "wild_checkpoint.pth")["iteration"] == 1
    assert [step for step, _ in curves(folder)["total_loss"]] == [1]


def test_data_that_is_missing(
    start: Train, synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(synthetic / "static", tmp_path / "damaged")
    (tmp_path / "damaged" / "ECSSD" / "image0001.png").unlink()
    for name, sentence in [
        ("nowhere", "There is no folder"),
        ("empty", "holds no images with masks"),
        ("damaged", "ECSSD have no mask of the same name"),
    ]:
        assert start("x", "-i", 1, "--static_root", tmp_path / name) == 2
        said = capsys.readouterr().err
        assert said.startswith("train.py: error: ")
        assert sentence in said
        assert str(tmp_path / name) in said
    assert not (tmp_path / "saves").exists()


class LoaderAsWorkersAnswer:
    """Raises as a loader with workers does (which take 5 s to collect once one has failed)."""

    def __init__(self, clips: StaticClips, batch_sampler: ClipBatches, **_: Any) -> None:
        self.clips, self.batches = clips, batch_sampler

    def __iter__(self) -> Iterator[ClipSample]:
        for batch in self.batches:
            try:
                yield default_collate([self.clips[key] for key in batch])
            except ValueError:
                ExceptionWrapper(where="in DataLoader worker process 0").reraise()


@pytest.mark.parametrize("has_workers", [False, True])
def test_a_truncated_image_is_named_in_one_sentence(
    start: Train,
    synthetic: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    truncate: Callable[[Path], None],
    has_workers: bool,
) -> None:
    """Also from a worker, whose traceback would be in the way."""
    root = tmp_path / "static"
    shutil.copytree(synthetic / "static" / "ECSSD", root / "ECSSD")
    truncate(root / "ECSSD" / "image0001.jpg")
    if has_workers:
        monkeypatch.setattr(train, "DataLoader", LoaderAsWorkersAnswer)
    assert start("x", "-i", 3, "--static_root", root) == 2
    said = capsys.readouterr().err
    assert re.search(r"^train.py: error: .*image0001\.jpg cannot be read", said, re.MULTILINE)
    assert "Traceback" not in said


def test_a_folder_that_cannot_be_written(
    start: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "saves").write_text("a file in the folder's place")
    assert start("x", "-i", 1) == 2
    assert str(tmp_path / "saves") in capsys.readouterr().err


def test_the_environment_is_recorded(start: Train, tmp_path: Path) -> None:
    assert start("told", "-i", 1) == 0
    assert start("told", "-i", 2, "--load_model", "auto") == 0
    first, second = json.loads((tmp_path / "saves" / "told" / "environment.json").read_text())
    assert (first["iteration"], second["iteration"]) == (0, 1)
    assert first["settings"]["id"] == "told"
    assert first["dataset_sizes"]["FSS"] == 4
    assert (first["num_samples"], first["clips_per_update"]) == (30, 2)
    assert first["packages"]["numpy"] == np.__version__
    assert first["cores"] >= 1
    lines = (tmp_path / "saves" / "told" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2]
    assert json.loads(lines[0]).keys() == SCALARS | {"iteration"}


def test_passes_give_the_loss_of_the_whole_batch(start: Train, tmp_path: Path) -> None:
    saves = tmp_path / "saves"
    assert start("whole", "-i", 3, "-b", 4) == 0
    assert start("parts", "-i", 3, "-b", 2, "--global_batch", 4) == 0
    whole, parts = (curves(saves / name) for name in ("whole", "parts"))
    for (_, a), (_, b) in zip(whole["total_loss"], parts["total_loss"], strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_the_clips_of_an_update_are_dealt_out() -> None:
    def share(processes: int, *flags: str) -> tuple[int, int]:
        return share_of_update(parse_one(["--id", "x", *flags]), processes)

    assert share(3, "-b", "8") == (8, 1)
    assert share(2, "-b", "8", "--global_batch", "16") == (8, 1)
    assert share(4, "-b", "8", "--global_batch", "16") == (4, 1)
    assert share(1, "-b", "4", "--global_batch", "10") == (10, 5)  # the fewest that divide
    assert share(1, "-b", "4", "--global_batch", "7") == (7, 7)
    with pytest.raises(ValueError, match="--global_batch 16 cannot be dealt out evenly to 3 proc"):
        share(3, "--global_batch", "16")


def test_going_back_leaves_the_abandoned_branch(start: Train, tmp_path: Path) -> None:
    """Later checkpoints of another branch are neither resumed nor kept at the new ones' cost."""
    flags = ("--save_interval", 2, "--keep_last", 2)
    assert start("back", "-i", 8, *flags, "--milestones", 2) == 0
    folder = tmp_path / "saves" / "back"
    old = folder / "back_2_checkpoint.pth"
    assert start("back", "-i", 4, *flags, "--load_model", old) == 0
    assert load(folder / "back_checkpoint.pth")["iteration"] == 4
    assert (folder / "back_4_checkpoint.pth").exists()
    assert start("back", "-i", 6, *flags, "--load_model", "auto") == 0
    assert [step for step, _ in curves(folder)["total_loss"]] == [1, 2, 3, 4, 5, 6]


def test_runs_are_not_mixed(
    start: Train,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(train, "_LOCK_PATIENCE", 0.1)
    assert start("own", "-i", 1) == 0
    assert start("own", "-i", 4, "--load_model", trained / "done_checkpoint.pth") == 2
    assert "would mix with another: choose another --id" in capsys.readouterr().err
    with claimed(tmp_path / "saves" / "own"):
        assert start("own", "-i", 4, "--load_model", "auto") == 2
    assert "Another run is writing to" in capsys.readouterr().err


def test_a_run_may_go_on_in_full_precision(start: Train, tmp_path: Path) -> None:
    """As the message about losses that are not finite advises."""
    assert start("half", "-i", 1, is_mixed=True) == 0
    assert start("half", "-i", 2, "--load_model", "auto") == 0


def test_videos_go_on_at_their_place_in_the_jump_schedule(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage 3, in passes, interrupted between two saves and across a change of the jump."""

    def run(name: str) -> int:
        flags = ["--id", name, "--stage", "3", "--save_dir", str(tmp_path), *TINY, "-i", "12"]
        flags += ["--davis_root", str(synthetic / "DAVIS"), "--yv_root", str(synthetic / "YouTube")]
        flags += ["--global_batch", "4", "--save_interval", "3", "--load_model", "auto"]
        flags += ["--jumps", "1", "9", "--jump_fractions", "0.4", "--backbone_weights", "none"]
        return train.main(flags)

    assert run("whole") == 0
    step = Trainer.step

    def interrupted(self: Trainer, *args: Any) -> Any:
        if self.iteration == 5:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(Trainer, "step", interrupted)
    assert run("cut") == INTERRUPTED
    monkeypatch.setattr(Trainer, "step", step)
    assert run("cut") == 0
    names = [tmp_path / name / f"{name}_12.pth" for name in ("whole", "cut")]
    assert_same(*(load(path)["weights"] for path in names))
    logs = [(path.parent / "log.jsonl").read_text().splitlines() for path in names]
    losses = [[json.loads(line)["total_loss"] for line in log] for log in logs]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 12


def test_compiling_needs_a_compiler(
    start: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.compiled.has_compiler", lambda: False)
    assert start("x", "-i", 1, "--compile") == 2
    assert "--compile needs a C++ compiler" in capsys.readouterr().err


@pytest.mark.skipif(not has_compiler(), reason="torch.compile needs a C++ compiler")
def test_the_compiled_network_gives_the_same_loss(start: Train, tmp_path: Path) -> None:
    assert start("eager", "-i", 2, "-b", 1) == 0
    assert start("compiled", "-i", 2, "-b", 1, "--compile") == 0
    saves = tmp_path / "saves"
    eager, compiled = (curves(saves / name)["total_loss"] for name in ("eager", "compiled"))
    for (_, a), (_, b) in zip(eager, compiled, strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    names = [
        load(saves / name / f"{name}_2.pth")["weights"].keys() for name in ("eager", "compiled")
    ]
    assert names[0] == names[1]
