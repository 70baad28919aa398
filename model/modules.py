"""Building blocks of encoders and decoders. Shapes: see the legend in network.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from model.convolution import Conv2d, JointConv2d, per_object, upsample_and_add


class ResBlock(nn.Module):
    """Pre-activation block of STM and STCN: conv2(relu(conv1(relu(x)))) + shortcut.

    The shortcut is a 3x3 convolution of x (not of relu(x)) if the numbers of channels differ.

    Args:
        in_channels: channels of x and shared features together.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.downsample: JointConv2d | None = None
        if in_channels != out_channels:
            self.downsample = JointConv2d(in_channels, out_channels, 3, padding=1)
        self.conv1 = JointConv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor, shared: torch.Tensor | None = None) -> torch.Tensor:
        """Apply the block to x, or to the concatenation of x and shared features.

        Args:
            x: (B*O, C1, h, w), features of each object.
            shared: (B, C2, h, w), features that all objects of a sample share; C1 + C2 is
                in_channels.

        Returns:
            (B*O, out_channels, h, w).
        """
        residual = self.conv1(x, shared, relu=True, relu_first=True)  # (B*O, out_channels, h, w)
        if self.downsample is not None:
            return self.conv2(residual, add=self.downsample(x, shared))
        assert shared is None, "an identity shortcut requires in_channels = out_channels"
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
        """Scale each channel of (B, C, h, w) by a gate in (0, 1)."""
        gate = torch.sigmoid(self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3))))  # (B, C)
        return x * gate[:, :, None, None]


class SpatialGate(nn.Module):
    """CBAM's spatial attention (Woo et al., eq. 3), without batch norm as in STCN."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale each position of (B, C, h, w) by a gate in (0, 1)."""
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
        x = self.block1(x, shared)  # (B*O, out_channels, h, w)
        return self.block2(x + self.spatial_gate(self.channel_gate(x)))


class UpsampleBlock(nn.Module):
    """Upsample by 2, add the skip features of the encoder, and apply a ResBlock.

    Args:
        skip_channels: channels of the skip features.
        in_channels: channels of the features to upsample.
        out_channels: channels of the output.
    """

    def __init__(self, skip_channels: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip_conv = Conv2d(skip_channels, in_channels, 3, padding=1)
        self.out_conv = ResBlock(in_channels, out_channels)

    def forward(self, skip: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """skip (B, skip_channels, 2h, 2w), x (B*O, in_channels, h, w) -> (B*O, out, 2h, 2w).

        The skip convolution depends on the image alone, so it runs once for all objects.
        """
        skip = self.skip_conv(skip)  # (B, in_channels, 2h, 2w)
        return self.out_conv(upsample_and_add(x, skip, self.skip_conv.packing))


class RefinedUpsampleBlock(nn.Module):
    """QDMN's UpsampleBlock, with a ResBlock after the skip convolution.

    Args: see UpsampleBlock.
    """

    def __init__(self, skip_channels: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip_conv1 = Conv2d(skip_channels, in_channels, 3, padding=1)
        self.skip_conv2 = ResBlock(in_channels, in_channels)
        self.out_conv = ResBlock(in_channels, out_channels)

    def forward(self, skip: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """See UpsampleBlock."""
        skip = self.skip_conv2(self.skip_conv1(skip))  # (B, in_channels, 2h, 2w)
        return self.out_conv(upsample_and_add(x, skip, self.skip_conv1.packing))


class _AtrousConv(nn.Module):
    """A dilated 3x3 convolution, or a 1x1 convolution if `rate` is 1; then batch norm and ReLU."""

    conv_norm_pairs = (("atrous_conv", "bn"),)

    def __init__(self, in_channels: int, out_channels: int, rate: int) -> None:
        super().__init__()
        size, padding = (1, 0) if rate == 1 else (3, rate)
        self.atrous_conv = JointConv2d(
            in_channels, out_channels, size, padding=padding, dilation=rate, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        if isinstance(self.bn, nn.Identity):  # the batch norm is folded into the convolution
            return self.atrous_conv(x, shared, relu=True)  # (B*O, out_channels, h, w)
        return F.relu_(self.bn(self.atrous_conv(x, shared)))  # (B*O, out_channels, h, w)


class AtrousPyramid(nn.Module):
    """ASPP: four dilations and the global mean in parallel, then a 1x1 convolution.

    Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017. QDMN's dropout
    is left out: it had no effect in its training, where the whole network was in eval mode.

    Args:
        channels: channels of input and output.
        width: channels of each of the five branches.
    """

    conv_norm_pairs = (("global_avg_pool.1", "global_avg_pool.2"), ("conv1", "bn1"))

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.aspp1, self.aspp2 = _AtrousConv(channels, width, 1), _AtrousConv(channels, width, 6)
        self.aspp3, self.aspp4 = _AtrousConv(channels, width, 12), _AtrousConv(channels, width, 18)
        self.global_avg_pool = nn.Sequential(
            nn.Identity(),  # in place of the published pooling layer, to keep the tensor names
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.conv1 = Conv2d(5 * width, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        """x (B*O, C1, h, w), shared (B, C2, h, w) -> (B*O, C1 + C2, h, w)."""
        # (B*O, C1, 1, 1) and (B*O, C2, 1, 1)
        means = [F.adaptive_avg_pool2d(x, 1), F.adaptive_avg_pool2d(shared, 1)]
        means[1] = per_object(means[1], x.shape[0] // shared.shape[0])
        # (B*O, width, 1, 1) -> (B*O, width, h, w)
        pooled = self.global_avg_pool(torch.cat(means, 1)).expand(-1, -1, *x.shape[2:])
        parts = [aspp(x, shared) for aspp in (self.aspp1, self.aspp2, self.aspp3, self.aspp4)]
        # (B*O, 5 * width, h, w) -> (B*O, channels, h, w)
        both = torch.cat([*parts, pooled], 1)
        if isinstance(self.bn1, nn.Identity):
            return self.conv1(both, relu=True)
        return F.relu_(self.bn1(self.conv1(both)))


class QualityHead(nn.Module):
    """QDMN's prediction of the quality of a mask (Liu et al., ECCV 2022, section 3.2).

    Args:
        channels: channels of the features.
        width: channels of the convolutions.
        hidden: width of the MLP's hidden layer.
    """

    size = 24  # features are resized to size x size, so that any frame fits the MLP

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
        """Predict the IoU of masks from the value encoder's features.

        Args:
            feat16: (B, C, h, w), features of image and mask.

        Returns:
            (B,): the quality, at least 0 (in training, it can be negative).
        """
        x = F.interpolate(feat16, (self.size, self.size), mode="bilinear", align_corners=False)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = conv(x, relu=True)  # (B, width, 24, 24), after conv4 (B, width, 12, 12)
        quality = self.fc2(F.relu(self.fc1(x.flatten(1))))[:, 0]  # (B,)
        # The published head ends in a ReLU in training too; below 0, it has no gradient.
        return quality if self.training else F.relu(quality)


class RelationFusion(nn.Module):
    """IMSFR's gated sum of three reads: memory, first frame and latest memory frame.

    Training uses a second gate for the second object; inference uses the first gate for all.

    Args:
        channels: CV.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = Conv2d(3 * channels, channels, 3, padding=1)
        self.gate2 = Conv2d(3 * channels, channels, 3, padding=1)

    def forward(
        self, memory: torch.Tensor, first: torch.Tensor, latest: torch.Tensor
    ) -> torch.Tensor:
        """Fuse three reads (B, O, CV, h, w) into one of the same shape."""
        reads = torch.cat([memory, first, latest], 2)  # (B, O, 3*CV, h, w)
        reads = reads + reads.mean((3, 4), keepdim=True)
        if self.training:
            gates = [self.gate(reads[:, 0])]  # (B, CV, h, w) each
            gates += [self.gate2(reads[:, o]) for o in range(1, reads.shape[1])]
            gate = torch.stack(gates, 1)  # (B, O, CV, h, w)
        else:
            # (B*O, 3*CV, h, w) -> (B*O, CV, h, w) -> (B, O, CV, h, w)
            gate = self.gate(reads.flatten(0, 1)).unflatten(0, reads.shape[:2])
        return (memory + first + latest) * (1 + torch.sigmoid(gate))
