"""A short video, and sessions of a tiny STCN that segment it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from inference_core import InferenceCore
from inference_core_yv import InferenceCoreYV
from model.network import Network
from model.reference import reference_clip, reference_masks

HEIGHT, WIDTH, NUM_FRAMES = 40, 56, 9  # padded to 48 x 64
FRAMES = reference_clip(NUM_FRAMES, HEIGHT, WIDTH)
DISCS = reference_masks(NUM_FRAMES, 3, HEIGHT, WIDTH)  # (O, T, H, W)
CORES = [InferenceCore, InferenceCoreYV]

Annotations = Mapping[int, Mapping[int, torch.Tensor]]  # frame -> label -> mask


def discs(*labels: int, frame: int = 0) -> dict[int, torch.Tensor]:
    """Return masks by label, in this order; label o is disc o."""
    return {label: DISCS[label - 1, frame] for label in labels}


def run_session(
    core: InferenceCore, annotations: Annotations, last: int = NUM_FRAMES
) -> list[torch.Tensor]:
    """Return the probabilities of frames 0 to last - 1."""
    return [core.step(FRAMES[t], annotations.get(t), t == NUM_FRAMES - 1) for t in range(last)]


def assert_close(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    """Compare the probabilities of two sessions, frame by frame."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def label_map(prob: torch.Tensor, core: InferenceCore) -> torch.Tensor:
    """Return the label of each pixel, (H, W)."""
    return torch.tensor([0, *core.labels])[prob.argmax(0)]


def slot_bytes(network: Network, num_objects: int) -> int:
    """Return the float32 bytes of a slot of 3 x 4 rows: a key, and a value for each object."""
    assert network.key_encoder.key_proj is not None
    key = network.key_encoder.key_proj.out_channels
    value = network.key_encoder.thin_proj.out_channels  # CV
    return 3 * 4 * (key + num_objects * value) * 4
