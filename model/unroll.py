"""Unroll a training clip: segment every frame from the memory of the frames before it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, ClassVar

import torch
from torch import nn

from model.backbones import ImageFeatures
from model.decoder import Decoded
from model.features import MemoryEntry, QueryFeatures, view_of
from model.matching import aggregate
from model.network import Network

Frames = tuple[torch.Tensor, ...]  # a feature of each frame, (B, C, h, w)


class _SplitFrames(torch.autograd.Function):
    """Split a feature of whole clips (B*T, C, h, w) into its frames, T of (B, C, h, w).

    Indexing gives the same frames, but its backward pass fills one tensor of the whole feature with
    zeros per frame, and adds them. Here the gradient of each frame is written to its place.
    """

    @staticmethod
    def forward(ctx: Any, feature: torch.Tensor, num_frames: int) -> Frames:
        ctx.shape, ctx.options = feature.shape, {"dtype": feature.dtype, "device": feature.device}
        ctx.set_materialize_grads(False)  # frames that are not used have no gradient
        return tuple(feature[t::num_frames] for t in range(num_frames))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor, None]:
        gradient = torch.empty(ctx.shape, memory_format=torch.channels_last, **ctx.options)
        for t, frame in enumerate(gradients):
            gradient[t :: len(gradients)] = 0 if frame is None else frame
        return gradient, None


class Clip:
    """State of one batch of clips during the unroll: masks of the latest frame, and outputs.

    Args:
        images: (B, T, 3, H, W), normalised.
        first_masks: (B, O, H, W), masks of frame 0 for the memory.
        num_objects: (B,), number of objects of each sample.

    Attributes:
        masks: (B, O, H, W), probabilities of the latest decoded frame.
        selector: (B, O, 1, 1), true for the objects of each sample.
        outputs: name -> one tensor (B, ...) per frame.
    """

    def __init__(
        self,
        network: Network,
        images: torch.Tensor,
        first_masks: torch.Tensor,
        num_objects: torch.Tensor,
    ) -> None:
        self.network = network
        self.images = images
        self.masks = first_masks
        self.num_frames = images.shape[1]
        self.num_slots = first_masks.shape[1]
        slots = torch.arange(1, self.num_slots + 1, device=images.device)
        self.selector = (slots <= num_objects[:, None])[:, :, None, None]
        self.outputs: dict[str, list[torch.Tensor]] = defaultdict(list)
        # All frames at once. Only a query that needs the previous masks is encoded frame by frame.
        features = network.encode_image(images.flatten(0, 1))
        if network.key_encoder.needs_prior:
            self._features = self._split_frames(features._asdict())
        else:
            self._features = self._split_frames(vars(network.encode_query(features)))

    def query(self, t: int) -> QueryFeatures:
        """Compute the features of frame t; a prior is taken from the masks of frame t-1."""
        features = {name: frames[t] for name, frames in self._features.items()}
        if not self.network.key_encoder.needs_prior:
            return QueryFeatures(**features)
        prior = self.masks.amax(1, keepdim=True) if t > 0 else None
        return self.network.encode_query(ImageFeatures(**features), prior)

    def _split_frames(self, features: dict[str, torch.Tensor]) -> dict[str, Frames]:
        return {name: _SplitFrames.apply(f, self.num_frames) for name, f in features.items()}

    def read(self, entries: list[MemoryEntry], query: QueryFeatures) -> torch.Tensor:
        """Read all memory entries: readout (B, O, CV, h, w)."""
        return self.network.read(view_of(entries), query, self.num_slots)

    def segment(
        self, readout: torch.Tensor, query: QueryFeatures, teacher: torch.Tensor | None = None
    ) -> None:
        """Decode a frame: collect the outputs and set `masks`.

        Args:
            readout: (B, O, CV, h, w).
            teacher: a second readout, (B, O, CV, h, w). `masks` are then decoded from it.
        """
        decoded = self.network.decoder(readout, query)
        logits = self._aggregate(decoded)
        self.outputs["logits"].append(logits)
        for name, output in decoded.outputs.items():
            selector = self.selector.reshape(*output.shape[:2], *[1] * (output.ndim - 2))
            self.outputs[name].append(output * selector)
        if teacher is not None:
            logits = self._aggregate(self.network.decoder(teacher, query))
        self.masks = torch.softmax(logits, 1)[:, 1:]

    def _aggregate(self, decoded: Decoded) -> torch.Tensor:
        """Aggregate the logits of the objects: (B, O+1, H, W), background first."""
        prob = torch.sigmoid(decoded.logits)  # (B, O, H, W)
        return aggregate(prob * self.selector, dim=1)

    def encode_memory(self, t: int, query: QueryFeatures) -> MemoryEntry:
        """Encode frame t with `masks`; collect the quality of a predicted frame."""
        next_image = self.images[:, t + 1] if t + 1 < self.num_frames else None
        entry = self.network.encode_memory(self.images[:, t], query, self.masks, next_image)
        if entry.quality is not None and t > 0:
            self.outputs["quality"].append(entry.quality)
        return entry

    def stack_outputs(self) -> dict[str, torch.Tensor]:
        """Stack the outputs over the frames, along dimension 1."""
        return {name: torch.stack(frames, 1) for name, frames in self.outputs.items()}


class ClipUnroll(nn.Module):
    """A network over a clip as one forward pass, so that DDP can wrap it.

    Args:
        network: in training mode.
    """

    encodes_last_frame: ClassVar[bool] = False  # although no later frame reads it

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        images: torch.Tensor,
        first_masks: torch.Tensor,
        num_objects: torch.Tensor,
        true_masks: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Segment frames 1 to T-1. Each reads all frames before it, with their predicted masks.

        Args:
            images: (B, T, 3, H, W), normalised.
            first_masks: (B, O, H, W) in {0, 1}, masks of frame 0; perturbed if `true_masks` is
                given.
            num_objects: (B,), number of objects of each sample. Probabilities beyond it are 0.
            true_masks: (B, O, H, W) in {0, 1}, unperturbed masks of frame 0.

        Returns:
            "logits": float32 (B, T-1, O+1, H, W), aggregated, background first; the further outputs
            of the decoder, (B, T-1, O, ...), 0 for absent objects; and, if the network predicts
            quality, "quality", (B, T-1, O).
        """
        clip = self.start(images, first_masks, num_objects, true_masks)
        entries: list[MemoryEntry] = []
        for t in range(clip.num_frames):
            query = clip.query(t)
            if t > 0:
                clip.segment(clip.read(entries, query), query)
            if t < clip.num_frames - 1 or self.encodes_last_frame:
                entries.append(clip.encode_memory(t, query))
        return clip.stack_outputs()

    def start(
        self,
        images: torch.Tensor,
        first_masks: torch.Tensor,
        num_objects: torch.Tensor,
        true_masks: torch.Tensor | None,
    ) -> Clip:
        """Start a clip, whose memory gets the true masks; arguments as in `forward`."""
        masks = first_masks if true_masks is None else true_masks
        return Clip(self.network, images, masks, num_objects)


class QualityUnroll(ClipUnroll):
    """QDMN's clip: quality of every predicted frame, and of perturbed first masks."""

    encodes_last_frame = True

    def start(
        self,
        images: torch.Tensor,
        first_masks: torch.Tensor,
        num_objects: torch.Tensor,
        true_masks: torch.Tensor | None,
    ) -> Clip:
        """See ClipUnroll.

        If masks are perturbed, further outputs are "perturbed_quality", the quality of these masks,
        and "perturbed_iou", their IoU with the true masks, (B, 1, O) each.
        """
        clip = super().start(images, first_masks, num_objects, true_masks)
        if true_masks is not None:
            entry = self.network.encode_memory(images[:, 0], clip.query(0), first_masks)
            assert entry.quality is not None
            clip.outputs["perturbed_quality"] = [entry.quality]
            intersection = (first_masks * true_masks).sum((2, 3))
            union = first_masks.maximum(true_masks).sum((2, 3))
            clip.outputs["perturbed_iou"] = [intersection / union.clamp(min=1)]
        return clip


class RecurrentUnroll(ClipUnroll):
    """RDE's clip: every second frame reads the embedding (SAM) of all frames before it.

    Li et al., Recurrent Dynamic Embedding for Video Object Segmentation, CVPR 2022, section 3.4.
    """

    def forward(
        self,
        images: torch.Tensor,
        first_masks: torch.Tensor,
        num_objects: torch.Tensor,
        true_masks: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """See ClipUnroll; here the memory gets the perturbed first masks.

        Returns:
            "logits"; "mask_divergence", (), of the value of the perturbed first mask from that of
            the true one; and "readout_divergence", (F,), for each of the F frames that read the
            embedding: of its readout from the readout of all frames.
        """
        network = self.network
        clip = Clip(network, images, first_masks, num_objects)
        query = clip.query(0)
        entries = [clip.encode_memory(0, query)]
        true_entry = entries[0]
        if true_masks is not None:
            true_entry = network.encode_memory(images[:, 0], query, true_masks)
        embedding, divergences = entries[0], []
        for t in range(1, clip.num_frames):
            if t > 1 and network.compressor is not None:
                embedding = network.compressor(embedding, entries[-1])
            query = clip.query(t)
            readout = clip.read(entries, query)
            if t % 2 == 1 or network.compressor is None:
                clip.segment(readout, query)
            else:
                teacher = readout
                readout = clip.read([embedding], query)
                divergences.append(_readout_divergence(readout, teacher, query))
                clip.segment(readout, query, teacher)
            if t < clip.num_frames - 1:
                entries.append(clip.encode_memory(t, query))
        outputs = clip.stack_outputs()
        outputs["mask_divergence"] = divergence(entries[0].value, true_entry.value)
        if divergences:
            outputs["readout_divergence"] = torch.stack(divergences)
        return outputs


def _readout_divergence(
    readout: torch.Tensor, teacher: torch.Tensor, query: QueryFeatures
) -> torch.Tensor:
    """Divergence of two readouts (B, O, CV, h, w), each concatenated with the thin feature."""
    thin = query.thin[:, None].expand_as(readout)
    return divergence(torch.cat([readout, thin], 2), torch.cat([teacher, thin], 2))


def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL divergence of softmaxes over the channels: (B, O, C, h, w) -> ().

    The mean over all elements of an object, as published, summed over the objects. Gradients flow
    into both arguments.
    """
    student, teacher = student.float().log_softmax(2), teacher.float().log_softmax(2)
    return (teacher.exp() * (teacher - student)).mean((0, 2, 3, 4)).sum()
