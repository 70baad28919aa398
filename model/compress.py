"""The spatio-temporal aggregation module (SAM) of RDE, which merges two memory frames into one.

Li et al., Recurrent Dynamic Embedding for Video Object Segmentation, CVPR 2022, section 3.2.
Shapes: see the legend in network.py; a pair of memory frames is (B, C, 2, h, w).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from model.features import MemoryEntry


class _Halve(nn.Module):
    """Max-pooling by 2 in space; sides of one position stay.

    Older releases of torch have no MaxPool3d for MPS.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # (B, C, T, h, w) -> (B, C, T, h/2, w/2)
        size = [min(2, side) for side in x.shape[-2:]]
        return F.max_pool2d(x.flatten(0, 1), size).unflatten(0, x.shape[:2])


class NonLocal(nn.Module):
    """Non-local block over both frames (Wang et al., CVPR 2018), without softmax.

    phi and g are max-pooled by 2 in space.

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
        """(B, C, 2, h, w) -> (B, C, 2, h, w)."""
        theta = self.theta(x)  # (B, C/2, 2, h, w)
        phi, g = self.phi(x).flatten(2), self.g(x).flatten(2)  # (B, C/2, M), M pooled positions
        # theta^T (phi g^T) equals (theta^T phi) g^T, but without the (2hw, M) affinity.
        # Division comes first, because a sum over all positions can overflow half precision.
        mixed = (phi / phi.shape[2]) @ g.transpose(1, 2)  # (B, C/2, C/2)
        y = mixed.transpose(1, 2) @ theta.flatten(2)  # (B, C/2, 2hw)
        return self.W(y.unflatten(2, theta.shape[2:])) + x  # (B, C, 2, h, w)


class _AtrousConv(nn.Module):
    """A dilated 3x3 convolution in space, or a 1x1 convolution if `rate` is 1; then ReLU."""

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
        return F.relu(self.atrous_conv(x))  # (B, C/4, 2, h, w)


class Pyramid3d(nn.Module):
    """ASPP: four dilations in parallel, then a convolution (Chen et al., DeepLab v3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.aspp1, self.aspp2 = _AtrousConv(channels, 1), _AtrousConv(channels, 2)
        self.aspp3, self.aspp4 = _AtrousConv(channels, 4), _AtrousConv(channels, 6)
        merged = 4 * (channels // 4)
        self.conv1 = nn.Conv3d(merged, channels, (1, 3, 3), padding=(0, 1, 1), bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, 2, h, w) -> (B, C, 2, h, w)."""
        parts = [self.aspp1(x), self.aspp2(x), self.aspp3(x), self.aspp4(x)]
        return F.relu(self.conv1(torch.cat(parts, 1)))


class SqueezeExcitation3d(nn.Module):
    """Squeeze and excitation: gates from the channel means (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, 2, h, w) -> (B, C, 2, h, w)."""
        gate = torch.sigmoid(self.mlp(x.mean((2, 3, 4))))  # (B, C)
        return x * gate[:, :, None, None, None]


class Aggregation(nn.Module):
    """Non-local block, `repeat` squeeze-and-excitation blocks, then x + ASPP(x)."""

    def __init__(self, channels: int, repeat: int = 0) -> None:
        super().__init__()
        self.non_local = NonLocal(channels)
        self.se = nn.Sequential(*(SqueezeExcitation3d(channels) for _ in range(repeat)))
        self.conv1 = Pyramid3d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, 2, h, w) -> (B, C, 2, h, w)."""
        x = self.se(self.non_local(x))
        return x + self.conv1(x)


class Compressor(nn.Module):
    """Merge the embedding of earlier memory frames with a new memory frame.

    Args:
        key_channels: CK.
        value_channels: CV.
        repeat: squeeze-and-excitation blocks for keys and for values (0 as published).
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
        """Return the new embedding.

        Args:
            embedding: embedding of earlier frames, one frame in size.
            new: the new memory frame, with the same objects.
        """
        keys = torch.stack([embedding.key, new.key], 2)  # (B, CK, 2, h, w)
        values = torch.stack([embedding.value, new.value], 3).flatten(0, 1)  # (B*O, CV, 2, h, w)
        key = self.compress_key(self.key_encoder(keys))[:, :, 0]  # (B, CK, h, w)
        value = self.compress_value(self.value_encoder(values))[:, :, 0]  # (B*O, CV, h, w)
        return MemoryEntry(key, value.unflatten(0, embedding.value.shape[:2]))  # (B, O, CV, h, w)
