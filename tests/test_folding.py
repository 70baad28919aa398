"""Folding of batch norms for inference, in the methods and in parts of one's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model.backbones import ResNetBackbone, _BasicBlock
from model.folding import BATCH_NORMS
from model.network import Network
from tests.tiny_networks import random_inputs, segment, tiny_network

CPU = torch.device("cpu")


class PreActivation(nn.Module):
    """Norms feed convolutions, and have the names of norms that follow them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.conv1(F.relu(self.bn1(x)))
        return x + self.conv2(F.relu(self.bn2(residual)))


class PostActivation(nn.Module):
    """Other names, and the pair that a part of one's own may name."""

    conv_norm_pairs = (("mix", "scale"),)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)
        self.scale = nn.BatchNorm2d(channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(F.relu(self.scale(self.mix(x))))


class Reordered(PostActivation):
    """A subclass with another order of the layers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.mix(F.relu(self.scale(x))))


class Standardised(nn.Conv2d):
    """A convolution that computes another weight, as in weight standardisation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight / weight.std((1, 2, 3), keepdim=True), self.bias)


def standardised(channels: int) -> nn.Module:
    part = PostActivation(channels)
    part.mix = Standardised(channels, channels, 1)
    return part


def without_statistics(channels: int) -> nn.Module:
    part = PostActivation(channels)
    part.scale = nn.BatchNorm2d(channels, track_running_stats=False)
    return part


def sequential(channels: int) -> nn.Module:
    norm = nn.BatchNorm2d(channels)
    return nn.Sequential(norm, nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.GELU())


PARTS = [
    PreActivation, PostActivation, Reordered, standardised, without_statistics, sequential,
    nn.BatchNorm2d,
]  # fmt: skip


def draw_statistics(module: nn.Module) -> None:
    """Draw weights and statistics of batch norms, which would have no effect without training."""
    generator = torch.Generator().manual_seed(1)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                if tensor is not None:
                    tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5


def with_feature_filter(make: Callable[[int], nn.Module]) -> Network:
    network = tiny_network()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network.key_encoder.feature_filter = make(network.key_encoder.backbone.channels[2])
    draw_statistics(network.key_encoder.feature_filter)
    return network.eval()


@pytest.mark.parametrize("make", PARTS)
def test_parts_of_ones_own_compute_the_same_at_inference(make: Callable[[int], nn.Module]) -> None:
    network = with_feature_filter(make)
    image, masks = random_inputs(1, 2)
    with torch.inference_mode():
        expected = segment(network, image, masks)
        folded = network.for_inference(CPU, torch.float32, exact=True)
        result = segment(folded, image, masks)
        torch.testing.assert_close(result, expected, atol=2e-5, rtol=2e-5)
        half = network.for_inference(CPU, torch.bfloat16)
        result = segment(half, image.bfloat16(), masks.bfloat16())
    close = (result - expected).abs() < 0.1 * expected.abs().max()
    assert close.float().mean() > 0.95


def test_named_pairs_are_folded() -> None:
    part = with_feature_filter(PostActivation).for_inference(CPU, torch.float32)
    names = [type(m).__name__ for m in part.key_encoder.feature_filter.modules()]
    assert names == ["PostActivation", "Conv2d", "Identity", "BatchNorm2d"]


@pytest.mark.parametrize("method", ["stcn", "gsfm", "qdmn", "rde", "imsfr"])
def test_methods_have_no_batch_norm_at_inference(method: str) -> None:
    network = tiny_network(method=method)
    assert any(isinstance(module, BATCH_NORMS) for module in network.modules())
    network = network.for_inference(CPU, torch.float32)
    assert not any(isinstance(module, BATCH_NORMS) for module in network.modules())


class PreActivationBlock(_BasicBlock):
    """A residual block in pre-activation order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.downsample is None
        x = self.conv1(self.relu(self.bn1(x.clone())))
        return x + self.conv2(self.relu(self.bn2(x)))


def pool_before_shortcut(backbone: ResNetBackbone) -> None:
    """As in ResNet-D."""
    channels, out_channels, _ = backbone.channels
    shortcut, norm = nn.Conv2d(channels, out_channels, 1), nn.BatchNorm2d(out_channels)
    backbone.layer2[0].downsample = nn.Sequential(nn.AvgPool2d(2), shortcut, norm)


def plain_shortcut(backbone: ResNetBackbone) -> None:
    channels, out_channels, _ = backbone.channels
    backbone.layer2[0].downsample = nn.Conv2d(channels, out_channels, 1, stride=2)


def shortcut_with_relu(backbone: ResNetBackbone) -> None:
    conv_and_norm = backbone.layer2[0].get_submodule("downsample")
    backbone.layer2[0].downsample = nn.Sequential(*conv_and_norm.children(), nn.ReLU())


def another_activation(backbone: ResNetBackbone) -> None:
    backbone.layer1[0].relu = nn.GELU()


def group_norm(backbone: ResNetBackbone) -> None:
    backbone.layer1[0].bn1 = nn.GroupNorm(2, backbone.channels[0])


def no_second_convolution(backbone: ResNetBackbone) -> None:
    backbone.layer1[0].conv2 = nn.Identity()


def pre_activation(backbone: ResNetBackbone) -> None:
    backbone.layer1 = nn.Sequential(PreActivationBlock(backbone.width, backbone.width))


@pytest.mark.parametrize(
    "change",
    [
        pool_before_shortcut, plain_shortcut, shortcut_with_relu, another_activation, group_norm,
        no_second_convolution, pre_activation,
    ],
)  # fmt: skip
def test_changed_residual_blocks_compute_the_same_at_inference(
    change: Callable[[ResNetBackbone], None],
) -> None:
    network = tiny_network()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        change(network.key_encoder.backbone)
    draw_statistics(network)
    network.eval()
    image = random_inputs(1, 1)[0]
    folded = network.for_inference(CPU, torch.float32, exact=True)
    with torch.inference_mode():
        expected = network.encode_image(image)
        for result, feature in zip(folded.encode_image(image), expected, strict=True):
            torch.testing.assert_close(result, feature, atol=2e-5, rtol=2e-5)


def test_statistics_do_not_change_in_training() -> None:
    network = with_feature_filter(PreActivation).train()
    before = {name: tensor.clone() for name, tensor in network.named_buffers()}
    network.encode_image(random_inputs(2, 1)[0])
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.named_buffers())
