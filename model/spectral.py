"""Filters in the frequency domain (GSFM: Liu et al., Global Spectral Filter Memory Network for
Video Object Segmentation, ECCV 2022). Shapes: see the legend in network.py; K bins."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from util.devices import full_precision

# Width of the Gaussian in bins, as published.
_SIGMA = 7.0
# Bins that the window leaves less of count as 0: what they hold is far below float32's rounding.
_LEAST_KEPT = 1e-6


class SpectralFilter(nn.Module):
    """x + real(ifft2(conv2(relu(conv1([Re; Im](fft2(x) * G)))))), with 1x1 convolutions.

    G is a Gaussian about the middle of the unshifted spectrum, which holds the highest frequency,
    or 1 minus it. In float32 even under mixed precision: spectra have a large range.

    Where G is 0, the convolutions give the same constant in every bin, which in space is one pixel:
    they run on the other bins alone. Real input and output take half the transforms' work.

    Args:
        channels: C of the features; the convolutions have 2C.
        keeps_high: G is the Gaussian itself (the published high-frequency module), not 1 minus it.
    """

    keeps_float32 = True  # see Network.for_inference

    def __init__(self, channels: int, keeps_high: bool) -> None:
        super().__init__()
        self.keeps_high = keeps_high
        self.conv1 = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> the same, in x's type."""
        channels, height, width = x.shape[1:]
        bins = _find_bins(height, width, self.keeps_high, x.device)
        with full_precision(x.device):
            spectrum = torch.fft.rfft2(x.float().contiguous()).flatten(2)  # (B, C, h * (w//2 + 1))
            kept = torch.view_as_real(spectrum[:, :, bins.source])  # (B, C, K, 2)
            real, imaginary = kept[..., 0] * bins.gain, kept[..., 1] * bins.signed_gain
            parts = torch.cat([real, imaginary], 1)  # (B, 2C, K)
            parts = self._convolve(parts)
            # What the bins without input hold, all of them the same.
            rest = self._convolve(parts.new_zeros(1, 2 * channels, 1))
            real, imaginary = (parts - rest).chunk(2, 1)
            # The real part of an inverse transform is that of the Hermitian part, (Z + Z'*) / 2.
            half = torch.zeros_like(spectrum)
            values = torch.complex(real / 2, imaginary / 2)
            half.index_add_(2, bins.target, values[:, :, bins.direct])
            half.index_add_(2, bins.mirror_target, values[:, :, bins.mirrored].conj())
            half = half.unflatten(2, (height, width // 2 + 1))
            filtered = torch.fft.irfft2(half, s=(height, width))
            corner = F.pad(rest[:, :channels, :, None], (0, width - 1, 0, height - 1))
            return x + (filtered + corner).to(x.dtype)

    def _convolve(self, parts: torch.Tensor) -> torch.Tensor:
        """(B, 2C, K) -> the same."""
        for conv in (self.conv1, self.conv2):
            bias = conv.bias
            assert bias is not None
            weight = conv.weight.flatten(1)
            parts = torch.baddbmm(
                bias[:, None].expand(len(parts), -1, 1), weight.expand(len(parts), -1, -1), parts
            )
            parts = F.relu(parts) if conv is self.conv1 else parts
        return parts

    def window(self, height: int, width: int, device: torch.device) -> torch.Tensor:
        """G, (h, w) in [0, 1]."""
        return _make_window(height, width, self.keeps_high, device)


def _make_window(
    height: int, width: int, keeps_high: bool, device: torch.device | str
) -> torch.Tensor:
    u = torch.arange(height, device=device, dtype=torch.float32)[:, None] - height // 2
    v = torch.arange(width, device=device, dtype=torch.float32)[None] - width // 2
    gaussian = torch.exp(-(u.square() + v.square()) / (2 * _SIGMA**2))
    return gaussian if keeps_high else 1 - gaussian


class _Bins(NamedTuple):
    """The K bins that a window keeps, and where they are in the half spectrum of a real signal."""

    source: torch.Tensor  # (K,): that bin of the half spectrum, or its conjugate twin
    gain: torch.Tensor  # (K,), the window
    signed_gain: torch.Tensor  # (K,), negative for imaginary parts of twins
    direct: torch.Tensor  # of the K, those in the half spectrum
    target: torch.Tensor  # and where
    mirrored: torch.Tensor  # of the K, those whose twins are in it
    mirror_target: torch.Tensor


@functools.lru_cache(maxsize=32)
def _find_bins(height: int, width: int, keeps_high: bool, device: torch.device) -> _Bins:
    with torch.inference_mode(False):  # what is kept here may be used in training later
        window = _make_window(height, width, keeps_high, "cpu")
        u, v = (window > _LEAST_KEPT).nonzero(as_tuple=True)
        half = width // 2 + 1
        twin_u, twin_v = -u % height, -v % width
        is_direct, is_mirrored = v < half, twin_v < half
        at, twin_at = u * half + v, twin_u * half + twin_v
        gain = window[u, v]
        bins = _Bins(
            source=torch.where(is_direct, at, twin_at),
            gain=gain,
            signed_gain=torch.where(is_direct, gain, -gain),
            direct=is_direct.nonzero()[:, 0],
            target=at[is_direct],
            mirrored=is_mirrored.nonzero()[:, 0],
            mirror_target=twin_at[is_mirrored],
        )
        return _Bins(*(tensor.to(device) for tensor in bins))
