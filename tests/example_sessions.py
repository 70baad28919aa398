"""A drawn video, and sessions of tiny networks of all methods that segment it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from inference.predictor import make_policy
from inference_core import InferenceCore
from inference_memory_bank import MemoryPolicy
from model.network import Network
from model.reference import reference_clip, reference_masks
from tests.tiny_networks import tiny_network
from util.hyper_para import EvalSettings
from util.parse_settings import of_method

NUM_FRAMES, HEIGHT, WIDTH = 14, 40, 56
FRAMES = reference_clip(NUM_FRAMES, HEIGHT, WIDTH, seed=4)
DISCS = reference_masks(NUM_FRAMES, 3, HEIGHT, WIDTH)  # (O, T, H, W)

Annotations = Mapping[int, Sequence[int]]  # frame -> labels


def network_and_policy(method: str, **options: object) -> tuple[Network, MemoryPolicy]:
    """Make a network for inference and its policy, with these options of an eval script."""
    network = tiny_network(method=method).for_inference(torch.device("cpu"), torch.float32)
    return network, make_policy(network, of_method(EvalSettings(**options), method))  # type: ignore[arg-type]


def masks_on(annotations: Annotations, t: int) -> dict[int, torch.Tensor] | None:
    """Return the annotated masks of frame t by label."""
    return {o: DISCS[o - 1, t] for o in annotations[t]} if t in annotations else None


def run_session(
    core: InferenceCore,
    annotations: Annotations,
    is_required: Callable[[int], bool] = lambda _: True,
) -> dict[int, torch.Tensor]:
    """Segment the video; return probabilities by frame. Optional frames are skipped if possible."""
    probs = {}
    for t in range(NUM_FRAMES):
        if not is_required(t) and t not in annotations and core.can_skip():
            core.skip()
            continue
        probs[t] = core.step(FRAMES[t], masks_on(annotations, t), is_last=t == NUM_FRAMES - 1)
    return probs
