"""Losses, outputs and gradients of the published trainers, at three points of the warm-up."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.checkpoint import convert_published
from model.losses import HardExampleSchedule
from model.methods import METHODS, build_network
from model.network import Network
from model.reference import fill_weights, reference_clip, reference_masks
from util.devices import pick_device, tune

HERE = Path(__file__).parent / "reference"
SCHEDULE = HardExampleSchedule(start_warm=20000, end_warm=70000)
GAINS = {"imsfr": 1.2}
# The perturbed first mask of RDE's reference is the true one, shifted by this number of pixels.
SHIFT = 3


@pytest.fixture
def device(pytestconfig: pytest.Config) -> torch.device:
    """Device of `pytest --device`."""
    chosen = pick_device(pytestconfig.getoption("--device"))
    tune(chosen, exact=True)
    return chosen


def published_network(method: str, variant: str) -> Network:
    shapes = json.loads((HERE / f"{method}_state_dict.json").read_text())[variant]
    spec, weights = convert_published(
        fill_weights(shapes, GAINS.get(method, 1.5)), "the reference weights"
    )
    # The stage 0 network of RDE has the same tensors as STCN.
    spec = replace(spec, method=method)
    network = build_network(spec)
    network.load_state_dict(dict(weights))
    return network.train()


def published_gradients(network: Network, method: str, variant: str) -> dict[str, float]:
    """Compute gradient norms by the first two parts of the published names.

    A bias that is folded into the mean of a batch norm has the gradient of the norm's shift times
    its scale.
    """
    shapes = json.loads((HERE / f"{method}_state_dict.json").read_text())[variant]
    squares: dict[str, float] = defaultdict(float)
    ours = dict(network.named_parameters())
    buffers = dict(network.named_buffers())
    for name in shapes:
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            continue
        renamed = next(b + name[len(a) :] for a, b in METHODS[method].renames if name.startswith(a))
        if renamed in ours:
            if not ours[renamed].requires_grad:  # parts for the second object
                continue
            gradient = ours[renamed].grad
        else:
            parent, conv = renamed.removesuffix(".bias").rsplit(".", 1)
            norm = f"{parent}.{conv.replace('conv', 'bn') if 'conv' in conv else '1'}"
            scale = ours[f"{norm}.weight"] / (buffers[f"{norm}.running_var"] + 1e-5).sqrt()
            shift = ours[f"{norm}.bias"].grad
            assert shift is not None
            gradient = shift * scale
        assert gradient is not None
        squares[".".join(name.split(".")[:2])] += gradient.double().square().sum().item()
    return {name: math.sqrt(square) for name, square in squares.items()}


@pytest.mark.parametrize("iteration", [0, 45000, 80000])
@pytest.mark.parametrize("variant", ["single", "multi"])
@pytest.mark.parametrize("method", [m for m in METHODS if (HERE / f"training_{m}.json").exists()])
def test_one_step_equals_the_published_trainer(
    method: str, variant: str, iteration: int, device: torch.device
) -> None:
    expected = json.loads((HERE / f"training_{method}.json").read_text())[
        f"{variant}_it{iteration}"
    ]
    size = 384 if method == "qdmn" else 128
    num_frames = 5 if (method, variant) == ("rde", "multi") else 3
    network = published_network(method, f"train_{variant}_object").to(device)
    images = torch.stack([reference_clip(num_frames, size, size, seed=b) for b in (0, 1)])
    masks = reference_masks(num_frames, 2, size, size)  # (O, T, H, W)
    both, first = masks[0] + 2 * masks[1], masks[0]
    if variant == "single":
        labels, num_objects, slots = torch.stack([first, first]), torch.tensor([1, 1]), 1
    else:
        labels, num_objects, slots = torch.stack([both, first]), torch.tensor([2, 1]), 2
    images, labels, num_objects = (x.to(device) for x in (images, labels.long(), num_objects))
    true_masks = torch.stack([labels[:, 0] == o for o in range(1, slots + 1)], 1).float()
    is_perturbed = method == "rde"
    first_masks = true_masks.roll(SHIFT, -1) if is_perturbed else true_masks

    unroll = METHODS[method].unroll(network)
    outputs = unroll(images, first_masks, num_objects, true_masks if is_perturbed else None)
    share = SCHEDULE.share(iteration)
    losses = METHODS[method].loss(outputs, labels, num_objects, share)
    losses["total_loss"].backward()

    assert share == pytest.approx(expected["losses"]["p"])
    means = expected["means"]
    for t in range(1, num_frames):
        prob = torch.softmax(outputs["logits"][:, t - 1], 1)[:, 1]  # of object 1
        assert prob.mean().item() == pytest.approx(means[f"mask_{t}"], rel=1e-4)
        if "boundary" in outputs:
            mean = outputs["boundary"][:, t - 1].mean().item()
            assert mean == pytest.approx(means[f"boundary_{t}"], rel=1e-4)
        if "quality" in outputs:
            mean = outputs["quality"][:, t - 1].mean().item()
            assert mean == pytest.approx(means[f"mask_score_{t}"], rel=1e-4)
    for name in expected["losses"].keys() - {"p"}:
        assert losses[name].item() == pytest.approx(expected["losses"][name], rel=1e-3), name
    norms = published_gradients(network, method, f"train_{variant}_object")
    assert norms.keys() == expected["grad_norm"].keys()
    # Rounding errors of sums whose terms cancel: QDMN's concat_conv.bias is 9.14e-5 in float64 and
    # 9.26e-5 in the reference.
    rounding = torch.finfo(torch.float32).eps * math.hypot(*expected["grad_norm"].values())
    for name, norm in expected["grad_norm"].items():
        assert norms[name] == pytest.approx(norm, rel=1e-2, abs=rounding), name
