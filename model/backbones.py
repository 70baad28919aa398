"""ResNet backbones up to the third residual stage (He et al., CVPR 2016), on torchvision's blocks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from model.convolution import Conv2d

# depth -> (block, blocks in stages 1 to 3); depth 8 is for tests.
_DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int]]] = {
    8: (BasicBlock, (1, 1, 1)),
    18: (BasicBlock, (2, 2, 2)),
    50: (Bottleneck, (3, 4, 6)),
    101: (Bottleneck, (3, 4, 23)),
}


class ImageFeatures(NamedTuple):
    """Features of one backbone: strides 4, 8, 16."""

    feat4: torch.Tensor  # (B, C4, H/4, W/4)
    feat8: torch.Tensor  # (B, C8, H/8, W/8)
    feat16: torch.Tensor  # (B, C16, h, w)


class ResNetBackbone(nn.Module):
    """conv1 to layer3 of a ResNet, with torchvision's parameter names.

    Args:
        depth: 18, 50 or 101 (8 for tests).
        in_channels: channels of the input; more than 3 for encoders that also see masks.
        width: channels of the first convolution and stage (64 as published).
    """

    def __init__(self, depth: int, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        if depth not in _DEPTHS:
            raise ValueError(f"There is no ResNet of depth {depth} here: choose from {[*_DEPTHS]}.")
        block, (num1, num2, num3) = _DEPTHS[depth]
        expansion = block.expansion
        self.depth, self.in_channels, self.width = depth, in_channels, width
        self.channels = (width * expansion, 2 * width * expansion, 4 * width * expansion)
        self.conv1 = Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(block, width, width, num1, stride=1)
        self.layer2 = _stage(block, width * expansion, 2 * width, num2, stride=2)
        self.layer3 = _stage(block, 2 * width * expansion, 4 * width, num3, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            # Batch norms run on fixed statistics, so from scratch they normalise nothing: blocks
            # that start as identities keep activations from growing with depth.
            elif isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)

    def forward(self, image: torch.Tensor) -> ImageFeatures:
        """(B, in_channels, H, W) -> ImageFeatures; H and W are multiples of 16."""
        if isinstance(self.bn1, nn.Identity):  # folded
            x = self.conv1(image, relu=True)
        else:
            x = self.relu(self.bn1(self.conv1(image)))
        x = self.maxpool(x)  # (B, width, H/4, W/4)
        feat4 = self.layer1(x)
        feat8 = self.layer2(feat4)
        return ImageFeatures(feat4, feat8, self.layer3(feat8))

    def fold_blocks(self) -> None:
        """Once batch norms are folded into convolutions: blocks that are nothing but these."""
        for stage in (self.layer1, self.layer2, self.layer3):
            for name, block in stage.named_children():
                if not isinstance(block, _FoldedBlock):
                    setattr(stage, name, _FoldedBlock(block))


class _FoldedBlock(nn.Module):
    """A residual block of convolutions alone, for inference."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        convs = [conv for name, conv in block.named_children() if name.startswith("conv")]
        self.convs = nn.ModuleList(Conv2d.of(conv) for conv in convs)
        self.downsample = None if block.downsample is None else Conv2d.of(block.downsample[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        *convs, last = self.convs
        for conv in convs:
            x = conv(x, relu=True)
        # The shortcut is the block's own, or the result of the block before, which ends here.
        return last(x, add=shortcut, relu=True, spends_add=True)


def _stage(
    block: type[BasicBlock] | type[Bottleneck], channels: int, planes: int, num: int, stride: int
) -> nn.Sequential:
    out_channels = planes * block.expansion
    downsample = None
    if stride != 1 or channels != out_channels:
        downsample = nn.Sequential(
            nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )
    blocks = [block(channels, planes, stride, downsample)]
    blocks += [block(out_channels, planes) for _ in range(num - 1)]
    return nn.Sequential(*blocks)
