"""Decoders: readout and skip features -> logits. Shapes: see the legend in network.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from model.convolution import Conv2d
from model.features import QueryFeatures
from model.modules import (
    AtrousPyramid,
    RefinedUpsampleBlock,
    ResBlock,
    UpsampleBlock,
)
from model.spectral import SpectralFilter


class Decoded(NamedTuple):
    """Output of a decoder.

    Attributes:
        logits: (B, O, H, W), float32, each object against its own background.
        outputs: further outputs for the loss by name, (B, O, ...) each. `ClipUnroll` collects them.
    """

    logits: torch.Tensor
    outputs: Mapping[str, torch.Tensor]


class Decoder(nn.Module):
    """STCN's refinement decoder.

    Args:
        in_channels: CV + channels of the thin feature.
        skip_channels: channels of feat4 and feat8.
        widths: channels at strides 16, 8 and 4 (512, 256, 256 as published).
    """

    def __init__(
        self, in_channels: int, skip_channels: tuple[int, int], widths: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.context: AtrousPyramid | None = None
        self.compress = ResBlock(in_channels, widths[0])
        self.up_16_8: nn.Module = UpsampleBlock(skip_channels[1], widths[0], widths[1])
        self.up_8_4: nn.Module = UpsampleBlock(skip_channels[0], widths[1], widths[2])
        self.pred = Conv2d(widths[2], 1, 3, padding=1)

    def forward(self, readout: torch.Tensor, query: QueryFeatures) -> Decoded:
        """Decode a readout (B, O, CV, h, w) into logits (B, O, H, W)."""
        logits = self.pred(F.relu(self.refine(readout, query)))
        return Decoded(upsample_logits(logits, readout), {})

    def refine(self, readout: torch.Tensor, query: QueryFeatures) -> torch.Tensor:
        """Compute features (B*O, C, H/4, W/4) of a readout (B, O, CV, h, w)."""
        x = readout.flatten(0, 1)
        if self.context is None:
            x = self.compress(x, query.thin)
        else:
            x = self.compress(self.context(x, query.thin))
        x = self.up_16_8(query.feat8, x)
        return self.up_8_4(query.feat4, x)


class BoundaryDecoder(Decoder):
    """GSFM's decoder: a mask and a boundary branch that exchange features (section 3.3).

    Args: see Decoder.
    """

    def __init__(
        self, in_channels: int, skip_channels: tuple[int, int], widths: tuple[int, int, int]
    ) -> None:
        super().__init__(in_channels, skip_channels, widths)
        width = widths[2]

        def conv3() -> Conv2d:
            return Conv2d(width, width, 3, padding=1)

        self.mask_1, self.predict_mask = conv3(), conv3()
        self.boundary_1, self.boundary_2, self.boundary_3 = conv3(), conv3(), conv3()
        self.hfm = SpectralFilter(width, keeps_high=True)
        self.fusion_1, self.fusion_2 = Conv2d(width, width, 1), Conv2d(width, width, 1)
        self.predict_boundary_1 = conv3()
        self.predict_boundary_2 = Conv2d(width, 1, 3, padding=1)

    def forward(self, readout: torch.Tensor, query: QueryFeatures) -> Decoded:
        """Decode a readout (B, O, CV, h, w) into logits of masks.

        In training, the output "boundary" holds logits of the boundaries, (B, O, H, W).
        """
        x = self.refine(readout, query)
        boundary = self.hfm(self.boundary_1(x))
        mask = self.mask_1(x)
        boundary = boundary + self.fusion_1(mask, relu=True)
        boundary = self.boundary_3(self.boundary_2(boundary), relu=True)
        mask = mask + self.fusion_2(boundary, relu=True)
        logits = self.pred(self.predict_mask(mask, relu=True))
        if not self.training:
            return Decoded(upsample_logits(logits, readout), {})
        boundary = self.predict_boundary_2(self.predict_boundary_1(boundary, relu=True))
        logits = upsample_logits(logits, readout)
        return Decoded(logits, {"boundary": upsample_logits(boundary, readout)})


class ContextDecoder(Decoder):
    """QDMN's decoder: ASPP before the first block, and a ResBlock on each skip connection.

    Args: see Decoder.
    """

    def __init__(
        self, in_channels: int, skip_channels: tuple[int, int], widths: tuple[int, int, int]
    ) -> None:
        super().__init__(in_channels, skip_channels, widths)
        self.context = AtrousPyramid(in_channels, in_channels // 4)
        self.up_16_8 = RefinedUpsampleBlock(skip_channels[1], widths[0], widths[1])
        self.up_8_4 = RefinedUpsampleBlock(skip_channels[0], widths[1], widths[2])


def upsample_logits(logits: torch.Tensor, readout: torch.Tensor) -> torch.Tensor:
    """Upsample logits (B*O, 1, H/4, W/4) to float32 (B, O, H, W), with B and O of the readout."""
    logits = F.interpolate(logits.float(), scale_factor=4, mode="bilinear", align_corners=False)
    return logits[:, 0].unflatten(0, readout.shape[:2])
