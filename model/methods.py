"""The methods as rows: parts, widths, and how the published checkpoint's names map onto ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from model.backbones import ResNetBackbone
from model.compress import Compressor
from model.decoder import BoundaryDecoder, ContextDecoder, Decoder
from model.encoders import (
    GatedValueEncoder,
    KeyEncoder,
    OwnKeyEncoder,
    PriorKeyEncoder,
    ValueEncoder,
)
from model.losses import (
    recurrent_loss,
    segmentation_and_boundary_loss,
    segmentation_and_quality_loss,
    segmentation_loss,
)
from model.matching import dot_similarity, l2_similarity
from model.modules import QualityHead, RelationFusion
from model.network import Network, NetworkSpec
from model.spectral import SpectralFilter
from model.unroll import ClipUnroll, RecurrentUnroll

# (outputs, labels (B, T, H, W), num_objects (B,), share of hard examples, and settings by name)
# -> scalars by name.
Loss = Callable[..., dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Widths:
    """Channels of a size of network."""

    backbone_depth: int  # ResNet of the key encoder
    backbone_width: int
    value_depth: int  # ResNet of the value encoder
    value_width: int
    key: int  # CK
    value: int  # CV, and the thin feature's
    decoder: tuple[int, int, int]  # at strides 16, 8, 4
    quality: tuple[int, int] = (256, 1024)  # QDMN's head: convolutions, perceptron


BASE = Widths(50, 64, 18, 64, key=64, value=512, decoder=(512, 256, 256))
# About an eighth of base's work outside the backbone, 32 MB in half precision; for laptops.
SMALL = Widths(50, 64, 18, 32, key=64, value=128, decoder=(128, 128, 64))
# For tests: everything there, nothing learned of use.
TINY = Widths(8, 8, 8, 8, key=8, value=16, decoder=(16, 16, 8), quality=(8, 16))


@dataclass(frozen=True)
class Method:
    """One row.

    Args:
        sizes: widths by name.
        build: the network of a spec, from its widths.
        renames: (published prefix, our prefix); the first that fits renames a tensor.
        unroll: how a clip is segmented in training.
        loss: of a clip in training.
        loss_settings: the settings of train.py that the loss takes by name.
    """

    name: str
    sizes: dict[str, Widths]
    build: Callable[[NetworkSpec, Widths], Network]
    renames: tuple[tuple[str, str], ...]
    unroll: type[ClipUnroll] = ClipUnroll
    loss: Loss = segmentation_loss
    loss_settings: tuple[str, ...] = ()


def _build_backbones(spec: NetworkSpec, widths: Widths) -> tuple[ResNetBackbone, ResNetBackbone]:
    """Over images, and over images with masks."""
    mask_channels = 1 if spec.is_single_object else 2
    return (
        ResNetBackbone(widths.backbone_depth, 3, widths.backbone_width),
        ResNetBackbone(widths.value_depth, 3 + mask_channels, widths.value_width),
    )


def _build_stcn(spec: NetworkSpec, widths: Widths) -> Network:
    backbone, value_backbone = _build_backbones(spec, widths)
    return Network(
        spec,
        KeyEncoder(backbone, widths.key, widths.value),
        ValueEncoder(value_backbone, backbone.channels[2], widths.value),
        Decoder(2 * widths.value, backbone.channels[:2], widths.decoder),
        l2_similarity,
    )


def _build_gsfm(spec: NetworkSpec, widths: Widths) -> Network:
    network = _build_stcn(spec, widths)
    channels = network.key_encoder.backbone.channels
    network.key_encoder.feature_filter = SpectralFilter(channels[2], keeps_high=False)
    network.decoder = BoundaryDecoder(2 * widths.value, channels[:2], widths.decoder)
    return network


def _build_rde(spec: NetworkSpec, widths: Widths) -> Network:
    network = _build_stcn(spec, widths)
    if not spec.is_single_object:  # stage 0 has no memory to compress
        network.compressor = Compressor(widths.key, widths.value, spec.repeat)
    return network


def _build_qdmn(spec: NetworkSpec, widths: Widths) -> Network:
    backbone, value_backbone = _build_backbones(spec, widths)
    head = QualityHead(value_backbone.channels[2], *widths.quality)
    return Network(
        spec,
        PriorKeyEncoder(backbone, widths.key, widths.value),
        OwnKeyEncoder(value_backbone, widths.key, widths.value, head),
        ContextDecoder(2 * widths.value, backbone.channels[:2], widths.decoder),
        dot_similarity,
    )


def _build_imsfr(spec: NetworkSpec, widths: Widths) -> Network:
    backbone, value_backbone = _build_backbones(spec, widths)
    relations = RelationFusion(widths.value)
    if spec.is_single_object:
        relations.gate2.requires_grad_(False)  # of the second object
    return Network(
        spec,
        KeyEncoder(backbone, None, widths.value),
        GatedValueEncoder(value_backbone, backbone.channels[2], widths.value),
        Decoder(2 * widths.value, backbone.channels[:2], widths.decoder),
        l2_similarity,
        relations=relations,
    )


_SIZES = {"base": BASE, "small": SMALL, "tiny": TINY}
_QDMN_SIZES = {
    "base": replace(BASE, value_depth=50, key=128),
    "small": replace(SMALL, quality=(64, 256)),
    "tiny": TINY,
}
_IMSFR_SIZES = {"base": replace(BASE, backbone_depth=101), "small": SMALL, "tiny": TINY}
_CBAM = "value_encoder.fuser.attention."
_STCN_RENAMES = (
    ("key_encoder.res2.", "key_encoder.backbone.layer1."),
    ("key_encoder.", "key_encoder.backbone."),
    ("key_proj.key_proj.", "key_encoder.key_proj."),
    ("key_comp.", "key_encoder.thin_proj."),
    (f"{_CBAM}ChannelGate.mlp.1.", "value_encoder.fuser.channel_gate.mlp.0."),
    (f"{_CBAM}ChannelGate.mlp.3.", "value_encoder.fuser.channel_gate.mlp.2."),
    (f"{_CBAM}SpatialGate.spatial.", "value_encoder.fuser.spatial_gate."),
    ("value_encoder.fuser.", "value_encoder.fuser."),
    ("value_encoder.", "value_encoder.backbone."),
    ("decoder.", "decoder."),
)

STCN = Method("stcn", _SIZES, _build_stcn, _STCN_RENAMES)
GSFM = Method(
    "gsfm",
    _SIZES,
    _build_gsfm,
    (("lfm.", "key_encoder.feature_filter."), *_STCN_RENAMES),
    loss=segmentation_and_boundary_loss,
)

RDE = Method(
    "rde",
    _SIZES,
    _build_rde,
    (("mem_compress.", "compressor."), *_STCN_RENAMES),
    RecurrentUnroll,
    recurrent_loss,
    ("klloss_weight", "decoder_f2_weight", "decoder_f4_weight"),
)

QDMN = Method(
    "qdmn",
    _QDMN_SIZES,
    _build_qdmn,
    (
        ("rgb_encoder.res2.", "key_encoder.backbone.layer1."),
        ("rgb_encoder.", "key_encoder.backbone."),
        ("kv_q_f16.key_proj.", "key_encoder.key_proj."),
        ("kv_q_f16.val_proj.", "key_encoder.thin_proj."),
        ("concat_conv.", "key_encoder.prior_conv."),
        ("mask_rgb_encoder.", "value_encoder.backbone."),
        ("kv_m_f16.key_proj.", "value_encoder.key_proj."),
        ("kv_m_f16.val_proj.", "value_encoder.value_proj."),
        ("score.", "value_encoder.quality_head."),
        ("aspp.", "decoder.context."),
        ("decoder.", "decoder."),
    ),
    loss=segmentation_and_quality_loss,
)

IMSFR = Method(
    "imsfr",
    _IMSFR_SIZES,
    _build_imsfr,
    (
        ("value_encoder.mask.", "value_encoder.next_gate."),
        ("conv_fusion1v.", "value_encoder.fourier_proj."),
        ("conv_fusion.", "value_encoder.detail_proj."),
        ("mask.", "relations.gate."),
        ("mask2.", "relations.gate2."),
        *_STCN_RENAMES,
    ),
)

METHODS: dict[str, Method] = {row.name: row for row in (STCN, GSFM, QDMN, RDE, IMSFR)}


def build_network(spec: NetworkSpec) -> Network:
    """A network with fresh weights.

    Raises:
        ValueError: no such method, or the method has no such size.
    """
    if spec.method not in METHODS:
        raise ValueError(f"There is no method {spec.method!r}: choose from {', '.join(METHODS)}.")
    row = METHODS[spec.method]
    if spec.size not in row.sizes:
        sizes = ", ".join(row.sizes)
        raise ValueError(f"{spec.method} has no size {spec.size!r}: choose from {sizes}.")
    return row.build(spec, row.sizes[spec.size])
