"""Filters in the frequency domain (GSFM: Liu et al., Global Spectral Filter Memory Network for
Video Object Segmentation, ECCV 2022). Shapes: see the legend in network.py; U x V kept bins."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from model.convolution import Conv2d
from util.devices import full_precision

# Width of the Gaussian in bins, as published.
_SIGMA = 7.0
# Bins that the window leaves less of count as 0: what they hold is far below float32's rounding.
_LEAST_KEPT = 1e-6


class _Mix(Conv2d):
    """A 1x1 convolution of [real, imaginary] that can be taken apart."""

    def take(self, part: str, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """`part` of the weight at work: what sees the real or the imaginary input (B, C, U, V), or
        what makes the real or the imaginary output of (B, 2C, U, V)."""
        return self._run(part, x.to(self.weight.dtype), bias)

    def _weight_of(self, part: str, x: torch.Tensor) -> torch.Tensor:
        half = self.in_channels // 2
        return {
            "real in": self.weight[:, :half],
            "imaginary in": self.weight[:, half:],
            "real out": self.weight[:half],
            "imaginary out": self.weight[half:],
        }[part].contiguous(memory_format=torch.channels_last)


class SpectralFilter(torch.nn.Module):
    """x + real(ifft2(conv2(relu(conv1([Re; Im](fft2(x) * G)))))), with 1x1 convolutions.

    G is a Gaussian about the middle of the unshifted spectrum, which holds the highest frequency,
    or 1 minus it. Spectra have a large range: the transforms are float32 in any case, and so are
    the convolutions but for networks that are bfloat16 throughout.

    Three things make it cheap. Where G is 0 the convolutions give the same constant in every bin,
    which in space is one pixel, so that they run in a box of bins around what G keeps, and the
    transforms are products with the few rows of the Fourier matrices that the box needs. The
    spectrum of a real signal has the conjugate of each bin at its twin, so that conv1's sums over
    real and over imaginary parts serve both. Of the result, only the Hermitian part (Z + Z'*) / 2
    makes the real signal, and conv2 is linear: it takes half the sum of both twins for the real
    and half their difference for the imaginary part.

    Args:
        channels: C of the features; the convolutions have 2C.
        keeps_high: G is the Gaussian itself (the published high-frequency module), not 1 minus it.
    """

    keeps_float32 = True  # see Network.for_inference

    def __init__(self, channels: int, keeps_high: bool) -> None:
        super().__init__()
        self.keeps_high = keeps_high
        self.conv1 = _Mix(2 * channels, 2 * channels, 1)
        self.conv2 = _Mix(2 * channels, 2 * channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> the same, in x's type."""
        size = (x.shape[2], x.shape[3])
        basis = _make_basis(size, self.keeps_high, x.device)
        with full_precision(x.device):
            filtered = self._filter(x.float(), basis)
        return x + filtered.to(x.dtype)

    def _filter(self, x: torch.Tensor, basis: _Basis) -> torch.Tensor:
        """float32 (B, C, h, w) -> what is added to it."""
        batch, channels, height = x.shape[:3]
        num_u, num_v = basis.num_bins
        rows = x.permute(0, 2, 3, 1)  # (B, h, w, C)
        rows = (basis.along_width @ rows).view(batch, 2 * height, num_v * channels)
        spectrum = (basis.along_height @ rows).view(batch, 2, num_u, num_v, channels)
        real, imaginary = spectrum.permute(1, 0, 4, 2, 3)  # (B, C, U, V) each
        hidden, twin = self._convolve_twins(real, imaginary, basis)
        bias = _bias(self.conv2)
        real = self.conv2.take("real out", hidden + twin, 2 * bias[:channels])
        imaginary = self.conv2.take("imaginary out", hidden - twin)
        corner = None
        if basis.is_partial:  # all other bins hold what they make of nothing
            nothing = F.relu(_bias(self.conv1))[None, :, None, None]
            corner = self.conv2.take("real out", nothing, bias[:channels])  # (1, C, 1, 1)
            real = real - 2 * corner
        parts = torch.stack([real.permute(0, 2, 3, 1), imaginary.permute(0, 2, 3, 1)], 1).float()
        rows = basis.back_height @ parts.view(batch, 2 * num_u, num_v * channels)
        filtered = basis.back_width @ rows.view(batch, height, 2 * num_v, channels)
        if corner is not None:
            filtered[:, 0, 0] += corner[:, :, 0, 0]
        return filtered.permute(0, 3, 1, 2)

    def _convolve_twins(
        self, real: torch.Tensor, imaginary: torch.Tensor, basis: _Basis
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """relu(conv1(.)) of each bin and of its twin, twice (B, 2C, U, V)."""
        bias = _bias(self.conv1)
        if basis.is_even:
            first = self.conv1.take("real in", real * basis.gain, bias)
            second = self.conv1.take("imaginary in", imaginary * basis.gain)
            return F.relu(first + second), F.relu(first.sub(second))
        first = self.conv1.take("real in", real)
        second = self.conv1.take("imaginary in", imaginary)
        bias = bias[:, None, None]
        gain, twin_gain = basis.gain.to(bias.dtype), basis.twin_gain.to(bias.dtype)
        own = torch.addcmul(bias, first + second, gain)
        return F.relu(own), F.relu(torch.addcmul(bias, first - second, twin_gain))

    def window(self, height: int, width: int, device: torch.device) -> torch.Tensor:
        """G, (h, w) in [0, 1]."""
        return _make_window(height, width, self.keeps_high, device)


def _bias(conv: Conv2d) -> torch.Tensor:
    assert conv.bias is not None
    return conv.bias


def _make_window(
    height: int, width: int, keeps_high: bool, device: torch.device | str
) -> torch.Tensor:
    u = torch.arange(height, device=device, dtype=torch.float32)[:, None] - height // 2
    v = torch.arange(width, device=device, dtype=torch.float32)[None] - width // 2
    gaussian = torch.exp(-(u.square() + v.square()) / (2 * _SIGMA**2))
    return gaussian if keeps_high else 1 - gaussian


class _Basis(NamedTuple):
    """Fourier matrices of a box of bins, which holds all that a window keeps, in half a spectrum.

    Re and Im alternate with the slower of two indices: (h, 2, V, C), then (2, U, V, C), and back.
    """

    num_bins: tuple[int, int]  # U, V
    is_partial: bool  # bins lie outside, on which the window is 0
    is_even: bool  # the window is the same at a bin and at its twin
    gain: torch.Tensor  # (U, V), the window
    twin_gain: torch.Tensor  # (U, V), the window at twins
    along_width: torch.Tensor  # (2V, w)
    along_height: torch.Tensor  # (2U, 2h)
    back_height: torch.Tensor  # (2h, 2U)
    back_width: torch.Tensor  # (w, 2V), with half the weight: conv2 gives twice the Hermitian part


@functools.lru_cache(maxsize=32)
def _make_basis(size: tuple[int, int], keeps_high: bool, device: torch.device) -> _Basis:
    with torch.inference_mode(False):  # what is kept here may be used in training later
        height, width = size
        window = _make_window(height, width, keeps_high, "cpu")
        u, v = (window > min(_LEAST_KEPT, window.max().item() - 1e-9)).nonzero(as_tuple=True)
        # Twins of what the window keeps lie in the box too, and all of it in half the spectrum.
        first_u = min(int(u.min()), int((-u % height).min()))
        last_u = max(int(u.max()), int((-u % height).max()))
        u = torch.arange(first_u, last_u + 1)
        v = torch.arange(min(int(v.min()), int((-v % width).min())), width // 2 + 1)
        twins = window[-u % height][:, -v % width]
        window = window[u][:, v]
        across = _angles(v, width)  # (V, w)
        down = _angles(u, height)  # (U, h)
        cos, sin = down.cos(), down.sin()
        forward = torch.stack([torch.stack([cos, sin], 2), torch.stack([-sin, cos], 2)])
        # (2, U, h, 2): real and imaginary parts of exp(-ix) z; the inverse is its transpose / h.
        along_height = forward.flatten(2).flatten(0, 1)
        along_width = torch.stack([across.cos(), -across.sin()]).flatten(0, 1)
        # Bins stand for their twins, save for those that are their own column's.
        weight = torch.where((v == 0) | (2 * v == width), 0.5, 1.0).double() / width
        back_width = (along_width * weight.repeat(2)[:, None]).t()
        tensors = (
            window, twins, along_width, along_height, along_height.t() / height, back_width
        )  # fmt: skip
        return _Basis(
            (len(u), len(v)),
            (len(u), len(v)) != (height, width // 2 + 1),
            torch.equal(window, twins),
            *(tensor.float().contiguous().to(device) for tensor in tensors),
        )


def _angles(bins: torch.Tensor, length: int) -> torch.Tensor:
    """(K,) bins of a transform -> (K, length), 2 pi k x / length, in float64."""
    turns = torch.outer(bins, torch.arange(length)) % length
    return turns.double() * (2 * math.pi / length)
