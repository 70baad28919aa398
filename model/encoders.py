"""Key and value encoders. Shapes: see the legend in network.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from model.backbones import ImageFeatures, ResNetBackbone
from model.convolution import Conv2d, per_object
from model.features import MemoryEntry, QueryFeatures
from model.modules import FeatureFusion, QualityHead


class KeyEncoder(nn.Module):
    """Image -> key, thin feature and skip features.

    Args:
        backbone: a backbone over RGB.
        key_channels: CK; None where the thin feature is the key (IMSFR).
        thin_channels: width of the thin feature that the decoder takes.
        feature_filter: applied to feat16 before all else sees it; an identity for most methods.
    """

    needs_prior = False  # whether `project` looks at the masks of the frame before

    def __init__(
        self,
        backbone: ResNetBackbone,
        key_channels: int | None,
        thin_channels: int,
        feature_filter: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature_filter = feature_filter or nn.Identity()
        self.key_proj = None
        if key_channels is not None:
            self.key_proj = Conv2d(backbone.channels[2], key_channels, 3, padding=1)
            nn.init.orthogonal_(self.key_proj.weight)
            nn.init.zeros_(_bias(self.key_proj))
        self.thin_proj = Conv2d(backbone.channels[2], thin_channels, 3, padding=1)

    def forward(self, image: torch.Tensor, prior: torch.Tensor | None = None) -> QueryFeatures:
        """image (B, 3, H, W), normalised; H and W multiples of 16; prior as in `project`."""
        return self.project(self.encode_image(image), prior)

    def encode_image(self, image: torch.Tensor) -> ImageFeatures:
        """Features that do not depend on earlier frames: (B, 3, H, W) -> ImageFeatures."""
        features = self.backbone(image)
        return features._replace(feat16=self.feature_filter(features.feat16))

    def project(self, features: ImageFeatures, prior: torch.Tensor | None = None) -> QueryFeatures:
        """The rest, given a prior (B, 1, H, W) in [0, 1]: where objects were one frame before."""
        feat4, feat8, feat16 = features
        thin = self.thin_proj(feat16)
        key = thin if self.key_proj is None else self.key_proj(feat16)
        return QueryFeatures(key, thin, feat16, feat8=feat8, feat4=feat4)


class PriorKeyEncoder(KeyEncoder):
    """QDMN's: the masks of the frame before gate feat16 (Liu et al., ECCV 2022, section 3.3)."""

    needs_prior = True

    def __init__(self, backbone: ResNetBackbone, key_channels: int, thin_channels: int) -> None:
        super().__init__(backbone, key_channels, thin_channels)
        self.prior_conv = Conv2d(backbone.channels[2] + 1, 1, 3, padding=1)

    def project(self, features: ImageFeatures, prior: torch.Tensor | None = None) -> QueryFeatures:
        """See KeyEncoder; without a prior no object was anywhere."""
        feat16 = features.feat16
        if prior is None:
            small = feat16.new_zeros(feat16.shape[0], 1, *feat16.shape[2:])
        else:
            small = F.interpolate(
                prior.to(feat16.dtype), feat16.shape[2:], mode="bilinear", align_corners=False
            )
        gate = torch.sigmoid(self.prior_conv(torch.cat([feat16, small], 1)))
        return super().project(features._replace(feat16=feat16 * gate))


class ValueEncoder(nn.Module):
    """Image, mask and the key encoder's feat16 -> value.

    Args:
        backbone: a backbone over [image, mask] (4 channels: the single-object stage, which knows no
            others) or [image, mask, sum of the other objects' masks] (5 channels).
        feat16_channels: width of the key encoder's feat16.
        value_channels: CV.
    """

    needs_next_image = False  # whether a frame can be remembered only once the next one is there

    def __init__(self, backbone: ResNetBackbone, feat16_channels: int, value_channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.fuser = FeatureFusion(backbone.channels[2] + feat16_channels, value_channels)

    def forward(
        self,
        image: torch.Tensor,
        query: QueryFeatures,
        masks: torch.Tensor,
        others: torch.Tensor,
        next_image: torch.Tensor | None = None,
    ) -> MemoryEntry:
        """What to remember of a frame.

        Args:
            image: (B, 3, H, W), normalised; query: its features.
            masks: (B, O, H, W) in [0, 1]; others: for each object, the sum of all others' masks.
            next_image: (B, 3, H, W), of the frame after, where `needs_next_image`.
        """
        value = self._fuse(_see_masks(self.backbone, image, masks, others), query)
        return MemoryEntry(query.key, value.unflatten(0, masks.shape[:2]))

    def _fuse(self, feat16: torch.Tensor, query: QueryFeatures) -> torch.Tensor:
        """feat16 with masks (B*O, C, h, w) -> (B*O, CV, h, w)."""
        return self.fuser(feat16, query.feat16)


class OwnKeyEncoder(nn.Module):
    """QDMN's: each object has keys of its own, and a score of how good its mask is.

    Args:
        backbone: as ValueEncoder's; key_channels: CK; value_channels: CV.
        quality_head: feat16 -> score.
    """

    needs_next_image = False

    def __init__(
        self,
        backbone: ResNetBackbone,
        key_channels: int,
        value_channels: int,
        quality_head: QualityHead,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.key_proj = Conv2d(backbone.channels[2], key_channels, 3, padding=1)
        self.value_proj = Conv2d(backbone.channels[2], value_channels, 3, padding=1)
        self.quality_head = quality_head
        nn.init.orthogonal_(self.key_proj.weight)
        nn.init.zeros_(_bias(self.key_proj))

    def forward(
        self,
        image: torch.Tensor,
        query: QueryFeatures,
        masks: torch.Tensor,
        others: torch.Tensor,
        next_image: torch.Tensor | None = None,
    ) -> MemoryEntry:
        """See ValueEncoder; `query` is not looked at."""
        feat16 = _see_masks(self.backbone, image, masks, others)  # (B*O, C, h, w)
        shape = masks.shape[:2]
        return MemoryEntry(
            self.key_proj(feat16).unflatten(0, shape),
            self.value_proj(feat16).unflatten(0, shape),
            quality=self.quality_head(feat16).unflatten(0, shape),
        )


class GatedValueEncoder(ValueEncoder):
    """IMSFR's: the next image gates what is remembered; a second value has Fourier features.

    Args: as ValueEncoder's.
    """

    needs_next_image = True
    num_frequencies = 6

    def __init__(self, backbone: ResNetBackbone, feat16_channels: int, value_channels: int) -> None:
        super().__init__(backbone, feat16_channels, value_channels)
        planes = (1 + 2 * self.num_frequencies) * value_channels
        self.next_gate = Conv2d(backbone.channels[2], value_channels, 3, padding=1)
        self.fourier_proj = Conv2d(planes, value_channels, 1)
        self.detail_proj = Conv2d(value_channels, value_channels, 1)

    def forward(
        self,
        image: torch.Tensor,
        query: QueryFeatures,
        masks: torch.Tensor,
        others: torch.Tensor,
        next_image: torch.Tensor | None = None,
    ) -> MemoryEntry:
        """See ValueEncoder."""
        assert next_image is not None, "this encoder gates by the next image"
        value = self._fuse(_see_masks(self.backbone, image, masks, others), query)
        gate = self.next_gate(_see_masks(self.backbone, next_image, masks, others))
        value = value * torch.sigmoid(gate)
        detail = self.detail_proj(value + self.fourier_proj(self.encode(value)))
        shape = masks.shape[:2]
        return MemoryEntry(query.key, value.unflatten(0, shape), detail.unflatten(0, shape))

    def encode(self, value: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, 13*C, h, w): v, sin(v), cos(v), sin(2v), cos(2v), ... sin(32v)."""
        waves = [value]
        for i in range(self.num_frequencies):
            waves += [torch.sin(2**i * value), torch.cos(2**i * value)]
        return torch.cat(waves, 1)


def _see_masks(
    backbone: ResNetBackbone, image: torch.Tensor, masks: torch.Tensor, others: torch.Tensor
) -> torch.Tensor:
    """feat16 (B*O, C, h, w) of [image, mask, others' masks]; a 4-channel backbone sees no others."""
    planes = [per_object(image, masks.shape[1]), masks.flatten(0, 1)[:, None]]
    if backbone.in_channels == 5:
        planes.append(others.flatten(0, 1)[:, None])
    return backbone(torch.cat(planes, 1)).feat16


def _bias(conv: Conv2d) -> torch.Tensor:
    assert conv.bias is not None
    return conv.bias
