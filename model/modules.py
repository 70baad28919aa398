"""Building blocks that encoders and decoder share. Shapes: see the legend in network.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from model.convolution import Conv2d, JointConv2d, add_enlarged, per_object


class ResBlock(nn.Module):
    """conv2(relu(conv1(relu(x)))) + shortcut, the pre-activation block of STM and STCN.

    The shortcut is a 3x3 convolution of x (not of relu(x)) where the widths differ.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.downsample: JointConv2d | None = None
        if in_channels != out_channels:
            self.downsample = JointConv2d(in_channels, out_channels, 3, padding=1)
        self.conv1 = JointConv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor, shared: torch.Tensor | None = None) -> torch.Tensor:
        """x (B*O, C1, h, w), and what all objects share (B, C2, h, w) where there is something
        -> (B*O, out_channels, h, w). C1 and C2 make in_channels."""
        residual = self.conv1(x, shared, relu=True, relu_first=True)
        if self.downsample is not None:
            return self.conv2(residual, add=self.downsample(x, shared))
        assert shared is None, "a shortcut without a convolution keeps the width"
        return self.conv2(residual, add=x)


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

    def forward(self, x: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        """x (B*O, C1, h, w), shared (B, C2, h, w) -> (B*O, out_channels, h, w)."""
        x = self.block1(x, shared)
        return self.block2(x + self.spatial_gate(self.channel_gate(x)))


class UpsampleBlock(nn.Module):
    """Double the resolution and add the encoder's finer features, then a ResBlock."""

    def __init__(self, skip_channels: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip_conv = Conv2d(skip_channels, in_channels, 3, padding=1)
        self.out_conv = ResBlock(in_channels, out_channels)

    def forward(self, skip: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """skip (B, C, 2h, 2w), x (B*O, in_channels, h, w) -> (B*O, out_channels, 2h, 2w).

        The skip convolution sees the image alone, so it runs once for all objects.
        """
        skip = self.skip_conv(skip)
        return self.out_conv(add_enlarged(x, skip, self.skip_conv.packing))


class RefinedUpsampleBlock(nn.Module):
    """QDMN's UpsampleBlock, whose skip convolution is followed by a ResBlock."""

    def __init__(self, skip_channels: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip_conv1 = Conv2d(skip_channels, in_channels, 3, padding=1)
        self.skip_conv2 = ResBlock(in_channels, in_channels)
        self.out_conv = ResBlock(in_channels, out_channels)

    def forward(self, skip: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """See UpsampleBlock."""
        skip = self.skip_conv2(self.skip_conv1(skip))
        return self.out_conv(add_enlarged(x, skip, self.skip_conv1.packing))


class _Atrous(nn.Module):
    """A convolution at some dilation (1x1 where `rate` is 1), batch norm and relu."""

    def __init__(self, in_channels: int, out_channels: int, rate: int) -> None:
        super().__init__()
        size, padding = (1, 0) if rate == 1 else (3, rate)
        self.atrous_conv = JointConv2d(
            in_channels, out_channels, size, padding=padding, dilation=rate, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        return F.relu_(self.bn(self.atrous_conv(x, shared)))


class AtrousPyramid(nn.Module):
    """ASPP: four dilations and the global mean side by side, merged (Chen et al., DeepLab v3).

    Its dropout never acted in QDMN's training, where all of the network is in eval mode.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.aspp1, self.aspp2 = _Atrous(channels, width, 1), _Atrous(channels, width, 6)
        self.aspp3, self.aspp4 = _Atrous(channels, width, 12), _Atrous(channels, width, 18)
        self.global_avg_pool = nn.Sequential(
            nn.Identity(),  # the mean is taken ahead of it; published names count from here
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.conv1 = Conv2d(5 * width, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        """x (B*O, C1, h, w), shared (B, C2, h, w) -> (B*O, C1 + C2, h, w)."""
        means = [F.adaptive_avg_pool2d(x, 1), F.adaptive_avg_pool2d(shared, 1)]
        means[1] = per_object(means[1], x.shape[0] // shared.shape[0])
        pooled = self.global_avg_pool(torch.cat(means, 1)).expand(-1, -1, *x.shape[2:])
        parts = [aspp(x, shared) for aspp in (self.aspp1, self.aspp2, self.aspp3, self.aspp4)]
        return F.relu_(self.bn1(self.conv1(torch.cat([*parts, pooled], 1))))


class QualityHead(nn.Module):
    """QDMN's score of a mask from the features that saw it (Liu et al., ECCV 2022, section 3.2).

    Args:
        channels: of the features; width: of the convolutions; hidden: of the perceptron.
    """

    size = 24  # features are resized to this side, so that any frame fits the perceptron

    def __init__(self, channels: int, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels, width, 3, padding=1)
        self.conv2 = Conv2d(width, width, 3, padding=1)
        self.conv3 = Conv2d(width, width, 3, padding=1)
        self.conv4 = Conv2d(width, width, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(width * (self.size // 2) ** 2, hidden)
        self.fc2 = nn.Linear(hidden, 1)
        nn.init.constant_(self.fc2.bias, 0.5)

    def forward(self, feat16: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B,), from 0 up: the IoU that the mask seems to have."""
        x = F.interpolate(feat16, (self.size, self.size), mode="bilinear", align_corners=False)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = conv(x, relu=True)
        score = self.fc2(F.relu(self.fc1(x.flatten(1))))[:, 0]
        # In training too the published head ends in a relu, which once shut never opens again.
        return score if self.training else F.relu(score)


class RelationFusion(nn.Module):
    """IMSFR's sum of three reads under one gate: memory, first frame, latest memory frame.

    Args:
        channels: CV.

    Training has a second gate, for the second object; segmentation uses the first for all.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = Conv2d(3 * channels, channels, 3, padding=1)
        self.gate2 = Conv2d(3 * channels, channels, 3, padding=1)

    def forward(
        self, memory: torch.Tensor, first: torch.Tensor, latest: torch.Tensor
    ) -> torch.Tensor:
        """Three times (B, O, CV, h, w) -> (B, O, CV, h, w)."""
        reads = torch.cat([memory, first, latest], 2)  # (B, O, 3*CV, h, w)
        reads = reads + reads.mean((3, 4), keepdim=True)
        if self.training:
            gates = [self.gate(reads[:, 0])]
            gates += [self.gate2(reads[:, o]) for o in range(1, reads.shape[1])]
            gate = torch.stack(gates, 1)
        else:
            gate = self.gate(reads.flatten(0, 1)).unflatten(0, reads.shape[:2])
        return (memory + first + latest) * (1 + torch.sigmoid(gate))
