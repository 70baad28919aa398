"""Published weights: checkpoints of the methods, and ImageNet weights of the backbones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from model import backbones, checkpoint
from model.backbones import ResNetBackbone
from model.checkpoint import convert_published, load_backbone, load_for_inference, load_network
from model.methods import METHODS, build_network
from model.network import NetworkSpec
from model.reference import fill_weights
from model.start import start_network
from util.hyper_para import TrainSettings

REFERENCE = Path(__file__).parent / "reference"


def read_shapes(method: str, variant: str = "eval") -> dict[str, list[int]]:
    """Read the tensor names and shapes of a published network."""
    return json.loads((REFERENCE / f"{method}_state_dict.json").read_text())[variant]


def stcn_names(variant: str = "eval") -> dict[str, Any]:
    """Make a published state_dict without numbers."""
    shapes = read_shapes("stcn", variant)
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return fill_weights(read_shapes("stcn"))


def test_published_names_are_converted(published: dict[str, torch.Tensor]) -> None:
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


def test_published_file_in_half_precision(
    tmp_path: Path, published: dict[str, torch.Tensor]
) -> None:
    half = {f"module.{k}": v.half() if v.is_floating_point() else v for k, v in published.items()}
    torch.save(half, tmp_path / "half.pth")
    weights = load_for_inference(tmp_path / "half.pth").state_dict()
    assert weights["decoder.pred.weight"].dtype == torch.float32
    assert torch.equal(weights["decoder.pred.weight"], half["module.decoder.pred.weight"].float())
    mean = half["module.value_encoder.bn1.running_mean"]
    bias = half["module.value_encoder.conv1.bias"]
    folded = weights["value_encoder.backbone.bn1.running_mean"]
    assert torch.equal(folded, mean.float() - bias.float())  # without rounding to half precision


def test_folding_of_biases_is_exact(
    published: dict[str, torch.Tensor],
) -> None:
    """Compare with the published value encoder, whose convolutions have biases."""
    names = {
        k.removeprefix("value_encoder."): v
        for k, v in published.items()
        if k.startswith("value_encoder.") and ".fuser." not in k
    }
    theirs = ResNetBackbone(18, in_channels=5)
    for module in theirs.modules():
        if isinstance(module, nn.Conv2d):
            module.bias = nn.Parameter(torch.zeros(module.out_channels))
    theirs.load_state_dict(names)  # strict: all published tensors are used

    prefix = "value_encoder.backbone."
    weights = convert_published(published, "stcn.pth")[1]
    ours = ResNetBackbone(18, in_channels=5)
    ours.load_state_dict({k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)})
    planes = torch.randn(1, 5, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for expected, result in zip(theirs.eval()(planes), ours.eval()(planes), strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


def test_unknown_names_are_an_error(tmp_path: Path) -> None:
    content = {f"backbone.layer{i}.weight": torch.zeros(2) for i in range(20)}
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth is not a checkpoint of a known") as raised:
        load_for_inference(tmp_path / "other.pth")
    message = str(raised.value)
    assert "the nearest is " in message
    assert "Missing: key_encoder.backbone.conv1.weight" in message
    assert "Extra: backbone.layer0.weight" in message
    assert "and 8 more" in message
    assert len(message) < 2500


@pytest.mark.parametrize("method", [*METHODS])
@pytest.mark.parametrize("variant", ["train_multi_object", "train_single_object"])
def test_published_weights_load_for_evaluation_and_training(
    method: str, variant: str, tmp_path: Path
) -> None:
    """With the functions that the commands call."""
    shapes = read_shapes(method, variant)
    assert variant != "train_multi_object" or shapes == read_shapes(method)
    path = tmp_path / "published.pth"
    torch.save(fill_weights(shapes), path)
    is_stage_0 = variant == "train_single_object"
    evaluated = load_for_inference(path)
    # After stage 0, RDE has STCN's tensors, and is evaluated as STCN.
    assert evaluated.spec.method == ("stcn" if method == "rde" and is_stage_0 else method)
    assert not evaluated.spec.is_single_object
    trained = load_network(path, is_single_object=False, method=method)
    assert trained.spec == NetworkSpec(method)
    backbone = trained.value_encoder.backbone.conv1.weight
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


def test_published_tensors_of_another_shape_are_listed() -> None:
    content = stcn_names()
    content["value_encoder.conv1.bias"] = torch.empty(3, device="meta")
    with pytest.raises(ValueError, match=r"Extra: value_encoder.backbone.conv1.bias\."):
        convert_published(content, "odd.pth")
    content = stcn_names()
    content["key_comp.bias"] = torch.empty(3, device="meta")
    _, weights = convert_published(content, "odd.pth")
    with pytest.raises(ValueError, match=r"key_encoder.thin_proj.bias \(3,\) instead of \(512,\)"):
        checkpoint._fill(build_network(NetworkSpec()), weights, "odd.pth")


def test_backbone_loads_weights_of_torchvision() -> None:
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
        features = (feat4, feat8, theirs.layer3(feat8))
        for result, expected in zip(backbone(image), features, strict=True):
            torch.testing.assert_close(result, expected)

    with_masks = ResNetBackbone(18, in_channels=5)
    load_backbone(with_masks, weights, "resnet18.pth")
    first = with_masks.conv1.weight.detach()
    assert torch.equal(first[:, :3], weights["conv1.weight"])
    rows = first[:, 3:].flatten(1)  # (64, 98)
    torch.testing.assert_close(rows @ rows.T, torch.eye(64), rtol=1e-4, atol=1e-5)

    with pytest.raises(ValueError, match=r"resnet18.pth do not fit.*Missing: layer1.0.conv3"):
        load_backbone(ResNetBackbone(50), weights, "resnet18.pth")


@pytest.mark.parametrize("depth", [18, 50])
def test_blocks_are_those_of_torchvision(depth: int) -> None:
    """Names, shapes, initialisation, outputs and gradients."""
    theirs = {18: torchvision.models.resnet18, 50: torchvision.models.resnet50}[depth]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        backbone = ResNetBackbone(depth).eval()
    names = [name for name in theirs.state_dict() if not name.startswith(("layer4.", "fc."))]
    assert [*backbone.state_dict()] == names
    stages = nn.ModuleList([theirs.layer1, theirs.layer2, theirs.layer3]).eval()
    ours = nn.ModuleList([backbone.layer1, backbone.layer2, backbone.layer3])
    stages.load_state_dict(ours.state_dict())
    for module in (stages, ours):
        torch.manual_seed(2)
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.normal_(norm.weight)  # the last one of a new block is 0
    results = []
    for module in (stages, ours):
        x = torch.randn(1, 64, 16, 16, generator=torch.Generator().manual_seed(3))
        x.requires_grad_()
        output = x
        for stage in module:
            output = stage(output)
        output.square().sum().backward()
        results.append((output, x.grad, next(module.parameters()).grad))
    for result, expected in zip(*results, strict=True):
        assert result is not None
        assert expected is not None
        assert torch.equal(result, expected)


@pytest.mark.parametrize("depth", [18, 50])
def test_initial_weights_are_drawn_in_the_order_of_torchvision(
    depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = torchvision.models.resnet
    drawn = []
    for types in (None, (blocks.BasicBlock, blocks.Bottleneck)):
        with monkeypatch.context() as patch, torch.random.fork_rng(devices=[]):
            if types is not None:
                block = types[depth > 18]
                patch.setitem(backbones._DEPTHS, depth, (block, backbones._DEPTHS[depth][1]))
                patch.setattr(backbones, "_BasicBlock", types[0])
                patch.setattr(backbones, "_Bottleneck", types[1])
            torch.manual_seed(4)
            drawn.append(ResNetBackbone(depth).state_dict())
    for name, tensor in drawn[0].items():
        assert torch.equal(tensor, drawn[1][name]), name
