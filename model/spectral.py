"""Filters in the frequency domain for GSFM.

Liu et al., Global Spectral Filter Memory Network for Video Object Segmentation, ECCV 2022. Shapes:
see the legend in network.py; U x V is the number of frequency bins that are computed.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from model.convolution import Conv2d, bias_of
from util.devices import full_precision

# Standard deviation of the Gaussian in bins, as published.
_SIGMA = 7.0
# Smaller values of the window count as 0: their effect is far below float32's rounding.
_LEAST_KEPT = 1e-6


class _Mix(Conv2d):
    """A 1x1 convolution of [real, imaginary] channels whose halves can be applied alone."""

    def apply_part(
        self, part: str, x: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Apply one half of the weight.

        Args:
            part: "real in" or "imaginary in": the weight of these inputs, (B, C, U, V) ->
                (B, 2C, U, V). "real out" or "imaginary out": the weight of these outputs,
                (B, 2C, U, V) -> (B, C, U, V).
            x: the input.
            bias: bias of the outputs.
        """
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
    """Compute x + real(ifft2(conv2(relu(conv1([Re; Im](fft2(x) * G)))))), with 1x1 convolutions.

    G is a Gaussian around the highest frequency, which is the middle of the unshifted spectrum, or
    1 minus this Gaussian. Spectra have a large range: the transforms always use float32, and so do
    the convolutions, except in bfloat16 networks.

    Three properties save most of the work.

    - Where G is 0, the convolutions return the same constant in every bin, which is a single pixel
      after the inverse transform. So they run on a box of bins around the others, and the
      transforms are products with the few rows of the Fourier matrices that belong to this box.
    - The spectrum of a real signal is symmetric: the bin at -(u, v), called twin here, is the
      conjugate of the bin at (u, v). So conv1's sums over real and over imaginary parts are
      computed once for both.
    - Only the Hermitian part (Z + Z'*) / 2 of the result Z, with its twins Z', contributes to the
      real signal, and conv2 is linear. So conv2 is applied to half the sum of both twins for the
      real part, and to half their difference for the imaginary part.

    Args:
        channels: C of the features; the convolutions have 2C channels.
        keeps_high: if true, G is the Gaussian (the published high-frequency module); else 1 minus
            it (the low-frequency module).
    """

    keeps_float32 = True  # see Network.for_inference

    def __init__(self, channels: int, keeps_high: bool) -> None:
        super().__init__()
        self.keeps_high = keeps_high
        self.conv1 = _Mix(2 * channels, 2 * channels, 1)
        self.conv2 = _Mix(2 * channels, 2 * channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Filter features (B, C, h, w); the result has the shape and type of x."""
        size = (x.shape[2], x.shape[3])
        basis = _make_basis(size, self.keeps_high, x.device)
        with full_precision(x.device):
            filtered = self._filter(x.float(), basis)
        return x + filtered.to(x.dtype)

    def _filter(self, x: torch.Tensor, basis: _Basis) -> torch.Tensor:
        """Compute the term that is added to x, float32 (B, C, h, w)."""
        batch, channels, height = x.shape[:3]
        num_u, num_v = basis.num_bins
        rows = x.permute(0, 2, 3, 1)  # (B, h, w, C)
        # (B, h, 2V, C) -> (B, 2h, V*C) -> (B, 2U, V*C) -> (B, 2, U, V, C)
        rows = (basis.along_width @ rows).view(batch, 2 * height, num_v * channels)
        spectrum = (basis.along_height @ rows).view(batch, 2, num_u, num_v, channels)
        real, imaginary = spectrum.permute(1, 0, 4, 2, 3)  # (B, C, U, V) each
        hidden, twin = self._convolve_twins(real, imaginary, basis)  # (B, 2C, U, V) each
        bias = bias_of(self.conv2)
        real = self.conv2.apply_part("real out", hidden + twin, 2 * bias[:channels])
        imaginary = self.conv2.apply_part("imaginary out", hidden - twin)  # (B, C, U, V)
        corner = None
        if basis.is_partial:  # bins outside the box have the output of an input of 0
            zero_hidden = F.relu(bias_of(self.conv1))[None, :, None, None]  # (1, 2C, 1, 1)
            corner = self.conv2.apply_part("real out", zero_hidden, bias[:channels])  # (1, C, 1, 1)
            real = real - 2 * corner
        # (B, 2, U, V, C)
        parts = torch.stack([real.permute(0, 2, 3, 1), imaginary.permute(0, 2, 3, 1)], 1).float()
        # (B, 2U, V*C) -> (B, 2h, V*C) -> (B, h, 2V, C) -> (B, h, w, C)
        rows = basis.back_height @ parts.view(batch, 2 * num_u, num_v * channels)
        filtered = basis.back_width @ rows.view(batch, height, 2 * num_v, channels)
        if corner is not None:
            filtered[:, 0, 0] += corner[:, :, 0, 0]
        return filtered.permute(0, 3, 1, 2)  # (B, C, h, w)

    def _convolve_twins(
        self, real: torch.Tensor, imaginary: torch.Tensor, basis: _Basis
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute relu(conv1(.)) of each bin and of its twin, (B, 2C, U, V) each."""
        bias = bias_of(self.conv1)
        if basis.is_even:
            first = self.conv1.apply_part("real in", real * basis.gain, bias)
            second = self.conv1.apply_part("imaginary in", imaginary * basis.gain)
            return F.relu(first + second), F.relu(first.sub(second))
        first = self.conv1.apply_part("real in", real)
        second = self.conv1.apply_part("imaginary in", imaginary)
        bias = bias[:, None, None]
        gain, twin_gain = basis.gain.to(bias.dtype), basis.twin_gain.to(bias.dtype)
        own = torch.addcmul(bias, first + second, gain)
        return F.relu(own), F.relu(torch.addcmul(bias, first - second, twin_gain))

    def window(self, height: int, width: int, device: torch.device) -> torch.Tensor:
        """Return the window G of a feature map, (h, w) in [0, 1]."""
        return _make_window(height, width, self.keeps_high, device)


def _make_window(
    height: int, width: int, keeps_high: bool, device: torch.device | str
) -> torch.Tensor:
    u = torch.arange(height, device=device, dtype=torch.float32)[:, None] - height // 2
    v = torch.arange(width, device=device, dtype=torch.float32)[None] - width // 2
    gaussian = torch.exp(-(u.square() + v.square()) / (2 * _SIGMA**2))
    return gaussian if keeps_high else 1 - gaussian


class _Basis(NamedTuple):
    """Fourier matrices of the box of bins in half a spectrum where a window is not 0.

    Real and imaginary parts are stored as two blocks: (h, 2, V, C) after the transform along the
    width, (2, U, V, C) after the one along the height.
    """

    num_bins: tuple[int, int]  # U, V
    is_partial: bool  # the box does not contain all bins
    is_even: bool  # the window is equal at a bin and its twin
    gain: torch.Tensor  # (U, V), the window
    twin_gain: torch.Tensor  # (U, V), the window at the twins
    along_width: torch.Tensor  # (2V, w)
    along_height: torch.Tensor  # (2U, 2h)
    back_height: torch.Tensor  # (2h, 2U)
    back_width: torch.Tensor  # (w, 2V), halved, since conv2 computes twice the Hermitian part


@functools.lru_cache(maxsize=32)
def _make_basis(size: tuple[int, int], keeps_high: bool, device: torch.device) -> _Basis:
    with torch.inference_mode(False):  # cached tensors may be used in training later
        height, width = size
        window = _make_window(height, width, keeps_high, "cpu")
        u, v = (window > min(_LEAST_KEPT, window.max().item() - 1e-9)).nonzero(as_tuple=True)
        # The box contains the twins too, and lies in half of the spectrum.
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
        # Each bin also represents its twin, unless the twin is in the same column.
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
    """Angles 2 pi k x / length of bins k: (K,) -> (K, length), float64."""
    turns = torch.outer(bins, torch.arange(length)) % length
    return turns.double() * (2 * math.pi / length)
