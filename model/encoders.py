"""Key and value encoders. Shapes: see the legend in network.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from model.backbones import ImageFeatures, ResNetBackbone
from model.convolution import Conv2d, bias_of, per_object
from model.features import MemoryEntry, QueryFeatures
from model.modules import FeatureFusion, QualityHead


class KeyEncoder(nn.Module):
    """Encode an image into a key, a thin feature and skip features.

    Args:
        backbone: ResNet with RGB input.
        key_channels: CK; None if the thin feature is the key (IMSFR).
        thin_channels: channels of the thin feature, which the decoder reads.
        feature_filter: applied to feat16 before the projections (GSFM); None for the identity.
    """

    needs_prior = False  # True if `project` uses the masks of the previous frame

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
            nn.init.zeros_(bias_of(self.key_proj))
        self.thin_proj = Conv2d(backbone.channels[2], thin_channels, 3, padding=1)

    def forward(self, image: torch.Tensor, prior: torch.Tensor | None = None) -> QueryFeatures:
        """Run `encode_image` and `project`."""
        return self.project(self.encode_image(image), prior)

    def encode_image(self, image: torch.Tensor) -> ImageFeatures:
        """Compute the features that do not depend on earlier frames.

        Args:
            image: (B, 3, H, W), normalised; H and W are multiples of 16.
        """
        features = self.backbone(image)
        return features._replace(feat16=self.feature_filter(features.feat16))  # (B, C16, h, w)

    def project(self, features: ImageFeatures, prior: torch.Tensor | None = None) -> QueryFeatures:
        """Compute key and thin feature from the features of an image.

        Args:
            features: from `encode_image`.
            prior: (B, 1, H, W) in [0, 1], the probability of any object in the previous frame; only
                used if `needs_prior`.
        """
        feat4, feat8, feat16 = features
        thin = self.thin_proj(feat16)  # (B, CV, h, w)
        key = thin if self.key_proj is None else self.key_proj(feat16)  # (B, CK, h, w)
        return QueryFeatures(key, thin, feat16, feat8=feat8, feat4=feat4)


class PriorKeyEncoder(KeyEncoder):
    """QDMN's key encoder: the masks of the previous frame gate feat16.

    Liu et al., ECCV 2022, section 3.3.

    Args: see KeyEncoder.
    """

    needs_prior = True

    def __init__(self, backbone: ResNetBackbone, key_channels: int, thin_channels: int) -> None:
        super().__init__(backbone, key_channels, thin_channels)
        self.prior_conv = Conv2d(backbone.channels[2] + 1, 1, 3, padding=1)

    def project(self, features: ImageFeatures, prior: torch.Tensor | None = None) -> QueryFeatures:
        """See KeyEncoder. None is a prior of zeros: there was no object."""
        feat16 = features.feat16
        if prior is None:
            small = feat16.new_zeros(feat16.shape[0], 1, *feat16.shape[2:])  # (B, 1, h, w)
        else:
            small = F.interpolate(
                prior.to(feat16.dtype), feat16.shape[2:], mode="bilinear", align_corners=False
            )  # (B, 1, h, w)
        gate = torch.sigmoid(self.prior_conv(torch.cat([feat16, small], 1)))  # (B, 1, h, w)
        return super().project(features._replace(feat16=feat16 * gate))


class ValueEncoder(nn.Module):
    """Encode an image and its masks into a memory frame, fused with the key encoder's feat16.

    Args:
        backbone: ResNet whose input is [image, mask] (4 channels, for the single-object stage) or
            [image, mask, sum of the other objects' masks] (5 channels).
        feat16_channels: C16 of the key encoder.
        value_channels: CV.
    """

    needs_next_image = False  # True if encoding a frame requires the next frame's image

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
        """Encode a frame with its masks.

        Args:
            image: (B, 3, H, W), normalised.
            query: features of the image from the key encoder.
            masks: (B, O, H, W) in [0, 1].
            others: (B, O, H, W), for each object the sum of all other objects' masks.
            next_image: (B, 3, H, W), image of the next frame; only used if `needs_next_image`.
        """
        feat16 = _encode_with_masks(self.backbone, image, masks, others)  # (B*O, C16, h, w)
        value = self._fuse(feat16, query)  # (B*O, CV, h, w)
        return MemoryEntry(query.key, value.unflatten(0, masks.shape[:2]))  # (B, O, CV, h, w)

    def _fuse(self, feat16: torch.Tensor, query: QueryFeatures) -> torch.Tensor:
        """Features with masks (B*O, C16, h, w) -> (B*O, CV, h, w)."""
        return self.fuser(feat16, query.feat16)


class KeyValueEncoder(nn.Module):
    """QDMN's value encoder: each object gets its own key, and its mask a predicted quality.

    Args:
        backbone: as in ValueEncoder.
        key_channels: CK.
        value_channels: CV.
        quality_head: predicts the quality from feat16.
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
        nn.init.zeros_(bias_of(self.key_proj))

    def forward(
        self,
        image: torch.Tensor,
        query: QueryFeatures,
        masks: torch.Tensor,
        others: torch.Tensor,
        next_image: torch.Tensor | None = None,
    ) -> MemoryEntry:
        """See ValueEncoder; `query` and `next_image` are not used."""
        feat16 = _encode_with_masks(self.backbone, image, masks, others)  # (B*O, C16, h, w)
        shape = masks.shape[:2]
        return MemoryEntry(
            self.key_proj(feat16).unflatten(0, shape),  # (B, O, CK, h, w)
            self.value_proj(feat16).unflatten(0, shape),  # (B, O, CV, h, w)
            quality=self.quality_head(feat16).unflatten(0, shape),  # (B, O)
        )


class GatedValueEncoder(ValueEncoder):
    """IMSFR's value encoder: the next image gates the value.

    It adds a second value with Fourier features, the detail, which is read from the latest memory
    frame only.

    Args: see ValueEncoder.
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
        assert next_image is not None, "this encoder needs the next image"
        feat16 = _encode_with_masks(self.backbone, image, masks, others)  # (B*O, C16, h, w)
        value = self._fuse(feat16, query)  # (B*O, CV, h, w)
        gate = self.next_gate(_encode_with_masks(self.backbone, next_image, masks, others))
        value = value * torch.sigmoid(gate)
        detail = self.detail_proj(value + self.fourier_proj(self.encode(value)))
        shape = masks.shape[:2]
        # Both (B*O, CV, h, w) -> (B, O, CV, h, w).
        return MemoryEntry(query.key, value.unflatten(0, shape), detail.unflatten(0, shape))

    def encode(self, value: torch.Tensor) -> torch.Tensor:
        """Compute v, sin(v), cos(v), sin(2v), ..., cos(32v): (B, C, h, w) -> (B, 13*C, h, w)."""
        waves = [value]
        for i in range(self.num_frequencies):
            waves += [torch.sin(2**i * value), torch.cos(2**i * value)]
        return torch.cat(waves, 1)


def _encode_with_masks(
    backbone: ResNetBackbone, image: torch.Tensor, masks: torch.Tensor, others: torch.Tensor
) -> torch.Tensor:
    """Compute feat16 (B*O, C16, h, w) of [image, mask, others] for each object.

    A backbone with 4 input channels does not get `others`.
    """
    # (B*O, 3, H, W) and (B*O, 1, H, W)
    planes = [per_object(image, masks.shape[1]), masks.flatten(0, 1)[:, None]]
    if backbone.in_channels == 5:
        planes.append(others.flatten(0, 1)[:, None])  # (B*O, 1, H, W)
    return backbone(torch.cat(planes, 1)).feat16
