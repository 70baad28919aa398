"""Outputs of the unrolls: those of the decoder by name, and those of a quality head."""

from __future__ import annotations

import pytest
import torch

from model.decoder import Decoded, Decoder
from model.features import QueryFeatures
from model.methods import METHODS, build_network
from model.network import Network, NetworkSpec
from model.reference import reference_clip, reference_masks

BATCH, FRAMES, OBJECTS, SIZE = 2, 5, 2, 32


class OutputsDecoder(Decoder):
    """A decoder with two further outputs, which are 1 for all objects."""

    def forward(self, readout: torch.Tensor, query: QueryFeatures) -> Decoded:
        logits = super().forward(readout, query).logits
        return Decoded(
            logits, {"number": torch.ones_like(logits[:, :, 0, 0]), "map": logits * 0 + 1}
        )


def unroll(network: Network, shift: int | None = None) -> dict[str, torch.Tensor]:
    """Unroll a clip whose second sample has one object; with first masks that are shifted."""
    images = torch.stack([reference_clip(FRAMES, SIZE, SIZE, seed=b) for b in range(BATCH)])
    masks = reference_masks(FRAMES, OBJECTS, SIZE, SIZE)[:, 0].expand(BATCH, -1, -1, -1).float()
    true_masks = None if shift is None else masks
    first_masks = masks if shift is None else masks.roll(shift, -1)
    method = METHODS[network.spec.method]
    return method.unroll(network)(images, first_masks, torch.tensor([2, 1]), true_masks)


@pytest.mark.parametrize("method", ["stcn", "rde"])
def test_decoder_outputs_are_stacked_and_zero_for_absent_objects(method: str) -> None:
    """Also in frames whose masks come from a teacher (RDE)."""
    network = build_network(NetworkSpec(method, "tiny")).train()
    widths = METHODS[method].sizes["tiny"]
    channels = network.key_encoder.backbone.channels
    network.decoder = OutputsDecoder(2 * widths.value, channels[:2], widths.decoder)
    outputs = unroll(network)
    exists = torch.tensor([[1.0, 1.0], [1.0, 0.0]])[:, None].expand(-1, FRAMES - 1, -1)
    assert torch.equal(outputs["number"], exists)  # (B, T-1, O)
    maps = exists[..., None, None].expand(-1, -1, -1, SIZE, SIZE)
    assert torch.equal(outputs["map"], maps)  # (B, T-1, O, H, W)
    assert outputs["logits"].shape == (BATCH, FRAMES - 1, OBJECTS + 1, SIZE, SIZE)


def test_quality_of_all_predicted_and_of_perturbed_masks() -> None:
    network = build_network(NetworkSpec("qdmn", "tiny")).train()
    assert unroll(network).keys() == {"logits", "quality"}
    outputs = unroll(network, shift=4)
    assert outputs["quality"].shape == (BATCH, FRAMES - 1, OBJECTS)
    assert outputs["perturbed_quality"].shape == (BATCH, 1, OBJECTS)
    iou = outputs["perturbed_iou"]
    assert ((iou > 0) & (iou < 1)).all()
    assert (unroll(network, shift=0)["perturbed_iou"] == 1).all()
