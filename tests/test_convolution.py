"""Fused, joint and packed convolutions, compared with torch's."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from model.convolution import Conv2d, JointConv2d, Packing, find_packing
from model.methods import build_network
from model.network import NetworkSpec
from tests.tiny_networks import random_inputs, segment, tiny_network

CPU = torch.device("cpu")
# torch's convolution, oneDNN's, and this project's.
PACKINGS = [None, find_packing(CPU, torch.float32, exact=True), find_packing(CPU, torch.float32)]


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    values = torch.randn(*shape, generator=torch.manual_seed(seed))
    return values.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("channels", [6, 64])
@pytest.mark.parametrize(
    ("adds", "relu", "relu_first"), [*itertools.product([False, True], repeat=3)]
)
@pytest.mark.parametrize("options", [{"padding": 1}, {"stride": 2}, {"padding": 2, "dilation": 2}])
def test_convolution_fused_with_addition_and_relu(
    packing: Packing | None,
    adds: bool,
    relu: bool,
    relu_first: bool,
    channels: int,
    options: dict[str, int],
) -> None:
    plain = nn.Conv2d(channels, channels, 3, **options)  # type: ignore[arg-type]
    conv = Conv2d.of(plain)
    assert conv.state_dict().keys() == plain.state_dict().keys()
    conv.pack(packing)
    for height in (9, 12):  # packed for the first size, and used at another
        x = features(2, channels, height, 11)
        with torch.no_grad():
            expected = plain(F.relu(x) if relu_first else x)
            add = features(*expected.shape, seed=1) if adds else None
            before = None if add is None else add.clone()
            expected = expected if add is None else expected + add
            expected = F.relu(expected) if relu else expected
            result = conv(x, add=add, relu=relu, relu_first=relu_first)
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
        if add is not None:
            assert before is not None
            assert torch.equal(add, before), "the addend must not change"


@pytest.mark.parametrize("packing", PACKINGS)
def test_nan_stays_nan(packing: Packing | None) -> None:
    conv = Conv2d(2, 3, 1).requires_grad_(False)
    conv.weight[1] = float("nan")
    conv.pack(packing)
    result = conv(features(1, 2, 4, 4), relu=True)
    assert result[:, 1].isnan().all()
    assert result[:, [0, 2]].isfinite().all()


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("num_objects", [1, 2, 5])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("c", [1, 16])
def test_joint_convolution_of_own_and_shared_features(
    packing: Packing | None, num_objects: int, adds: bool, c: int
) -> None:
    conv = JointConv2d(c * 4 + c * 7, c * 8, 3, padding=1).requires_grad_(False)
    own, shared = features(num_objects, 4 * c, 6, 9), features(1, 7 * c, 6, 9, seed=1)
    add = features(num_objects, 8 * c, 6, 9, seed=2) if adds else None
    both = torch.cat([own, shared.expand(num_objects, -1, -1, -1)], 1)
    expected = F.conv2d(both, conv.weight, conv.bias, padding=1)
    expected = F.relu(expected if add is None else expected + add)
    conv.pack(packing)
    with torch.inference_mode():
        result = conv(own, shared, add=add, relu=True)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


def test_gradients_of_shared_features() -> None:
    conv = JointConv2d(3 + 2, 4, 3, padding=1)
    own, shared = features(2, 3, 5, 5).requires_grad_(), features(1, 2, 5, 5).requires_grad_()
    conv(own, shared, relu=True).sum().backward()
    assert own.grad is not None
    assert shared.grad is not None
    assert shared.grad.abs().sum() > 0
    assert conv.weight.grad is not None


@pytest.mark.parametrize("packing", PACKINGS)
def test_gradients_of_packed_convolutions(packing: Packing | None) -> None:
    conv = Conv2d(64, 64, 3, padding=1).requires_grad_(False)
    conv.pack(packing)
    x = features(1, 64, 4, 4).requires_grad_()
    conv(x, relu=True, relu_first=True).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("method", ["stcn", "gsfm", "qdmn", "rde", "imsfr"])
def test_network_for_inference_can_be_copied(method: str) -> None:
    network = build_network(NetworkSpec(method, "tiny")).for_inference(CPU, torch.float32)
    image = features(1, 3, 32, 48)
    with torch.inference_mode():
        expected = network.encode_query(network.encode_image(image)).key
        for other in (copy.deepcopy(network), network.for_inference(CPU, torch.float32)):
            torch.testing.assert_close(other.encode_query(other.encode_image(image)).key, expected)
        restored = pickle.loads(pickle.dumps(network))
        torch.testing.assert_close(
            restored.encode_query(restored.encode_image(image)).key, expected
        )
        half = network.for_inference(CPU, torch.bfloat16)
        assert half.encode_query(half.encode_image(image.bfloat16())).key.dtype == torch.bfloat16


class FusedConvolutions(TorchDispatchMode):
    """Run cuDNN's fused convolutions on a CPU.

    Args:
        relu: its ReLU.
    """

    def __init__(self, relu: Callable[[torch.Tensor], torch.Tensor] = F.relu) -> None:
        super().__init__()
        self._relu = relu
        self.num_fused = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.cudnn_convolution_add_relu.default:
            x, weight, add, alpha, bias, *place = args
            assert alpha == 1
            self.num_fused += 1
            return self._relu(F.conv2d(x, weight, bias, *place) + add)
        if func is torch.ops.aten.cudnn_convolution_relu.default:
            x, weight, bias, *place = args
            self.num_fused += 1
            return self._relu(F.conv2d(x, weight, bias, *place))
        return func(*args, **(kwargs or {}))


def without_nan(x: torch.Tensor) -> torch.Tensor:
    return F.relu(x.nan_to_num())


def unsupported(x: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("FIND was unable to find an engine to execute this computation")


@pytest.mark.parametrize(
    ("relu", "fuses"), [(F.relu, True), (without_nan, False), (F.gelu, False), (unsupported, False)]
)
def test_fused_convolutions_of_gpus(
    relu: Callable[[torch.Tensor], torch.Tensor], fuses: bool
) -> None:
    """They are used where they compute what torch does."""
    conv = JointConv2d(3 + 2, 4, 3, padding=1, stride=2).requires_grad_(False)
    own, shared, add = features(3, 3, 8, 9), features(1, 2, 8, 9), features(3, 4, 4, 5)
    with torch.inference_mode():
        expected = [
            conv(own, shared, relu=True),
            conv(own, shared, add=add, relu=True, relu_first=True),
            conv(torch.cat([own, own[:, :2]], 1), add=add, relu=True),
            conv(torch.cat([own, own[:, :2]], 1), add=add),
        ]
        conv.pack(Packing(None, is_cudnn=True))
        with FusedConvolutions(relu) as mode:
            conv(own, shared, relu=True)
            conv(torch.cat([own, own[:, :2]], 1))
            mode.num_fused = 0  # without those that compare
            results = [
                conv(own, shared, relu=True),
                conv(own, shared, add=add, relu=True, relu_first=True),
                conv(torch.cat([own, own[:, :2]], 1), add=add, relu=True),
                conv(torch.cat([own, own[:, :2]], 1), add=add),
            ]
    assert mode.num_fused == (2 if fuses else 0)
    for result, value in zip(results, expected, strict=True):
        torch.testing.assert_close(result, value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["stcn", "gsfm", "qdmn", "rde", "imsfr"])
def test_fused_convolutions_of_gpus_in_a_network(method: str) -> None:
    plain = tiny_network(method=method)
    fused = plain.for_inference(CPU, torch.float32, exact=True)
    for module in fused.modules():
        if isinstance(module, Conv2d):
            module.pack(Packing(None, is_cudnn=True))
    inputs = random_inputs(1, 2)
    with torch.inference_mode(), FusedConvolutions() as mode:
        torch.testing.assert_close(
            segment(fused, *inputs), segment(plain, *inputs), atol=2e-5, rtol=2e-5
        )
    assert mode.num_fused > 10
