"""The table of methods: parts, widths, training, and tensor names of the published checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

import torch

from model.backbones import ResNetBackbone
from model.compress import Compressor
from model.decoder import BoundaryDecoder, ContextDecoder, Decoder
from model.encoders import (
    GatedValueEncoder,
    KeyEncoder,
    KeyValueEncoder,
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
from model.unroll import ClipUnroll, QualityUnroll, RecurrentUnroll
from util.hyper_para import TrainSettings
from util.presets import EVAL_METHOD_PRESETS, METHOD_PRESETS, POLICY_OPTIONS, STAGE_PRESETS
from util.registration import check_options, memory_options

# (outputs of the unroll, labels (B, T, H, W), num_objects (B,), share of hard examples, options by
# name) -> scalars by name, among them "total_loss".
Loss = Callable[..., dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Widths:
    """Numbers of layers and channels for one size of a network."""

    backbone_depth: int  # layers of the key encoder's ResNet
    backbone_width: int
    value_depth: int  # layers of the value encoder's ResNet
    value_width: int
    key: int  # CK
    value: int  # CV, also the channels of the thin feature
    decoder: tuple[int, int, int]  # at strides 16, 8, 4
    quality: tuple[int, int] = (256, 1024)  # convolutions and MLP of QDMN's quality head


BASE = Widths(50, 64, 18, 64, key=64, value=512, decoder=(512, 256, 256))
# For laptops: about an eighth of BASE's work outside the backbone, 32 MB in half precision.
SMALL = Widths(50, 64, 18, 32, key=64, value=128, decoder=(128, 128, 64))
# For tests: all parts, but too small to learn.
TINY = Widths(8, 8, 8, 8, key=8, value=16, decoder=(16, 16, 8), quality=(8, 16))


@dataclass(frozen=True)
class Method:
    """One method of the table.

    Args:
        sizes: widths by the name of the size (base, small, tiny).
        build: builds the network of a spec with these widths.
        renames: (published prefix, our prefix) of tensor names; the first match applies. Empty if
            there are no published checkpoints.
        unroll: segments a clip in training.
        loss: training loss of a clip.
        loss_settings: options of train.py that are passed to the loss by name.
    """

    name: str
    sizes: dict[str, Widths]
    build: Callable[[NetworkSpec, Widths], Network]
    renames: tuple[tuple[str, str], ...]
    unroll: type[ClipUnroll] = ClipUnroll
    loss: Loss = segmentation_loss
    loss_settings: tuple[str, ...] = ()


def _build_backbones(spec: NetworkSpec, widths: Widths) -> tuple[ResNetBackbone, ResNetBackbone]:
    """Build the backbone of the key encoder (images) and of the value encoder (with masks)."""
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
    if not spec.is_single_object:  # clips of one object are not compressed
        network.compressor = Compressor(widths.key, widths.value, spec.repeat)
    return network


def _build_qdmn(spec: NetworkSpec, widths: Widths) -> Network:
    backbone, value_backbone = _build_backbones(spec, widths)
    head = QualityHead(value_backbone.channels[2], *widths.quality)
    return Network(
        spec,
        PriorKeyEncoder(backbone, widths.key, widths.value),
        KeyValueEncoder(value_backbone, widths.key, widths.value, head),
        ContextDecoder(2 * widths.value, backbone.channels[:2], widths.decoder),
        dot_similarity,
    )


def _build_imsfr(spec: NetworkSpec, widths: Widths) -> Network:
    backbone, value_backbone = _build_backbones(spec, widths)
    relations = RelationFusion(widths.value)
    if spec.is_single_object:
        relations.gate2.requires_grad_(False)  # it belongs to the second object
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
    unroll=QualityUnroll,
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

METHODS: dict[str, Method] = {method.name: method for method in (STCN, GSFM, QDMN, RDE, IMSFR)}


def register_method(
    method: Method,
    train: Mapping[str, object] | None = None,
    stages: Mapping[str, Mapping[str, object]] | None = None,
    evaluation: Mapping[str, object] | None = None,
    evaluation_by_dataset: Mapping[str, Mapping[str, object]] | None = None,
) -> None:
    """Add a method to all commands, from a plugin (docs/plugins.md).

    Args:
        train: options of train.py whose values differ from the defaults.
        stages: stage ("0" to "3") -> options that differ from `train`. By default, the method has
            all four stages, without differences.
        evaluation: options of the memory in the eval scripts, such as memory, top and mem_every.
            Missing options have STCN's values.
        evaluation_by_dataset: davis, davis_2016 or youtube -> options that differ from
            `evaluation`.

    Raises:
        ValueError: there is a method of this name, or an option, stage, data set or memory policy
            is unknown.
    """
    name = method.name
    if name in METHODS:
        raise ValueError(f"There already is a method {name!r}: choose another name.")
    stages = {stage: {} for stage in "0123"} if stages is None else stages
    by_dataset = evaluation_by_dataset or {}
    unknown = {*stages} - {*"0123"} or {*by_dataset} - {"davis", "davis_2016", "youtube"}
    if unknown:
        raise ValueError(
            f"The method {name!r} has presets for {sorted(unknown)}: the stages are 0, 1, 2 and 3, "
            "the data sets davis, davis_2016 and youtube."
        )
    owner = f"The method {name!r}"
    for options in (train or {}, *stages.values()):
        check_options(owner, options, [field.name for field in fields(TrainSettings)])
    for options in (evaluation or {}, *by_dataset.values()):
        check_options(owner, options, memory_options())
        if "memory" in options and options["memory"] not in POLICY_OPTIONS:
            raise ValueError(
                f"{owner} has the unknown memory policy {options['memory']!r}: call "
                "register_policy first."
            )
    METHODS[name] = method
    METHOD_PRESETS[name] = dict(train or {})
    STAGE_PRESETS.update({(name, stage): dict(options) for stage, options in stages.items()})
    EVAL_METHOD_PRESETS[name] = dict(evaluation or {})
    EVAL_METHOD_PRESETS.update({(name, key): dict(value) for key, value in by_dataset.items()})


def build_network(spec: NetworkSpec) -> Network:
    """Build a network with new weights.

    Raises:
        ValueError: there is no such method, or the method has no such size.
    """
    if spec.method not in METHODS:
        raise ValueError(
            f"There is no method {spec.method!r}: choose from {', '.join(METHODS)}, or give the "
            "plugin that defines it with --plugin."
        )
    method = METHODS[spec.method]
    if spec.size not in method.sizes:
        sizes = ", ".join(method.sizes)
        raise ValueError(f"{spec.method} has no size {spec.size!r}: choose from {sizes}.")
    return method.build(spec, method.sizes[spec.size])
