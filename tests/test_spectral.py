"""GSFM's spectral filters and boundary loss."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from model.convolution import find_packing
from model.losses import boundary_loss
from model.methods import build_network
from model.network import NetworkSpec
from model.spectral import SpectralFilter


def test_both_windows_sum_to_one() -> None:
    cpu = torch.device("cpu")
    high, low = (SpectralFilter(2, is_high).window(30, 54, cpu) for is_high in (True, False))
    assert torch.allclose(high + low, torch.ones(30, 54))
    assert high[15, 27] == 1  # the highest frequency is in the middle
    assert high[15 + 7, 27].item() == pytest.approx(math.exp(-0.5))
    assert high[0, 0] < 1e-4


@pytest.mark.parametrize("keeps_high", [True, False])
def test_filter_keeps_frequencies_of_its_window(keeps_high: bool) -> None:
    """With identities as convolutions. The spectrum of a cosine is positive, so ReLU keeps it."""
    module = SpectralFilter(1, keeps_high)
    with torch.no_grad():
        for conv in (module.conv1, module.conv2):
            conv.weight.copy_(torch.eye(2)[:, :, None, None])
            assert conv.bias is not None
            conv.bias.zero_()
    columns = torch.arange(64.0)
    slow = torch.cos(2 * math.pi * columns / 64).expand(1, 1, 64, 64)
    fast = torch.cos(math.pi * columns).expand(1, 1, 64, 64) * torch.cos(
        math.pi * torch.arange(64.0)
    ).view(64, 1)
    passed, removed = (fast, slow) if keeps_high else (slow, fast)
    torch.testing.assert_close(module(passed), 2 * passed, atol=1e-3, rtol=0)
    torch.testing.assert_close(module(removed), removed, atol=1e-3, rtol=0)


SIZES = [(30, 54), (31, 54), (8, 8), (1, 1), (2, 3), (9, 100), (90, 91), (74, 73), (75, 150)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("keeps_high", [True, False])
def test_filter_matches_the_formula_of_the_paper(size: tuple[int, int], keeps_high: bool) -> None:
    torch.manual_seed(0)
    module, x = SpectralFilter(4, keeps_high), torch.randn(2, 4, *size)
    spectrum = torch.fft.fft2(x.double()) * module.window(*size, x.device)
    parts = torch.cat([spectrum.real, spectrum.imag], 1)
    for conv in (module.conv1, module.conv2):
        assert conv.bias is not None
        parts = F.conv2d(parts, conv.weight.double(), conv.bias.double())
        parts = F.relu(parts) if conv is module.conv1 else parts
    filtered = torch.fft.ifft2(torch.complex(*parts.chunk(2, 1))).real
    expected = (x + filtered).float()
    result = module(x)
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-5)
    weights = [*module.parameters()]
    coefficients = torch.randn_like(x)
    gradients = [
        torch.autograd.grad((output * coefficients).sum(), weights) for output in (result, expected)
    ]
    for gradient, expected_gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, atol=1e-4, rtol=1e-4)
    for conv in (module.conv1, module.conv2):
        conv.pack(find_packing(x.device, x.dtype))
    with torch.inference_mode():
        result = module(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    """Spectra exceed the range of float16, so the filters stay in float32."""
    torch.manual_seed(0)
    network = build_network(NetworkSpec("gsfm", "tiny"))
    half = network.for_inference(torch.device("cpu"), dtype)
    for module in (half.key_encoder.feature_filter, half.decoder.hfm):
        assert isinstance(module, SpectralFilter)
        assert (module.conv1.weight.dtype == torch.float32) == (dtype == torch.float16)
    assert half.dtype == dtype
    image = torch.randn(1, 3, 32, 48)
    full = network.for_inference(torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        expected = full.encode_query(full.encode_image(image)).feat16
        query = half.encode_query(half.encode_image(image.to(dtype)))
        assert query.feat16.dtype == dtype
        assert (query.feat16.float() - expected).abs().max() < 0.1 * expected.abs().max()
        with torch.autocast("cpu", torch.bfloat16):
            mixed = full.encode_query(full.encode_image(image)).feat16
        assert (mixed.float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_boundary_loss_is_lowest_on_the_inner_boundary() -> None:
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    boundary = mask.clone()
    boundary[..., 5:11, 5:11] = 0
    good, bad = (boundary_loss(20 * (2 * x - 1), mask) for x in (boundary, mask))
    assert good.shape == (1, 1)
    assert good.item() < 1e-3
    assert bad.item() > 0.5
