"""Decoder: readout and skip features -> logits. Shapes: see the legend in network.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from model.encoders import QueryFeatures
from model.modules import ResBlock, UpsampleBlock, per_object


class Decoder(nn.Module):
    """STCN's refinement decoder.

    Args:
        in_channels: CV + width of the thin feature.
        skip_channels: widths of feat4 and feat8.
        widths: widths at strides 16, 8 and 4 (512, 256, 256 as published).
    """

    def __init__(
        self, in_channels: int, skip_channels: tuple[int, int], widths: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.compress = ResBlock(in_channels, widths[0])
        self.up_16_8 = UpsampleBlock(skip_channels[1], widths[0], widths[1])
        self.up_8_4 = UpsampleBlock(skip_channels[0], widths[1], widths[2])
        self.pred = nn.Conv2d(widths[2], 1, 3, padding=1)

    def forward(self, readout: torch.Tensor, query: QueryFeatures) -> torch.Tensor:
        """readout (B, O, CV, h, w) -> logits (B, O, H, W)."""
        batch, num_objects = readout.shape[:2]
        thin = per_object(query.thin, num_objects)
        x = self.compress(torch.cat([readout.flatten(0, 1), thin], 1))
        x = self.up_16_8(query.feat8, x)
        x = self.up_8_4(query.feat4, x)
        logits = self.pred(F.relu(x)).float()  # (B*O, 1, H/4, W/4)
        logits = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
        return logits[:, 0].unflatten(0, (batch, num_objects))
