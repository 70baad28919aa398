"""Unroll a training clip: segment every frame from the ones before it."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn

from model.encoders import QueryFeatures
from model.matching import aggregate
from model.network import Network


class ClipUnroll(nn.Module):
    """A network over a clip, as one forward pass, so that DDP can wrap it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, images: torch.Tensor, first_masks: torch.Tensor, num_objects: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Segment frames 1 to T-1, each from all before it, memorising the predicted soft masks.

        Args:
            images: (B, T, 3, H, W), normalised.
            first_masks: (B, O, H, W) in {0, 1}: the objects on frame 0.
            num_objects: (B,): objects that a sample really has; the others' probabilities are 0.

        Returns:
            "logits": float32 (B, T-1, O+1, H, W), aggregated, background first; and what the
            method's losses need besides: "boundary", (B, T-1, O, H, W) logits.
        """
        batch, num_frames = images.shape[:2]
        num_slots = first_masks.shape[1]
        selector = torch.arange(1, num_slots + 1, device=images.device) <= num_objects[:, None]
        features = self.network.encode_query(images.flatten(0, 1))
        masks = first_masks
        keys: list[torch.Tensor] = []
        values: list[torch.Tensor] = []
        outputs: dict[str, list[torch.Tensor]] = defaultdict(list)
        for t in range(num_frames):
            query = _frame(features, t, batch)
            if t > 0:
                readout = self.network.read(
                    torch.cat(keys, 1), torch.cat(values, 1), query, num_slots
                )
                decoded = self.network.decoder(readout, query)
                prob = torch.sigmoid(decoded.logits)  # (B, O, H, W)
                logits = aggregate(prob * selector[:, :, None, None], dim=1)  # (B, O+1, H, W)
                outputs["logits"].append(logits)
                if decoded.boundary is not None:
                    boundary = decoded.boundary * selector[:, :, None, None]
                    outputs["boundary"].append(boundary)
                masks = torch.softmax(logits, 1)[:, 1:]
            if t < num_frames - 1:
                key, value = self.network.encode_memory(images[:, t], query, masks).rows()
                keys.append(key)
                values.append(value)
        return {name: torch.stack(frames, 1) for name, frames in outputs.items()}


def _frame(features: QueryFeatures, t: int, batch: int) -> QueryFeatures:
    """Frame t of features of all frames, (B*T, ...) -> (B, ...)."""
    return QueryFeatures(
        **{k: v.unflatten(0, (batch, -1))[:, t] for k, v in vars(features).items()}
    )
