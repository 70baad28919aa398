"""The network that all methods share.

Legend: B batch, T frames, O objects, CK CV key and value width, H W image (multiples of 16),
h w = H/16 W/16, P = h x w, N = memory slots x P. C4 C8 C16: channels of
the backbone at strides 4, 8, 16.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.backbones import ImageFeatures, ResNetBackbone
from model.compiled import compile_parts
from model.compress import Compressor
from model.convolution import Conv2d, find_packing
from model.decoder import Decoder
from model.encoders import KeyEncoder, OwnKeyEncoder, ValueEncoder
from model.features import MemoryEntry, MemoryView, QueryFeatures, Rows, join_objects
from model.matching import Similarity, read, to_rows
from model.modules import RelationFusion
from util.devices import total_memory

# ImageNet's statistics, for RGB in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

# Objects that encoder and decoder take at once, at most: more are no faster.
_OBJECTS_PER_PASS = 8
# Of the memory of a machine or GPU, what they may take; and what an object takes, as tensors of the
# decoder's widest features (GSFM's decoder, which takes most, has eleven).
_MEMORY_SHARE, _TENSORS = 1 / 4, 12


@dataclass(frozen=True)
class NetworkSpec:
    """What it takes to build a network; travels inside every checkpoint."""

    method: str = "stcn"
    size: str = "base"
    is_single_object: bool = False  # stage 0: the value encoder does not see other objects
    repeat: int = 0  # squeeze-and-excitation blocks in the compressor (RDE)


class Network(nn.Module):
    """Parts in, a few functions out, which training and inference share.

    The parts are built by a method's row (model/methods.py) and handed in.
    """

    mean: torch.Tensor
    std: torch.Tensor
    is_compiled = False

    def __init__(
        self,
        spec: NetworkSpec,
        key_encoder: KeyEncoder,
        value_encoder: ValueEncoder | OwnKeyEncoder,
        decoder: Decoder,
        similarity: Similarity,
        compressor: Compressor | None = None,
        relations: RelationFusion | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.key_encoder = key_encoder
        self.value_encoder = value_encoder
        self.decoder = decoder
        self.similarity = similarity
        self.compressor = compressor  # of memory frames (RDE)
        self.relations = relations  # of memory, first and latest frame (IMSFR)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights, which is the type that images are computed in."""
        return self.key_encoder.thin_proj.weight.dtype

    @property
    def predicts_quality(self) -> bool:
        """Whether memory frames come with a score of their masks (QDMN)."""
        return isinstance(self.value_encoder, OwnKeyEncoder)

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        """RGB uint8 (..., 3, H, W) -> float32, by ImageNet's mean and standard deviation."""
        if image.dtype != torch.uint8:
            raise ValueError(f"An image must be uint8, 0 to 255; it is {image.dtype}.")
        return (image.float() / 255 - self.mean) / self.std

    def encode_image(self, image: torch.Tensor) -> ImageFeatures:
        """Features of a normalised image (B, 3, H, W) that do not depend on earlier frames."""
        return self.key_encoder.encode_image(image)

    def encode_query(
        self, features: ImageFeatures, prior: torch.Tensor | None = None
    ) -> QueryFeatures:
        """Key and decoder features of an image, from `encode_image`.

        Args:
            prior: (B, 1, H, W) in [0, 1], where objects were on the frame before; looked at where
                the key encoder `needs_prior`.
        """
        return self.key_encoder.project(features, prior)

    def encode_memory(
        self,
        image: torch.Tensor,
        query: QueryFeatures,
        masks: torch.Tensor,
        next_image: torch.Tensor | None = None,
    ) -> MemoryEntry:
        """What to remember of a frame.

        Args:
            image: (B, 3, H, W), normalised; query: its features.
            masks: (B, O, H, W), probabilities in [0, 1].
            next_image: (B, 3, H, W), of the frame after, where the value encoder
                `needs_next_image`.
        """
        others = masks.sum(1, keepdim=True) - masks
        size = self._objects_per_pass(query)
        parts = zip(masks.split(size, 1), others.split(size, 1), strict=True)
        return join_objects([self.value_encoder(image, query, m, o, next_image) for m, o in parts])

    def read(
        self,
        memory: MemoryView,
        query: QueryFeatures,
        num_objects: int,
        top_k: int | None = None,
        kernel_sigma: float | None = None,
    ) -> torch.Tensor:
        """Read memory at every position of the query.

        Args:
            top_k: rows that a position reads; None for all.
            kernel_sigma: of the Gaussian around each row's own best position; None for none.

        Returns:
            (B, O, CV, h, w).
        """
        if memory.centre is not None:
            centre = memory.centre.transpose(1, 2)[..., None]  # (1, CK, 1, 1): objects share keys
            query = replace(query, key=query.key.float() - centre)
        rows = Rows(memory.key, memory.value)
        readout = self._read_rows(rows, query, num_objects, top_k, kernel_sigma)
        if self.relations is None:
            return readout
        assert memory.first is not None
        assert memory.latest is not None
        first = self._read_rows(memory.first, query, num_objects)
        latest = self._read_rows(memory.latest, query, num_objects)
        size = self._objects_per_pass(query)
        return _in_passes(size, self.relations, readout, first, latest)

    def _read_rows(
        self,
        rows: Rows,
        query: QueryFeatures,
        num_objects: int,
        top_k: int | None = None,
        kernel_sigma: float | None = None,
    ) -> torch.Tensor:
        batch, _, height, width = query.key.shape
        query_key = to_rows(query.key)  # (B, P, CK)
        if rows.key.shape[0] != batch:  # each object has keys of its own
            query_key = query_key.repeat_interleave(num_objects, 0)
        kernel = None if kernel_sigma is None else (width, kernel_sigma)
        readout = read(rows.key, rows.value, query_key, top_k, self.similarity, kernel)
        readout = readout.to(query.thin.dtype)  # memory may be kept in half precision
        # (G, P, C) -> (B, O, CV, h, w)
        return readout.transpose(1, 2).reshape(batch, num_objects, -1, height, width)

    def decode(self, readout: torch.Tensor, query: QueryFeatures) -> torch.Tensor:
        """readout (B, O, CV, h, w) -> float32 logits (B, O, H, W), each object for itself."""
        size = self._objects_per_pass(query)
        return _in_passes(size, lambda part: self.decoder(part, query).logits, readout)

    def _objects_per_pass(self, query: QueryFeatures) -> int:
        """Of the machine as it is, not of what is free just now, so that runs repeat exactly."""
        if torch.is_grad_enabled():
            return 255
        feature = query.feat4[:, :1]
        wide = self.decoder.pred.in_channels * feature.numel() * feature.element_size()
        budget = _MEMORY_SHARE * total_memory(feature.device)
        return max(1, min(_OBJECTS_PER_PASS, int(budget / (_TENSORS * wide))))

    def train(self, mode: bool = True) -> Network:
        """As usual, save that batch norms always use their running statistics, as published."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def for_inference(
        self, device: torch.device, dtype: torch.dtype, exact: bool = False, compile_mode: str = ""
    ) -> Network:
        """A copy to segment with: batch norms folded, in `dtype`, channels-last, on `device`.

        exact: with torch's own convolutions, whose sums round as they always did.
        compile_mode: of torch.compile, which then makes the parts' code; none where it is empty.
        """
        network = copy.deepcopy(self).eval().requires_grad_(False)
        for module in [*network.modules()]:
            _fold_batch_norms(module)
        for module in [*network.modules()]:
            if isinstance(module, ResNetBackbone):
                module.fold_blocks()
        network = to_channels_last(network.to(device))
        kept = [] if dtype == torch.bfloat16 else network.modules()  # float32's range is in both
        kept = [m for m in kept if getattr(m, "keeps_float32", False)]
        exempt = {id(parameter) for module in kept for parameter in module.parameters()}
        for parameter in network.parameters():
            if id(parameter) not in exempt:
                parameter.data = parameter.data.to(dtype)
        packing = None if compile_mode else find_packing(device, dtype, exact)
        for name, module in network.named_modules():
            if isinstance(module, Conv2d):
                # Similarities of keys, whose best few count, feel rounding more than all else.
                makes_keys = name.startswith("key_encoder.") or network.predicts_quality
                precise = makes_keys and not name.startswith("decoder.")
                module.pack(packing and packing._replace(precise=precise))
        # Images are normalised in float32 whatever the weights are.
        network.mean, network.std = self.mean.to(device), self.std.to(device)
        if compile_mode:
            compile_parts(network, network._compiled_parts(), compile_mode)
            network.is_compiled = True
        return network

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, which what torch compiled would not follow."""
        if self.is_compiled:
            raise ValueError(
                "A compiled network cannot be copied: copy the one that it was made of, or compile "
                "that once more."
            )
        return self.__dict__.copy()

    def _compiled_parts(self) -> list[tuple[nn.Module, str]]:
        """What runs on whole feature maps: not memory, which has another shape on every frame."""
        parts: list[tuple[nn.Module, str]] = [(self.key_encoder, "encode_image")]
        parts.append((self.key_encoder, "project"))
        modules = (self.value_encoder, self.decoder, self.compressor, self.relations)
        return parts + [(module, "forward") for module in modules if module is not None]


def to_channels_last(network: Network) -> Network:
    """Lay convolutions out as is fastest; `Module.to` stumbles over three-dimensional ones."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def _in_passes(size: int, run: Callable[..., torch.Tensor], *objects: torch.Tensor) -> torch.Tensor:
    """Run on tensors (B, O, ...), `size` objects at a time."""
    if objects[0].shape[1] <= size:
        return run(*objects)
    parts = zip(*(t.split(size, 1) for t in objects), strict=True)
    return torch.cat([run(*part) for part in parts], 1)


def _fold_batch_norms(module: nn.Module) -> None:
    """Fold every batch norm of this module into the convolution before it, as torchvision names."""
    children = dict(module.named_children())
    for name, norm in children.items():
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        before = name.replace("bn", "conv") if "bn" in name else str(int(name) - 1)
        before = "atrous_conv" if name == "bn" else before
        conv = children[before]
        assert isinstance(conv, nn.Conv2d), f"{before} is not the convolution before {name}"
        setattr(module, before, fuse_conv_bn_eval(conv, norm))
        setattr(module, name, nn.Identity())
