"""The network that all methods share.

Legend of shapes in model/: B batch, T frames, O objects, CK and CV channels of key and value, H W
image size (multiples of 16), h w = H/16 W/16, P = h x w positions, N = slots x P memory rows, k
rows of a top-k read, G key sets (B, or B*O if each object has its own keys), C4 C8 C16 channels of
a backbone's features at strides 4, 8, 16. B*O means that samples and objects are one dimension. C
without a number is any number of channels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from model.backbones import ImageFeatures, ResNetBackbone
from model.compiled import compile_parts
from model.compress import Compressor
from model.convolution import Conv2d, find_packing
from model.decoder import Decoder
from model.encoders import KeyEncoder, KeyValueEncoder, ValueEncoder
from model.features import MemoryEntry, MemoryView, QueryFeatures, Rows, join_objects
from model.folding import BATCH_NORMS, fold_batch_norms
from model.matching import Similarity, read, to_rows
from model.modules import RelationFusion
from util.devices import total_memory

# ImageNet's mean and standard deviation of RGB in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

# Most objects that encoder and decoder process at once: more are no faster.
_OBJECTS_PER_CHUNK = 8
# Share of the device's memory for these objects, and memory per object, as a number of tensors of
# the decoder's widest feature (eleven in GSFM's decoder, which needs most).
_MEMORY_SHARE, _TENSORS = 1 / 4, 12


@dataclass(frozen=True)
class NetworkSpec:
    """Specification of a network; every checkpoint contains one."""

    method: str = "stcn"
    size: str = "base"
    is_single_object: bool = False  # the value encoder has no input for other objects
    repeat: int = 0  # squeeze-and-excitation blocks in the compressor (RDE)


class Network(nn.Module):
    """The parts of a method and the functions that training and inference share.

    `build_network` (model/methods.py) builds the parts.

    Args:
        spec: specification of the network.
        key_encoder: image -> query features.
        value_encoder: image and masks -> memory frame.
        decoder: readout and query features -> logits.
        similarity: of keys and query keys.
        compressor: merges memory frames (RDE); None if the method has none.
        relations: fuses the reads of memory, first and latest frame (IMSFR); None if the method
            has none.
    """

    mean: torch.Tensor
    std: torch.Tensor
    is_compiled = False

    def __init__(
        self,
        spec: NetworkSpec,
        key_encoder: KeyEncoder,
        value_encoder: ValueEncoder | KeyValueEncoder,
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
        self.compressor = compressor
        self.relations = relations
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights and of the images that they are applied to."""
        return self.key_encoder.thin_proj.weight.dtype

    @property
    def predicts_quality(self) -> bool:
        """True if memory frames have a predicted quality of their masks (QDMN)."""
        return isinstance(self.value_encoder, KeyValueEncoder)

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        """Normalise RGB by ImageNet's statistics: uint8 (..., 3, H, W) -> float32, same shape.

        Raises:
            ValueError: the image is not uint8.
        """
        if image.dtype != torch.uint8:
            raise ValueError(f"An image must be uint8, 0 to 255; it is {image.dtype}.")
        return (image.float() / 255 - self.mean) / self.std

    def encode_image(self, image: torch.Tensor) -> ImageFeatures:
        """Compute the features of images that do not depend on earlier frames.

        Args:
            image: (B, 3, H, W), normalised.
        """
        return self.key_encoder.encode_image(image)

    def encode_query(
        self, features: ImageFeatures, prior: torch.Tensor | None = None
    ) -> QueryFeatures:
        """Compute query key and decoder features.

        Args:
            features: from `encode_image`.
            prior: (B, 1, H, W) in [0, 1], the probability of any object in the previous frame; only
                used if the key encoder `needs_prior`. None if there was no object.
        """
        return self.key_encoder.project(features, prior)

    def encode_memory(
        self,
        image: torch.Tensor,
        query: QueryFeatures,
        masks: torch.Tensor,
        next_image: torch.Tensor | None = None,
    ) -> MemoryEntry:
        """Encode a frame and its masks as a memory frame.

        Args:
            image: (B, 3, H, W), normalised.
            query: features of the image.
            masks: (B, O, H, W), probabilities in [0, 1].
            next_image: (B, 3, H, W), image of the next frame; only used if the value encoder
                `needs_next_image`.
        """
        others = masks.sum(1, keepdim=True) - masks  # (B, O, H, W)
        size = self._objects_per_chunk(query)
        chunks = zip(masks.split(size, 1), others.split(size, 1), strict=True)
        return join_objects([self.value_encoder(image, query, m, o, next_image) for m, o in chunks])

    def read(
        self,
        memory: MemoryView,
        query: QueryFeatures,
        num_objects: int,
        top_k: int | None = None,
        kernel_sigma: float | None = None,
    ) -> torch.Tensor:
        """Read the memory at every position of the query.

        Args:
            num_objects: O, the number of objects in the memory.
            top_k: number of most similar rows that a position reads; None for all.
            kernel_sigma: standard deviation in positions of a Gaussian around the most similar
                position of each memory row (see `matching.read`); None disables it.

        Returns:
            (B, O, CV, h, w).
        """
        if memory.centre is not None:  # (1, 1, CK): only objects that share keys have a centre
            centre = memory.centre.transpose(1, 2)[..., None]  # (1, CK, 1, 1)
            query = replace(query, key=query.key.float() - centre)
        rows = Rows(memory.key, memory.value)
        readout = self._read_rows(rows, query, num_objects, top_k, kernel_sigma)
        if self.relations is None:
            return readout
        assert memory.first is not None
        assert memory.latest is not None
        first = self._read_rows(memory.first, query, num_objects)  # (B, O, CV, h, w)
        latest = self._read_rows(memory.latest, query, num_objects)  # (B, O, CV, h, w)
        size = self._objects_per_chunk(query)
        return _in_chunks(size, self.relations, readout, first, latest)

    def _read_rows(
        self,
        rows: Rows,
        query: QueryFeatures,
        num_objects: int,
        top_k: int | None = None,
        kernel_sigma: float | None = None,
    ) -> torch.Tensor:
        """Read rows at every position of the query, (B, O, CV, h, w)."""
        batch, _, height, width = query.key.shape
        query_key = to_rows(query.key)  # (B, P, CK)
        if rows.key.shape[0] != batch:  # each object has its own keys
            query_key = query_key.repeat_interleave(num_objects, 0)  # (B*O, P, CK)
        kernel = None if kernel_sigma is None else (width, kernel_sigma)
        readout = read(rows.key, rows.value, query_key, top_k, self.similarity, kernel)
        readout = readout.to(query.thin.dtype)  # the memory may have another precision
        # (B, P, O*CV) or (B*O, P, CV) -> (B, O, CV, h, w)
        return readout.transpose(1, 2).reshape(batch, num_objects, -1, height, width)

    def decode(self, readout: torch.Tensor, query: QueryFeatures) -> torch.Tensor:
        """Decode a readout into logits of each object against its own background.

        Args:
            readout: (B, O, CV, h, w), from `read`.

        Returns:
            float32 (B, O, H, W).
        """
        size = self._objects_per_chunk(query)
        return _in_chunks(size, lambda chunk: self.decoder(chunk, query).logits, readout)

    def _objects_per_chunk(self, query: QueryFeatures) -> int:
        """Number of objects to process at once.

        It depends on total, not on free memory, so that runs are repeatable.
        """
        if torch.is_grad_enabled():
            return 255
        feature = query.feat4[:, :1]  # (B, 1, H/4, W/4)
        tensor_bytes = self.decoder.pred.in_channels * feature.numel() * feature.element_size()
        budget = _MEMORY_SHARE * total_memory(feature.device)
        return max(1, min(_OBJECTS_PER_CHUNK, int(budget / (_TENSORS * tensor_bytes))))

    def train(self, mode: bool = True) -> Network:
        """Set training mode; batch norms stay in eval mode, as published.

        So their statistics never change, also in parts of a plugin: they are those of the loaded
        weights, or a mean of 0 and a variance of 1.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, BATCH_NORMS):
                module.eval()
        return self

    def for_inference(
        self, device: torch.device, dtype: torch.dtype, exact: bool = False, compile_mode: str = ""
    ) -> Network:
        """Return a copy for inference: batch norms folded, in `dtype`, channels-last, on `device`.

        Batch norms that are not folded (see model/folding.py) stay in float32.

        Args:
            exact: disable Winograd and fused convolutions, so that results are rounded as torch
                rounds them.
            compile_mode: mode of torch.compile; "" disables it.

        Raises:
            ValueError: `compile_mode` is set, but there is no C++ compiler.
        """
        network = copy.deepcopy(self).eval().requires_grad_(False)
        fold_batch_norms(network)
        for module in [*network.modules()]:
            if isinstance(module, ResNetBackbone):
                module.fold_blocks()
        network = to_channels_last(network.to(device))
        # bfloat16 has the range of float32, so no module needs to keep float32 for it. Batch norms
        # keep the type of their statistics.
        keeps = dtype != torch.bfloat16
        kept = [
            m
            for m in network.modules()
            if isinstance(m, BATCH_NORMS) or (keeps and getattr(m, "keeps_float32", False))
        ]
        exempt = {id(parameter) for module in kept for parameter in module.parameters()}
        for parameter in network.parameters():
            if id(parameter) not in exempt:
                parameter.data = parameter.data.to(dtype)
        packing = None if compile_mode else find_packing(device, dtype, exact)
        for name, module in network.named_modules():
            if isinstance(module, Conv2d):
                # A top-k read is sensitive to rounding of the keys.
                makes_keys = name.startswith("key_encoder.") or network.predicts_quality
                precise = makes_keys and not name.startswith("decoder.")
                module.pack(packing and packing._replace(precise=precise))
        # Images are normalised in float32, whatever the type of the weights.
        network.mean, network.std = self.mean.to(device), self.std.to(device)
        if compile_mode:
            compile_parts(network, network._compiled_parts(), compile_mode)
            network.is_compiled = True
        return network

    def __getstate__(self) -> dict[str, Any]:
        """Support copy and pickle, except for compiled networks.

        Raises:
            ValueError: the network is compiled.
        """
        if self.is_compiled:
            raise ValueError(
                "A compiled network cannot be copied: copy the network that for_inference was "
                "called on, or call for_inference again."
            )
        return self.__dict__.copy()

    def _compiled_parts(self) -> list[tuple[nn.Module, str]]:
        """Functions to compile; not `read`, because the memory's shape changes with every frame."""
        parts: list[tuple[nn.Module, str]] = [(self.key_encoder, "encode_image")]
        parts.append((self.key_encoder, "project"))
        modules = (self.value_encoder, self.decoder, self.compressor, self.relations)
        return parts + [(module, "forward") for module in modules if module is not None]


def to_channels_last(network: Network) -> Network:
    """Change weights of 2d convolutions to channels-last, the fastest layout.

    `Module.to` fails for 3d convolutions.
    """
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def _in_chunks(size: int, run: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
    """Apply `run` to tensors (B, O, ...), `size` objects at a time."""
    if tensors[0].shape[1] <= size:
        return run(*tensors)
    chunks = zip(*(tensor.split(size, 1) for tensor in tensors), strict=True)
    return torch.cat([run(*chunk) for chunk in chunks], 1)  # (B, O, ...)
