"""A sixth method as a plugin: `--plugin sixth_method.py --method sharp` (docs/plugins.md).

It has a feature part, a decoder with an output of its own, a loss that reads this output, and a
memory policy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from inference_memory_bank import MemoryPolicy, register_policy
from model.decoder import Decoded, Decoder, upsample_logits
from model.features import MemoryEntry, QueryFeatures
from model.losses import Outputs, segmentation_loss
from model.memory_bank import MemoryBank
from model.methods import STCN, Method, Widths, register_method
from model.network import Network, NetworkSpec


class Sharpen(nn.Module):
    """Amplify the difference between each feature and its mean over all positions."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> the same shape."""
        return x + self.strength * (x - x.mean((2, 3), keepdim=True))


class AreaDecoder(Decoder):
    """STCN's decoder. In training, it also predicts the area of each object."""

    def __init__(
        self, in_channels: int, skip_channels: tuple[int, int], widths: tuple[int, int, int]
    ) -> None:
        super().__init__(in_channels, skip_channels, widths)
        self.area = nn.Linear(widths[2], 1)

    def forward(self, readout: torch.Tensor, query: QueryFeatures) -> Decoded:
        """See Decoder; the output "area", (B, O), is the share of the image in [0, 1]."""
        features = self.refine(readout, query)  # (B*O, C, H/4, W/4)
        logits = upsample_logits(self.pred(F.relu(features)), readout)
        if not self.training:
            return Decoded(logits, {})
        area = torch.sigmoid(self.area(features.mean((2, 3))))[:, 0]  # (B*O,)
        return Decoded(logits, {"area": area.unflatten(0, readout.shape[:2])})


def segmentation_and_area_loss(
    outputs: Outputs, labels: torch.Tensor, num_objects: torch.Tensor, share: float
) -> dict[str, torch.Tensor]:
    """Compute `segmentation_loss` plus the squared error of the predicted areas."""
    losses = segmentation_loss(outputs, labels, num_objects, share)
    area = outputs["area"].float()  # (B, T-1, O)
    objects = torch.arange(1, area.shape[2] + 1, device=labels.device)
    masks = labels[:, 1:, None] == objects[:, None, None]  # (B, T-1, O, H, W)
    error = (area - masks.float().mean((3, 4))).square().mean()
    return {**losses, "area_error": error, "total_loss": losses["total_loss"] + error}


@dataclass(frozen=True)
class DoublingIntervals(MemoryPolicy):
    """Store frames 0, n, 2n, 4n, 8n, ...: memory is logarithmic in the length of the video."""

    def needs(self, bank: MemoryBank, frame_index: int) -> bool:
        """See MemoryPolicy."""
        return frame_index >= max(self.mem_every, 2 * bank.last_stored)

    def write(
        self,
        bank: MemoryBank,
        entry: MemoryEntry,
        frame_index: int,
        is_annotation: bool = False,
        must_store: bool = False,
    ) -> None:
        """See MemoryPolicy."""
        if is_annotation or must_store or self.needs(bank, frame_index):
            self._evict(bank)
            bank.append(entry, frame_index, is_annotation=is_annotation)


def build_sharp(spec: NetworkSpec, widths: Widths) -> Network:
    """Build STCN's network with the two parts of this method."""
    network = STCN.build(spec, widths)
    channels = network.key_encoder.backbone.channels
    network.key_encoder.feature_filter = Sharpen()
    network.decoder = AreaDecoder(2 * widths.value, channels[:2], widths.decoder)
    return network


register_policy("doubling", DoublingIntervals, options=("mem_every", "mem_capacity"))
register_method(
    Method("sharp", STCN.sizes, build_sharp, renames=(), loss=segmentation_and_area_loss),
    train={"lr": 1e-2},
    stages={"0": {"batch_size": 4}, "3": {"batch_size": 2}},
    evaluation={"memory": "doubling", "mem_every": 2, "top": 20},
    evaluation_by_dataset={"youtube": {"mem_every": 3}},
)
