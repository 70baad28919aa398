"""Files of weights: ours, published ones, and everything else that users hand in by mistake."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from model import checkpoint
from model.backbones import ResNetBackbone
from model.checkpoint import (
    convert_published,
    load_backbone,
    load_for_inference,
    load_network,
    read_file,
    read_weights,
    save_network,
    widen,
    write_file,
)
from model.methods import METHODS, build_network
from model.network import NetworkSpec
from model.reference import fill_weights
from model.start import start_network
from model.trainer import Trainer
from model.training_state import checkpoint_path, resume, save
from tests.test_network import random_inputs, segment, tiny_network
from util.hyper_para import TrainSettings
from util.ranks import Ranks

HERE = Path(__file__).parent
CPU = torch.device("cpu")


def shapes_of(folder: Path, method: str, variant: str = "eval") -> dict[str, list[int]]:
    return json.loads((folder / f"{method}_state_dict.json").read_text())[variant]


def stcn_names(variant: str = "eval") -> dict[str, Any]:
    """A published state_dict without the numbers."""
    shapes = shapes_of(HERE / "reference", "stcn", variant)
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return fill_weights(shapes_of(HERE / "reference", "stcn"))


@pytest.fixture
def tiny_content(tmp_path: Path) -> dict[str, Any]:
    """What is in a file of our own; tests write it back changed."""
    save_network(tmp_path / "whole.pth", tiny_network(), {})
    return read_file(tmp_path / "whole.pth")


# --- our own files


def test_a_network_comes_back_with_its_record(tmp_path: Path) -> None:
    path, network = tmp_path / "new folder" / "tiny.pth", tiny_network()
    save_network(path, network, {"settings": {"lr": 1e-5}, "iteration": 7, "git": "abc"})
    for loaded in (load_network(path), load_for_inference(str(path))):
        assert loaded.spec == network.spec
        weights = loaded.state_dict()
        assert weights.keys() == network.state_dict().keys()
        assert all(torch.equal(weights[k], v) for k, v in network.state_dict().items())
    record = read_file(path)["record"]
    assert record == {"settings": {"lr": 1e-5}, "iteration": 7, "git": "abc"}


def test_half_precision_weights_load_as_float32(tmp_path: Path) -> None:
    network = tiny_network().half()
    save_network(tmp_path / "half.pth", network, {})
    _, weights = read_weights(tmp_path / "half.pth")
    for loaded in (weights, load_for_inference(tmp_path / "half.pth").state_dict()):
        for name, tensor in loaded.items():
            kind = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
            assert tensor.dtype == kind, name
            assert torch.equal(tensor, network.state_dict()[name].to(kind)), name


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.pth"
    save_network(path, tiny_network(), {"iteration": 1})
    before = path.read_bytes()

    def fill_disk(content: Any, target: Path) -> None:
        Path(target).write_bytes(b"half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        save_network(path, tiny_network(), {"iteration": 2})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.pth"]


def test_differences_are_listed(tmp_path: Path, tiny_content: dict[str, Any]) -> None:
    weights = dict(tiny_content["weights"])
    weights["decoder.extra.weight"] = weights.pop("decoder.pred.weight")
    weights["key_encoder.key_proj.bias"] = torch.zeros(9)
    write_file(tmp_path / "odd.pth", {**tiny_content, "weights": weights})
    with pytest.raises(ValueError, match=r"The weights in .*odd.pth do not fit") as raised:
        load_for_inference(tmp_path / "odd.pth")
    message = str(raised.value)
    assert "Missing: decoder.pred.weight." in message
    assert "Extra: decoder.extra.weight." in message
    assert "Of another shape: key_encoder.key_proj.bias (9,) instead of (8,)." in message


@pytest.mark.parametrize("change", [{"spec": {"colour": "red"}}, {"weights": None}])
def test_files_of_another_version_are_refused(
    tmp_path: Path, tiny_content: dict[str, Any], change: dict[str, Any]
) -> None:
    content = {**tiny_content, **change}
    content = {key: value for key, value in content.items() if value is not None}
    write_file(tmp_path / "newer.pth", content)
    with pytest.raises(ValueError, match=r"newer.pth was written by another version of this code"):
        load_for_inference(tmp_path / "newer.pth")


# --- stage 0


@pytest.fixture
def stage0(tmp_path: Path) -> Path:
    save_network(tmp_path / "stage0.pth", tiny_network(is_single_object=True), {})
    return tmp_path / "stage0.pth"


def test_stage_0_evaluates_as_it_was_trained(stage0: Path) -> None:
    network = load_for_inference(stage0).eval()
    assert not network.spec.is_single_object
    first = network.value_encoder.backbone.conv1.weight
    assert first.shape[1] == 5
    assert not first[:, 4].any()
    image, masks = random_inputs(1, 1)
    expected = segment(tiny_network(is_single_object=True), image, masks)
    torch.testing.assert_close(segment(network, image, masks), expected, rtol=1e-5, atol=1e-5)


def test_stage_0_goes_on_from_an_orthogonal_channel(stage0: Path) -> None:
    networks = [load_network(stage0, seed=seed) for seed in (3, 3, 4)]
    first, again, other = (n.value_encoder.backbone.conv1.weight.detach() for n in networks)
    trained = tiny_network(is_single_object=True).value_encoder.backbone.conv1.weight
    assert torch.equal(first[:, :4], trained)
    rows = first[:, 4].flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(8), rtol=1e-5, atol=1e-5)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)

    state = torch.get_rng_state()
    widen(tiny_network(is_single_object=True).state_dict(), orthogonal_seed=5)
    assert torch.equal(torch.get_rng_state(), state)  # a run's own randomness goes on


def test_stage_0_can_be_continued_but_not_started_from_later_stages(
    stage0: Path, tmp_path: Path
) -> None:
    same = load_network(stage0, is_single_object=True)
    assert same.spec.is_single_object
    assert same.value_encoder.backbone.conv1.weight.shape[1] == 4
    save_network(tmp_path / "stage3.pth", tiny_network(), {})
    with pytest.raises(ValueError, match=r"stage3.pth was trained with several objects.*--stage 3"):
        load_network(tmp_path / "stage3.pth", is_single_object=True)


# --- published files


def test_published_names_convert(published: dict[str, torch.Tensor]) -> None:
    spec, weights = convert_published(published, "stcn.pth")
    assert spec == NetworkSpec("stcn", "base", is_single_object=False)
    with torch.device("meta"):
        network = build_network(spec)
    network.load_state_dict(dict(weights), assign=True)
    key_weight = published["key_proj.key_proj.weight"]
    assert network.key_encoder.key_proj is not None
    assert torch.equal(network.key_encoder.key_proj.weight, key_weight)
    block_weight = network.state_dict()["key_encoder.backbone.layer1.2.conv3.weight"]
    assert torch.equal(block_weight, published["key_encoder.res2.2.conv3.weight"])


@pytest.mark.parametrize("variant", ["eval", "train_multi_object", "train_single_object"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_networks_of_all_stages_are_recognised(variant: str, prefix: str) -> None:
    content = {prefix + name: tensor for name, tensor in stcn_names(variant).items()}
    spec, weights = convert_published(content, "stcn.pth")
    assert spec.is_single_object == (variant == "train_single_object")
    with torch.device("meta"):
        ours = build_network(spec).state_dict()
    assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in ours.items()}


def test_a_published_file_in_half_precision(
    tmp_path: Path, published: dict[str, torch.Tensor]
) -> None:
    half = {f"module.{k}": v.half() if v.is_floating_point() else v for k, v in published.items()}
    torch.save(half, tmp_path / "half.pth")
    weights = load_for_inference(tmp_path / "half.pth").state_dict()
    assert weights["decoder.pred.weight"].dtype == torch.float32
    assert torch.equal(weights["decoder.pred.weight"], half["module.decoder.pred.weight"].float())
    mean, bias = (
        half["module.value_encoder.bn1.running_mean"],
        half["module.value_encoder.conv1.bias"],
    )
    folded = weights["value_encoder.backbone.bn1.running_mean"]
    assert torch.equal(folded, mean.float() - bias.float())  # not rounded to half again


def test_biases_ahead_of_batch_norms_are_folded_exactly(
    published: dict[str, torch.Tensor],
) -> None:
    """The published value encoder, biases and all, against ours, which has none."""
    names = {
        k.removeprefix("value_encoder."): v
        for k, v in published.items()
        if k.startswith("value_encoder.") and ".fuser." not in k
    }
    theirs = ResNetBackbone(18, in_channels=5)
    for module in theirs.modules():
        if isinstance(module, nn.Conv2d):
            module.bias = nn.Parameter(torch.zeros(module.out_channels))
    theirs.load_state_dict(names)  # strict: every published tensor has its place

    prefix = "value_encoder.backbone."
    weights = convert_published(published, "stcn.pth")[1]
    ours = ResNetBackbone(18, in_channels=5)
    ours.load_state_dict({k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)})
    planes = torch.randn(1, 5, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for expected, got in zip(theirs.eval()(planes), ours.eval()(planes), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_made_up_names_are_refused(tmp_path: Path) -> None:
    content = {f"backbone.layer{i}.weight": torch.zeros(2) for i in range(20)}
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth is no checkpoint of a method known") as raised:
        load_for_inference(tmp_path / "other.pth")
    message = str(raised.value)
    assert "the nearest is " in message
    assert "Missing: key_encoder.backbone.conv1.weight" in message
    assert "Extra: backbone.layer0.weight" in message
    assert "and 8 more" in message
    assert len(message) < 2500


@pytest.mark.parametrize("method", [*METHODS])
@pytest.mark.parametrize("variant", ["train_multi_object", "train_single_object"])
def test_published_weights_load_for_evaluation_and_for_training(
    method: str, variant: str, tmp_path: Path
) -> None:
    """From a file of the published names, through the loaders that the scripts use."""
    shapes = shapes_of(HERE / "reference", method, variant)
    assert variant != "train_multi_object" or shapes == shapes_of(HERE / "reference", method)
    path = tmp_path / "published.pth"
    torch.save(fill_weights(shapes), path)
    is_stage_0 = variant == "train_single_object"
    evaluated = load_for_inference(path)
    # RDE's stage 0 network holds the tensors of STCN's, and evaluates as that.
    assert evaluated.spec.method == ("stcn" if method == "rde" and is_stage_0 else method)
    assert not evaluated.spec.is_single_object
    goes_on = load_network(path, is_single_object=False, method=method)
    assert goes_on.spec == NetworkSpec(method)
    backbone = goes_on.value_encoder.backbone.conv1.weight
    assert backbone.shape[1] == 5
    assert (backbone[:, 4] != 0).any()
    if is_stage_0:
        assert not evaluated.value_encoder.backbone.conv1.weight[:, 4].any()
        assert load_network(path, is_single_object=True, method=method).spec.is_single_object
    else:
        with pytest.raises(ValueError, match=r"trained with several objects"):
            load_network(path, is_single_object=True, method=method)
    settings = TrainSettings(
        id="x", method=method, stage="3", load_network=str(path), backbone_weights="imagenet"
    )
    assert start_network(settings).spec == NetworkSpec(method)


def test_our_own_stage_0_of_rde_says_what_it_is_evaluated_as(tmp_path: Path) -> None:
    network = build_network(NetworkSpec("rde", "tiny", is_single_object=True))
    save_network(tmp_path / "s0.pth", network, {})
    with pytest.warns(UserWarning, match="stage 0 weights of rde, .* evaluated as stcn"):
        assert load_for_inference(tmp_path / "s0.pth").spec.method == "stcn"
    assert load_network(tmp_path / "s0.pth").spec == NetworkSpec("rde", "tiny")


def test_published_tensors_of_another_shape_are_listed(tmp_path: Path) -> None:
    content = stcn_names()
    content["value_encoder.conv1.bias"] = torch.empty(3, device="meta")
    with pytest.raises(ValueError, match=r"Extra: value_encoder.backbone.conv1.bias\."):
        convert_published(content, "odd.pth")
    content = stcn_names()
    content["key_comp.bias"] = torch.empty(3, device="meta")
    _, weights = convert_published(content, "odd.pth")
    with pytest.raises(ValueError, match=r"key_encoder.thin_proj.bias \(3,\) instead of \(512,\)"):
        checkpoint._fill(build_network(NetworkSpec()), weights, "odd.pth")


# --- files that are no weights


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello\n",
        b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        b'{"weights": []}',
        b"PK\x03\x04 no zip after all",
        b"compute\nthis\n",
        bytes(200),
    ],
)
def test_other_kinds_of_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    message = rf"weights.pth is not a checkpoint that torch can read \({len(content)} bytes\)"
    with pytest.raises(ValueError, match=message):
        load_for_inference(path)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float, is_zip: bool) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"a": torch.ones(5000)}, path, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"cut.pth is not a checkpoint .* cut short"):
        load_for_inference(path)


class _Trap:
    """Pickles to a call that makes a folder."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call = (call, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("call", [os.mkdir, exec])
def test_pickled_code_is_not_run(tmp_path: Path, call: Callable[..., Any], is_zip: bool) -> None:
    marker = tmp_path / "was here"
    argument = str(marker) if call is os.mkdir else f"import os; os.mkdir({str(marker)!r})"
    path = tmp_path / "evil.pth"
    torch.save({"w": _Trap(call, argument)}, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match=r"evil.pth holds pickled Python objects.*not loaded"):
        load_for_inference(path)
    path.write_bytes(pickle.dumps({"w": _Trap(call, argument)}))
    with pytest.raises(ValueError, match=r"evil.pth holds pickled Python objects"):
        load_for_inference(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists()  # the trap works


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ValueError, match=r"torch.save\(model.state_dict\(\), path\)"):
        load_for_inference(tmp_path / "module.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(3), "holds a Tensor, not a dictionary of weights"),
        ([torch.ones(3)], "holds a list, not a dictionary of weights"),
        ({}, "holds nothing, not a state_dict"),
        ({0: torch.ones(3)}, "is no checkpoint of a method known here"),
        ({"it": 5, "network": {}}, "holds it, network, not a state_dict: .*without _checkpoint"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=f"odd.pth {message}"):
        load_for_inference(tmp_path / "odd.pth")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(ValueError, match=re.escape(f"There is no file {path}: give the path")):
            load_network(path)


def test_a_checkpoint_to_resume_from_is_no_file_of_weights(tmp_path: Path) -> None:
    settings = TrainSettings(id="run", size="tiny", save_dir=str(tmp_path), device="cpu")
    trainer = Trainer(tiny_network(), settings, {"settings": {}}, CPU, torch.float32, Ranks())
    save(trainer)
    with pytest.raises(ValueError, match="is a checkpoint to resume training from: give the"):
        load_for_inference(checkpoint_path(trainer.settings))
    weights = load_for_inference(trainer.folder / "run_0.pth").state_dict()
    assert torch.equal(weights["decoder.pred.weight"], tiny_network().decoder.pred.weight)
    with pytest.raises(ValueError, match=r"run_0.pth is no checkpoint to resume from"):
        resume(trainer, trainer.folder / "run_0.pth")


# --- ImageNet's backbones


def test_a_backbone_is_filled_from_torchvision() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18().eval()
    weights = {k: v for k, v in theirs.state_dict().items() if "num_batches" not in k}
    image = torch.randn(1, 3, 32, 32)
    backbone = ResNetBackbone(18).eval()
    load_backbone(backbone, weights, "resnet18.pth")
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        feat4 = theirs.layer1(x)
        feat8 = theirs.layer2(feat4)
        for got, expected in zip(
            backbone(image), (feat4, feat8, theirs.layer3(feat8)), strict=True
        ):
            torch.testing.assert_close(got, expected)

    with_masks = ResNetBackbone(18, in_channels=5)
    load_backbone(with_masks, weights, "resnet18.pth")
    first = with_masks.conv1.weight.detach()
    assert torch.equal(first[:, :3], weights["conv1.weight"])
    columns = first[:, 3:].flatten(1)  # (64, 98)
    torch.testing.assert_close(columns @ columns.T, torch.eye(64), rtol=1e-4, atol=1e-5)

    with pytest.raises(ValueError, match=r"resnet18.pth do not fit.*Missing: layer1.0.conv3"):
        load_backbone(ResNetBackbone(50), weights, "resnet18.pth")
