"""Initial weights of a run: its own, published ones, and those of backbones."""

from __future__ import annotations

import json
import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision.models

from model.checkpoint import convert_published, save_network
from model.reference import fill_weights
from model.start import start_network
from tests.training_runs import (
    Train,
    assert_equal,
    load,
    load_weights,
    make_train,
    parse_one,
    train_done,
)

REFERENCE = Path(__file__).parent / "reference" / "stcn_state_dict.json"


@pytest.fixture
def start(synthetic: Path, tmp_path: Path) -> Train:
    return make_train(synthetic, tmp_path / "saves")


@pytest.fixture(scope="module")
def done(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of two iterations, named `done`; read only."""
    return train_done(synthetic, tmp_path_factory.mktemp("trained"))


def initial_weights(*options: object) -> dict[str, torch.Tensor]:
    settings = parse_one(["--id", "x", "--size", "tiny", *map(str, options)])
    return dict(start_network(settings).state_dict())


def test_run_starts_from_its_own_weights(start: Train, done: Path, tmp_path: Path) -> None:
    path = done / "done_2.pth"
    before = load_weights(done, 2)
    assert_equal(initial_weights("--load_network", path), before)
    assert start("next", "-i", 1, "--load_network", path, "--lr", 1e-5) == 0
    content = load(tmp_path / "saves" / "next" / "next_checkpoint.pth")
    assert content["iteration"] == 1
    after = content["weights"]
    change = (after["decoder.pred.weight"] - before["decoder.pred.weight"]).abs().max()
    assert 0 < change < 2e-5  # one step of Adam


def test_checkpoint_is_not_a_file_of_weights(done: Path) -> None:
    with pytest.raises(ValueError, match=r"_checkpoint\.pth is a checkpoint to resume train"):
        initial_weights("--load_network", done / "done_checkpoint.pth")


def test_run_starts_from_published_weights(tmp_path: Path) -> None:
    shapes = json.loads(REFERENCE.read_text())["train_single_object"]
    published = fill_weights(shapes)
    path = tmp_path / "stcn_s0.pth"
    torch.save(published, path)
    with pytest.raises(
        ValueError, match=r"stcn_s0.pth contains weights of --method stcn --size base, not of"
    ):
        initial_weights("--load_network", path)
    weights = initial_weights("--load_network", path, "--size", "base")
    _, expected = convert_published(published, path)
    assert_equal(weights, dict(expected))
    name = "value_encoder.conv1.weight"
    assert torch.equal(weights["value_encoder.backbone.conv1.weight"], published[name])


def test_weights_of_another_network_fail(
    start: Train,
    done: Path,
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other_size = "contains weights of --method stcn --size tiny, not of stcn small"
    for path, options, sentence in [
        (done / "done_2.pth", "--size small", f"{done / 'done_2.pth'} {other_size}"),
        (
            tiny_weights,
            "",
            f"{tiny_weights} was trained with several objects, but stage 0",
        ),
        (tmp_path / "none.pth", "", f"There is no file {tmp_path / 'none.pth'}"),
    ]:
        assert start("x", "-i", 1, "--load_network", path, *options.split()) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "saves").exists()


def test_file_of_a_resnet_fills_the_backbone(tmp_path: Path) -> None:
    """In half precision, with layer4 and fc; also after --load_network."""
    network = start_network(parse_one("--id x --size tiny --backbone_weights none".split()))
    resnet = {k: v.half() for k, v in network.key_encoder.backbone.state_dict().items()}
    path = tmp_path / "backbone.pth"
    extra = {"layer4.0.conv1.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}
    torch.save({**resnet, **extra}, path)
    weights = initial_weights("--backbone_weights", path)
    for name, tensor in resnet.items():
        loaded = weights[f"key_encoder.backbone.{name}"]
        assert torch.equal(loaded, tensor.to(loaded.dtype))
    start_from = tmp_path / "start.pth"
    save_network(start_from, network, {})
    torch.save({k: v + 1 for k, v in resnet.items()}, path)
    weights = initial_weights("--load_network", start_from, "--backbone_weights", path)
    name = "layer1.0.conv1.weight"
    assert torch.equal(weights[f"key_encoder.backbone.{name}"], (resnet[name] + 1).float())
    assert torch.equal(weights["decoder.pred.weight"], network.decoder.pred.weight)

    del resnet["layer1.0.conv1.weight"]
    torch.save(resnet, path)
    with pytest.raises(
        ValueError, match=r"backbone.pth do not fit. Missing: layer1.0.conv1.weight"
    ):
        initial_weights("--backbone_weights", path)


def test_imagenet_weights_without_a_connection(
    start: Train,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("name resolution")

    monkeypatch.setattr(torchvision.models.ResNet50_Weights, "get_state_dict", unreachable)
    assert start("x", "--backbone_weights", "imagenet", "--size", "small") == 2
    errors = capsys.readouterr().err
    assert "The ImageNet weights cannot be downloaded" in errors
    assert "give the file of a ResNet, or none, with --backbone_weights." in errors
    assert start("x", "--backbone_weights", "imagenet") == 2
    errors = capsys.readouterr().err
    assert "There are no ImageNet weights for --size tiny: give --backbone_weights none." in errors
    assert not (tmp_path / "saves").exists()
