"""ResNet backbones up to the third residual stage (He et al., CVPR 2016).

The blocks have torchvision's parameter names, so that its ImageNet weights load. They are written
here because importing torchvision.models takes longer than importing torch.

Shapes: see the legend in network.py.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from model.convolution import Conv2d


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18).

    Args:
        in_channels: channels of the input.
        width: channels of the output.
        stride: stride of the first convolution.
        downsample: the shortcut; None for the identity.
    """

    expansion = 1  # channels of the output / width
    conv_norm_pairs = (("conv1", "bn1"), ("conv2", "bn2"), ("downsample.0", "downsample.1"))

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        downsample: nn.Sequential | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, h, w) -> (B, width, h / stride, w / stride)."""
        shortcut = x
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        # After the convolutions, as in torchvision: gradients are summed in the same order.
        x += shortcut if self.downsample is None else self.downsample(shortcut)
        return self.relu(x)


class _Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (ResNet-50 and ResNet-101).

    The 3x3 convolution has the stride (ResNet V1.5), as in torchvision.

    Args:
        in_channels: channels of the input.
        width: channels of the 3x3 convolution; the output has four times as many.
        stride: stride of the 3x3 convolution.
        downsample: the shortcut; None for the identity.
    """

    expansion = 4
    conv_norm_pairs = (*_BasicBlock.conv_norm_pairs, ("conv3", "bn3"))

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        downsample: nn.Sequential | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, h, w) -> (B, 4 * width, h / stride, w / stride)."""
        shortcut = x
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x += shortcut if self.downsample is None else self.downsample(shortcut)
        return self.relu(x)


_Block = _BasicBlock | _Bottleneck

# depth -> (block, blocks in stages 1 to 3); depth 8 is for tests.
_DEPTHS: dict[int, tuple[type[_Block], tuple[int, int, int]]] = {
    8: (_BasicBlock, (1, 1, 1)),
    18: (_BasicBlock, (2, 2, 2)),
    50: (_Bottleneck, (3, 4, 6)),
    101: (_Bottleneck, (3, 4, 23)),
}


class ImageFeatures(NamedTuple):
    """Features of one backbone at strides 4, 8 and 16."""

    feat4: torch.Tensor  # (B, C4, H/4, W/4)
    feat8: torch.Tensor  # (B, C8, H/8, W/8)
    feat16: torch.Tensor  # (B, C16, h, w)


class ResNetBackbone(nn.Module):
    """conv1 to layer3 of a ResNet, with torchvision's parameter names.

    Args:
        depth: 18, 50 or 101 (8 for tests).
        in_channels: channels of the input; more than 3 if it includes masks.
        width: channels of the first convolution and stage (64 as published).

    Raises:
        ValueError: the depth is unknown.
    """

    conv_norm_pairs = (("conv1", "bn1"),)

    def __init__(self, depth: int, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        if depth not in _DEPTHS:
            raise ValueError(f"There is no ResNet of depth {depth}: choose from {[*_DEPTHS]}.")
        block, (num1, num2, num3) = _DEPTHS[depth]
        expansion = block.expansion
        self.depth, self.in_channels, self.width = depth, in_channels, width
        # C4, C8, C16
        self.channels = (width * expansion, 2 * width * expansion, 4 * width * expansion)
        self.conv1 = Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _make_stage(block, width, width, num1, stride=1)
        self.layer2 = _make_stage(block, width * expansion, 2 * width, num2, stride=2)
        self.layer3 = _make_stage(block, 2 * width * expansion, 4 * width, num3, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            # Batch norms use fixed statistics, so before training they normalise nothing. Blocks
            # that start as identities keep activations from growing with depth.
            elif isinstance(module, _BasicBlock):
                nn.init.zeros_(module.bn2.weight)
            elif isinstance(module, _Bottleneck):
                nn.init.zeros_(module.bn3.weight)

    def forward(self, image: torch.Tensor) -> ImageFeatures:
        """Compute features of images (B, in_channels, H, W); H and W are multiples of 16."""
        if isinstance(self.bn1, nn.Identity):  # the batch norm is folded into conv1
            x = self.conv1(image, relu=True)  # (B, width, H/2, W/2)
        else:
            x = self.relu(self.bn1(self.conv1(image)))  # (B, width, H/2, W/2)
        x = self.maxpool(x)  # (B, width, H/4, W/4)
        feat4 = self.layer1(x)  # (B, C4, H/4, W/4)
        feat8 = self.layer2(feat4)  # (B, C8, H/8, W/8)
        return ImageFeatures(feat4, feat8, self.layer3(feat8))

    def first_layers(self, number: int) -> list[nn.Module]:
        """List the modules of the first residual layers, 0 to 3, with those before layer1."""
        layers = [self.layer1, self.layer2, self.layer3][:number]
        return [self.conv1, self.bn1, *layers] if layers else []

    def fold_blocks(self) -> None:
        """Replace residual blocks whose batch norms are folded by blocks of convolutions alone."""
        for stage in (self.layer1, self.layer2, self.layer3):
            for name, block in stage.named_children():
                if isinstance(block, _BasicBlock | _Bottleneck) and _is_folded(block):
                    setattr(stage, name, _FoldedBlock(block))


def _is_folded(block: _Block) -> bool:
    """Return True for a residual block of this file that has only convolutions and ReLU left.

    Subclasses and changed blocks may compute something else.
    """
    expected = {"conv": nn.Conv2d, "bn": nn.Identity, "relu": nn.ReLU}
    layers = {name: layer for name, layer in block.named_children() if name != "downsample"}
    shortcut = block.downsample
    if shortcut is not None:
        if type(shortcut) is not nn.Sequential or len(shortcut) != 2:
            return False
        layers.update(conv=shortcut[0], bn=shortcut[1])
    return type(block) in (_BasicBlock, _Bottleneck) and all(
        type(layer) is expected.get(name.rstrip("123")) for name, layer in layers.items()
    )


class _FoldedBlock(nn.Module):
    """A residual block of convolutions without batch norms, for inference.

    Args:
        block: its batch norms are folded into its convolutions.
    """

    def __init__(self, block: _Block) -> None:
        super().__init__()
        convs = [conv for conv in block.children() if isinstance(conv, nn.Conv2d)]
        self.convs = nn.ModuleList(Conv2d.of(conv) for conv in convs)
        self.downsample: Conv2d | None = None
        if block.downsample is not None:
            conv = block.downsample[0]
            assert isinstance(conv, nn.Conv2d)
            self.downsample = Conv2d.of(conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, C', h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        *convs, last = self.convs
        for conv in convs:
            x = conv(x, relu=True)
        # Only this block uses the shortcut, so the result may overwrite it.
        return last(x, add=shortcut, relu=True, overwrite_add=True)


def _make_stage(
    block: type[_Block], in_channels: int, width: int, num_blocks: int, stride: int
) -> nn.Sequential:
    out_channels = width * block.expansion
    downsample = None
    if stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )
    blocks = [block(in_channels, width, stride, downsample)]
    blocks += [block(out_channels, width) for _ in range(num_blocks - 1)]
    return nn.Sequential(*blocks)
