"""Key and value encoders. Shapes: see the legend in network.py."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from model.backbones import ResNetTrunk
from model.matching import to_rows
from model.modules import FeatureFusion, per_object


@dataclass
class QueryFeatures:
    """What one image gives, whatever its objects."""

    key: torch.Tensor  # (B, CK, h, w)
    thin: torch.Tensor  # (B, CV, h, w), the decoder's view of feat16
    feat16: torch.Tensor  # (B, C16, h, w)
    feat8: torch.Tensor  # (B, C8, H/8, W/8)
    feat4: torch.Tensor  # (B, C4, H/4, W/4)


@dataclass
class MemoryEntry:
    """What is remembered of one frame."""

    key: torch.Tensor  # (B, CK, h, w)
    value: torch.Tensor  # (B, O, CV, h, w)

    def of_objects(self, members: slice) -> MemoryEntry:
        """The same frame for some of its objects."""
        return MemoryEntry(self.key, self.value[:, members])

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Key (B, P, CK) and value (B, P, O*CV), objects one after the other."""
        return to_rows(self.key), to_rows(self.value.flatten(1, 2))


class KeyEncoder(nn.Module):
    """Image -> key, thin feature and skip features.

    Args:
        trunk: a trunk over RGB.
        key_channels: CK.
        thin_channels: width of the thin feature that the decoder takes.
        feature_filter: applied to feat16 before all else sees it; an identity for most methods.
    """

    def __init__(
        self,
        trunk: ResNetTrunk,
        key_channels: int,
        thin_channels: int,
        feature_filter: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.feature_filter = feature_filter or nn.Identity()
        self.key_proj = nn.Conv2d(trunk.channels[2], key_channels, 3, padding=1)
        self.thin_proj = nn.Conv2d(trunk.channels[2], thin_channels, 3, padding=1)
        nn.init.orthogonal_(self.key_proj.weight)
        nn.init.zeros_(_bias(self.key_proj))

    def forward(self, image: torch.Tensor) -> QueryFeatures:
        """image (B, 3, H, W), normalised; H and W multiples of 16."""
        feat4, feat8, feat16 = self.trunk(image)
        feat16 = self.feature_filter(feat16)
        return QueryFeatures(
            self.key_proj(feat16), self.thin_proj(feat16), feat16, feat8=feat8, feat4=feat4
        )


class ValueEncoder(nn.Module):
    """Image, mask and the key encoder's feat16 -> value.

    Args:
        trunk: a trunk over [image, mask] (4 channels: the single-object stage, which knows no
            others) or [image, mask, sum of the other objects' masks] (5 channels).
        feat16_channels: width of the key encoder's feat16.
        value_channels: CV.
    """

    def __init__(self, trunk: ResNetTrunk, feat16_channels: int, value_channels: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.fuser = FeatureFusion(trunk.channels[2] + feat16_channels, value_channels)

    def forward(
        self,
        image: torch.Tensor,
        feat16: torch.Tensor,
        masks: torch.Tensor,
        others: torch.Tensor,
    ) -> torch.Tensor:
        """image (B, 3, H, W), feat16 (B, C16, h, w), masks and others (B, O, H, W) in [0, 1].

        `others` is, for each object, the sum of all other objects' masks.

        Returns:
            (B, O, CV, h, w).
        """
        batch, num_objects = masks.shape[:2]
        planes = [per_object(image, num_objects), masks.flatten(0, 1)[:, None]]
        if self.trunk.in_channels == 5:
            planes.append(others.flatten(0, 1)[:, None])
        mask_feat16 = self.trunk(torch.cat(planes, 1)).feat16  # (B*O, C, h, w)
        value = self.fuser(torch.cat([mask_feat16, per_object(feat16, num_objects)], 1))
        return value.unflatten(0, (batch, num_objects))


def _bias(conv: nn.Conv2d) -> torch.Tensor:
    assert conv.bias is not None
    return conv.bias
