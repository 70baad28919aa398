"""Building blocks that encoders and decoder share. Shapes: see the legend in network.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class ResBlock(nn.Module):
    """conv2(relu(conv1(relu(x)))) + shortcut, the pre-activation block of STM and STCN.

    The shortcut is a 3x3 convolution of x (not of relu(x)) where the widths differ.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.downsample = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, h, w)."""
        residual = self.conv2(F.relu(self.conv1(F.relu(x))))
        return residual + self.downsample(x)


class ChannelGate(nn.Module):
    """CBAM's channel attention (Woo et al., ECCV 2018, eq. 2)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> the same, every channel scaled by a gate in (0, 1)."""
        gate = torch.sigmoid(self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3))))  # (B, C)
        return x * gate[:, :, None, None]


class SpatialGate(nn.Module):
    """CBAM's spatial attention (Woo et al., eq. 3), without batch norm as STCN uses it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> the same, every position scaled by a gate in (0, 1)."""
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)  # (B, 2, h, w)
        return x * torch.sigmoid(self.conv(pooled))


class FeatureFusion(nn.Module):
    """Fuse mask features with image features: ResBlock, x + CBAM(x), ResBlock."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block1 = ResBlock(in_channels, out_channels)
        self.channel_gate = ChannelGate(out_channels)
        self.spatial_gate = SpatialGate()
        self.block2 = ResBlock(out_channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, h, w)."""
        x = self.block1(x)
        return self.block2(x + self.spatial_gate(self.channel_gate(x)))


class UpsampleBlock(nn.Module):
    """Double the resolution and add the encoder's finer features, then a ResBlock."""

    def __init__(self, skip_channels: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip_conv = nn.Conv2d(skip_channels, in_channels, 3, padding=1)
        self.out_conv = ResBlock(in_channels, out_channels)

    def forward(self, skip: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """skip (B, C, 2h, 2w), x (B*O, in_channels, h, w) -> (B*O, out_channels, 2h, 2w).

        The skip convolution sees the image alone, so it runs once for all objects.
        """
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        num_objects = x.shape[0] // skip.shape[0]
        return self.out_conv(x + per_object(self.skip_conv(skip), num_objects))


def per_object(shared: torch.Tensor, num_objects: int) -> torch.Tensor:
    """(B, ...) -> (B*O, ...): what the image gives, the same for every object of a sample."""
    if shared.shape[0] == 1:
        return shared.expand(num_objects, *shared.shape[1:])  # a view: inference copies nothing
    return shared.repeat_interleave(num_objects, 0) if num_objects > 1 else shared
