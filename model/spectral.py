"""Filters in the frequency domain (GSFM: Liu et al., Global Spectral Filter Memory Network for
Video Object Segmentation, ECCV 2022). Shapes: see the legend in network.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from util.devices import full_precision

# Width of the Gaussian in bins, as published.
_SIGMA = 7.0


class SpectralFilter(nn.Module):
    """x + real(ifft2(conv2(relu(conv1([Re; Im](fft2(x) * G)))))), with 1x1 convolutions.

    G is a Gaussian about the middle of the unshifted spectrum, which holds the highest frequency,
    or 1 minus it. In float32 even under mixed precision: spectra have a large range.

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
        with full_precision(x.device):
            spectrum = torch.fft.fft2(x.float())  # (B, C, h, w), complex
            spectrum = spectrum * self.window(x.shape[-2], x.shape[-1], x.device)
            parts = torch.cat([spectrum.real, spectrum.imag], 1)  # (B, 2C, h, w)
            parts = self.conv2(F.relu(self.conv1(parts)))
            real, imaginary = (part.contiguous() for part in parts.chunk(2, 1))
            filtered = torch.fft.ifft2(torch.complex(real, imaginary)).real
            return x + filtered.to(x.dtype)

    def window(self, height: int, width: int, device: torch.device) -> torch.Tensor:
        """G, (h, w) in [0, 1]."""
        u = torch.arange(height, device=device, dtype=torch.float32)[:, None] - height // 2
        v = torch.arange(width, device=device, dtype=torch.float32)[None] - width // 2
        gaussian = torch.exp(-(u.square() + v.square()) / (2 * _SIGMA**2))
        return gaussian if self.keeps_high else 1 - gaussian
