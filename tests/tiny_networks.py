"""Tiny networks whose outputs depend on all their inputs, and inputs for them."""

from __future__ import annotations

import torch

from model.features import view_of
from model.methods import build_network
from model.network import Network, NetworkSpec
from model.reference import fill_weights, reference_clip, reference_masks


def tiny_network(is_single_object: bool = False, method: str = "stcn") -> Network:
    """Make a tiny network in eval mode, with seeded weights and batch norm statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(NetworkSpec(method, "tiny", is_single_object))
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    weights = fill_weights(shapes)
    # Otherwise masks have little effect, since the features of the image are random.
    weights["value_encoder.backbone.conv1.weight"][:, 3:] *= 20
    if "value_encoder.fuser.channel_gate.mlp.0.weight" in weights:
        # Otherwise the output of its only ReLU is 0.
        weights["value_encoder.fuser.channel_gate.mlp.0.weight"] *= -1
    network.load_state_dict(weights)
    return network.eval()


def random_inputs(batch: int, num_objects: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw images (B, 3, 32, 48), and discs as their masks (B, O, 32, 48)."""
    image = reference_clip(batch, 32, 48, seed=num_objects)
    return image, reference_masks(batch, num_objects, 32, 48).transpose(0, 1)


def segment(network: Network, image: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Store images with their masks in memory, and segment the same images: (B, O, H, W) logits."""
    query = network.encode_query(network.encode_image(image), masks.amax(1, keepdim=True))
    entry = network.encode_memory(image, query, masks, next_image=image.roll(2, 3))
    return network.decode(network.read(view_of([entry]), query, masks.shape[1]), query)
