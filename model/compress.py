"""The spatio-temporal aggregation module (SAM) of RDE: two frames of memory become one.

Li et al., Recurrent Dynamic Embedding for Video Object Segmentation, CVPR 2022, section 3.2.
Shapes: see the legend in network.py; a clip of two frames is (B, C, 2, h, w).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from model.features import MemoryEntry


class _Halve(nn.Module):
    """Max-pool (B, C, T, h, w) by 2 in space; MPS knows no MaxPool3d in older releases of torch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])


class NonLocal(nn.Module):
    """Every position of both frames sees every (pooled) one; no softmax (Wang et al., CVPR 2018).

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.theta = nn.Conv3d(channels, inner, 1)
        self.phi = nn.Sequential(nn.Conv3d(channels, inner, 1), _Halve())
        self.g = nn.Sequential(nn.Conv3d(channels, inner, 1), _Halve())
        self.W = nn.Conv3d(inner, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, 2, h, w) -> the same."""
        theta = self.theta(x)  # (B, C/2, 2, h, w)
        phi, g = self.phi(x).flatten(2), self.g(x).flatten(2)  # (B, C/2, M)
        # theta^T (phi g^T) is (theta^T phi) g^T without the (2hw, M) affinities.
        # Divided first: a sum over all positions can overflow half precision.
        mixed = (phi / phi.shape[2]) @ g.transpose(1, 2)  # (B, C/2, C/2)
        y = mixed.transpose(1, 2) @ theta.flatten(2)  # (B, C/2, 2hw)
        return self.W(y.unflatten(2, theta.shape[2:])) + x


class _Atrous(nn.Module):
    """A spatial convolution at some dilation, and relu; 1x1 where `rate` is 1."""

    def __init__(self, channels: int, rate: int) -> None:
        super().__init__()
        size = 1 if rate == 1 else 3
        padding = 0 if rate == 1 else rate
        self.atrous_conv = nn.Conv3d(
            channels,
            channels // 4,
            (1, size, size),
            padding=(0, padding, padding),
            dilation=(1, rate, rate),
            bias=False,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.atrous_conv(x))


class Pyramid3d(nn.Module):
    """Four dilations side by side, merged by a convolution (Chen et al., DeepLab v3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.aspp1, self.aspp2 = _Atrous(channels, 1), _Atrous(channels, 2)
        self.aspp3, self.aspp4 = _Atrous(channels, 4), _Atrous(channels, 6)
        merged = 4 * (channels // 4)
        self.conv1 = nn.Conv3d(merged, channels, (1, 3, 3), padding=(0, 1, 1), bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, 2, h, w) -> the same."""
        parts = [self.aspp1(x), self.aspp2(x), self.aspp3(x), self.aspp4(x)]
        return F.relu(self.conv1(torch.cat(parts, 1)))


class SqueezeExcitation3d(nn.Module):
    """Scale each channel by what the means of all say (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, 2, h, w) -> the same."""
        return x * torch.sigmoid(self.mlp(x.mean((2, 3, 4))))[:, :, None, None, None]


class Aggregation(nn.Module):
    """x + ASPP(x), of x after the non-local block and `repeat` squeeze-and-excitation blocks."""

    def __init__(self, channels: int, repeat: int = 0) -> None:
        super().__init__()
        self.non_local = NonLocal(channels)
        self.se = nn.Sequential(*(SqueezeExcitation3d(channels) for _ in range(repeat)))
        self.conv1 = Pyramid3d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, 2, h, w) -> the same."""
        x = self.se(self.non_local(x))
        return x + self.conv1(x)


class Compressor(nn.Module):
    """[embedding so far, new frame] -> the new embedding, for keys and for values.

    Args:
        key_channels: CK.
        value_channels: CV.
        repeat: squeeze-and-excitation blocks in each of the two; none as published.
    """

    def __init__(self, key_channels: int, value_channels: int, repeat: int = 0) -> None:
        super().__init__()
        self.key_encoder = Aggregation(key_channels, repeat)
        self.value_encoder = Aggregation(value_channels, repeat)
        self.compress_key = nn.Conv3d(key_channels, key_channels, (2, 3, 3), padding=(0, 1, 1))
        self.compress_value = nn.Conv3d(
            value_channels, value_channels, (2, 3, 3), padding=(0, 1, 1)
        )

    def forward(self, embedding: MemoryEntry, new: MemoryEntry) -> MemoryEntry:
        """Both of one frame, and of the same objects."""
        keys = torch.stack([embedding.key, new.key], 2)  # (B, CK, 2, h, w)
        values = torch.stack([embedding.value, new.value], 3).flatten(0, 1)  # (B*O, CV, 2, h, w)
        key = self.compress_key(self.key_encoder(keys))[:, :, 0]
        value = self.compress_value(self.value_encoder(values))[:, :, 0]
        return MemoryEntry(key, value.unflatten(0, embedding.value.shape[:2]))
