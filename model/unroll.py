"""Unroll a training clip: segment every frame from the ones before it."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn

from model.backbones import ImageFeatures
from model.decoder import Decoded
from model.features import MemoryEntry, QueryFeatures, view_of
from model.matching import aggregate
from model.network import Network


class ClipUnroll(nn.Module):
    """A network over a clip, as one forward pass, so that DDP can wrap it.

    Args:
        network: in training mode.
    """

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
        """Segment frames 1 to T-1, each from all before it, memorising the predicted soft masks.

        Args:
            images: (B, T, 3, H, W), normalised.
            first_masks: (B, O, H, W) in {0, 1}: the objects on frame 0, as they are remembered.
            num_objects: (B,): objects that a sample really has; the others' probabilities are 0.
            true_masks: as first_masks, but not perturbed, where these are. Then these are what is
                remembered, and the perturbed ones are for a quality head to learn from.

        Returns:
            "logits": float32 (B, T-1, O+1, H, W), aggregated, background first; and what the
            method's losses need besides: "boundary", (B, T-1, O, H, W) logits, "quality",
            (B, T-1, O) scores, "perturbed_quality" and "perturbed_iou", (B, O).
        """
        given = first_masks if true_masks is None else true_masks
        clip = _Clip(self.network, images, given, num_objects)
        if true_masks is not None and self.network.predicts_quality:
            entry = self.network.encode_memory(images[:, 0], clip.query(0), first_masks)
            assert entry.quality is not None
            clip.outputs["perturbed_quality"] = [entry.quality]
            overlap = (first_masks * true_masks).sum((2, 3))
            union = first_masks.maximum(true_masks).sum((2, 3))
            clip.outputs["perturbed_iou"] = [overlap / union.clamp(min=1)]
        entries: list[MemoryEntry] = []
        for t in range(clip.num_frames):
            query = clip.query(t)
            if t > 0:
                readout = self.network.read(view_of(entries), query, clip.num_slots)
                clip.segment(readout, query)
            if t < clip.num_frames - 1 or self.network.predicts_quality:
                entries.append(clip.remember(t, query))
        return clip.stacked()


class _Clip:
    """One clip on its way through the network: masks so far, and outputs."""

    def __init__(
        self,
        network: Network,
        images: torch.Tensor,
        first_masks: torch.Tensor,
        num_objects: torch.Tensor,
    ) -> None:
        self.network = network
        self.images = images
        self.masks = first_masks  # (B, O, H, W), of the frame segmented last
        self.num_frames = images.shape[1]
        self.num_slots = first_masks.shape[1]
        slots = torch.arange(1, self.num_slots + 1, device=images.device)
        self.selector = (slots <= num_objects[:, None])[:, :, None, None]
        self.outputs: dict[str, list[torch.Tensor]] = defaultdict(list)
        self._image_features = network.key_encoder.encode_image(images.flatten(0, 1))
        # Of all frames at once, unless each needs the masks of the one before.
        self._features = (
            None
            if network.key_encoder.needs_prior
            else network.key_encoder.project(self._image_features)
        )

    def query(self, t: int) -> QueryFeatures:
        """Features of frame t; where they depend on masks, on those of the frame before."""
        batch = self.images.shape[0]
        if self._features is not None:
            parts = {k: v.unflatten(0, (batch, -1))[:, t] for k, v in vars(self._features).items()}
            return QueryFeatures(**parts)
        features = ImageFeatures(*(v.unflatten(0, (batch, -1))[:, t] for v in self._image_features))
        prior = self.masks.amax(1, keepdim=True) if t > 0 else None
        return self.network.key_encoder.project(features, prior)

    def segment(self, readout: torch.Tensor, query: QueryFeatures) -> None:
        """Decode a frame, whose masks are what is remembered of it."""
        decoded, logits = self._decode(readout, query)
        self.outputs["logits"].append(logits)
        if decoded.boundary is not None:
            self.outputs["boundary"].append(decoded.boundary * self.selector)
        self.masks = torch.softmax(logits, 1)[:, 1:]

    def segment_beside(
        self, readout: torch.Tensor, teacher: torch.Tensor, query: QueryFeatures
    ) -> None:
        """Decode a frame, of which is remembered what a teacher's readout would give."""
        self.outputs["logits"].append(self._decode(readout, query)[1])
        self.masks = torch.softmax(self._decode(teacher, query)[1], 1)[:, 1:]

    def _decode(self, readout: torch.Tensor, query: QueryFeatures) -> tuple[Decoded, torch.Tensor]:
        """What the decoder gives, and the aggregated logits (B, O+1, H, W)."""
        decoded = self.network.decoder(readout, query)
        prob = torch.sigmoid(decoded.logits)  # (B, O, H, W)
        return decoded, aggregate(prob * self.selector, dim=1)

    def remember(self, t: int, query: QueryFeatures) -> MemoryEntry:
        """Encode frame t with its masks."""
        next_image = self.images[:, t + 1] if t + 1 < self.num_frames else None
        entry = self.network.encode_memory(self.images[:, t], query, self.masks, next_image)
        if entry.quality is not None and t > 0:
            self.outputs["quality"].append(entry.quality)
        return entry

    def stacked(self) -> dict[str, torch.Tensor]:
        """The outputs, frames along dimension 1."""
        return {name: torch.stack(frames, 1) for name, frames in self.outputs.items()}


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
        """See ClipUnroll. Besides: "mask_divergence", (), from the value of a perturbed first mask
        to the true one's; "readout_divergence", (F,), of the F frames that read the embedding, from
        what it reads to what all frames together would give."""
        network = self.network
        clip = _Clip(network, images, first_masks, num_objects)
        query = clip.query(0)
        entries = [clip.remember(0, query)]
        true = entries[0]
        if true_masks is not None:
            true = network.encode_memory(images[:, 0], query, true_masks)
        embedding, divergences = entries[0], []
        for t in range(1, clip.num_frames):
            if t > 1 and network.compressor is not None:
                embedding = network.compressor(embedding, entries[-1])
            query = clip.query(t)
            readout = network.read(view_of(entries), query, clip.num_slots)
            if t % 2 == 1 or network.compressor is None:
                clip.segment(readout, query)
            else:
                teacher = readout
                readout = network.read(view_of([embedding]), query, clip.num_slots)
                divergences.append(_readout_divergence(readout, teacher, query))
                clip.segment_beside(readout, teacher, query)
            if t < clip.num_frames - 1:
                entries.append(clip.remember(t, query))
        outputs = clip.stacked()
        outputs["mask_divergence"] = divergence(entries[0].value, true.value)
        if divergences:
            outputs["readout_divergence"] = torch.stack(divergences)
        return outputs


def _readout_divergence(
    readout: torch.Tensor, teacher: torch.Tensor, query: QueryFeatures
) -> torch.Tensor:
    """`divergence` of two readouts (B, O, CV, h, w), each beside the thin feature."""
    thin = query.thin[:, None].expand_as(readout)
    return divergence(torch.cat([readout, thin], 2), torch.cat([teacher, thin], 2))


def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of softmaxes over channels, (B, O, C, h, w) -> ().

    The mean over all elements of an object, as published, summed over objects. No side is detached.
    """
    student, teacher = student.float().log_softmax(2), teacher.float().log_softmax(2)
    return (teacher.exp() * (teacher - student)).mean((0, 2, 3, 4)).sum()
