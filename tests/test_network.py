"""The network: its functions, its modes, and its copy for inference."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.features import view_of
from model.methods import METHODS, build_network
from model.network import NetworkSpec
from model.reference import reference_clip
from tests.tiny_networks import random_inputs, segment, tiny_network

CPU = torch.device("cpu")
SIZES = [(name, size) for name, method in METHODS.items() for size in method.sizes]


@pytest.mark.parametrize(("method", "size"), SIZES)
def test_shapes_are_those_of_the_legend(method: str, size: str) -> None:
    with torch.device("meta"):  # computes shapes only
        network = build_network(NetworkSpec(method, size))
        image, masks = torch.empty(2, 3, 64, 96), torch.empty(2, 3, 64, 96)
    widths = METHODS[method].sizes[size]
    key_width = widths.value if method == "imsfr" else widths.key
    query = network.encode_query(network.encode_image(image))
    assert query.key.shape == (2, key_width, 4, 6)
    assert query.thin.shape == (2, widths.value, 4, 6)
    assert query.feat16.shape[2:] == (4, 6)
    assert query.feat8.shape[2:] == (8, 12)
    assert query.feat4.shape[2:] == (16, 24)
    entry = network.encode_memory(image, query, masks, next_image=image)
    assert entry.value.shape == (2, 3, widths.value, 4, 6)
    key, value = entry.rows()
    if method == "qdmn":  # each object has its own keys
        assert key.shape == (6, 24, key_width)
        assert value.shape == (6, 24, widths.value)
        assert entry.quality is not None
        assert entry.quality.shape == (2, 3)
    else:
        assert key.shape == (2, 24, key_width)
        assert value.shape == (2, 24, 3 * widths.value)
    readout = network.read(view_of([entry, entry]), query, 3)
    assert readout.shape == (2, 3, widths.value, 4, 6)
    assert network.decode(readout, query).shape == (2, 3, 64, 96)


@pytest.mark.parametrize("method", [*METHODS])
@pytest.mark.parametrize("num_objects", [1, 2, 3])
def test_samples_of_a_batch_are_independent(method: str, num_objects: int) -> None:
    network = tiny_network(method=method)
    image, masks = random_inputs(2, num_objects)
    logits = segment(network, image, masks)
    assert logits.shape == (2, num_objects, 32, 48)
    assert logits.dtype == torch.float32
    for b in range(2):
        alone = segment(network, image[b : b + 1], masks[b : b + 1])
        torch.testing.assert_close(logits[b : b + 1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [*METHODS])
def test_output_depends_on_every_input(method: str) -> None:
    """Without this, comparisons in other tests would prove nothing."""
    network = tiny_network(method=method)
    image, masks = random_inputs(1, 2)
    logits = segment(network, image, masks)
    assert (segment(network, image.flip(3), masks) - logits).abs().mean() > 0.1
    swapped = segment(network, image, masks.flip(1))
    assert (swapped - logits).abs().mean() > 0.02
    torch.testing.assert_close(swapped.flip(1), logits, rtol=1e-4, atol=1e-4)


def test_single_object_network_ignores_other_objects() -> None:
    image, masks = random_inputs(1, 2)
    changed = torch.stack([masks[:, 0], 1 - masks[:, 1]], 1)
    single, several = tiny_network(is_single_object=True), tiny_network()
    assert torch.equal(segment(single, image, masks)[:, 0], segment(single, image, changed)[:, 0])
    assert not torch.allclose(
        segment(several, image, masks)[:, 0], segment(several, image, changed)[:, 0], atol=1e-3
    )


@pytest.mark.parametrize("method", [*METHODS])
def test_training_does_not_change_statistics_of_batch_norms(method: str) -> None:
    network = tiny_network(method=method).train()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert network.training
    assert network.decoder.training
    assert not any(norm.training for norm in norms)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    num_objects = 1 if method == "imsfr" else 2  # only training uses IMSFR's second gate
    in_training = segment(network, *random_inputs(2, num_objects))
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, before[name]), name
    torch.testing.assert_close(in_training, segment(network.eval(), *random_inputs(2, num_objects)))


@pytest.mark.parametrize("method", [*METHODS])
def test_all_parameters_are_trained(method: str) -> None:
    """With a clip of two objects, or of one object in stage 0."""
    for is_single_object in (False, True):
        network = tiny_network(is_single_object, method).train()
        num_frames = 5 if method == "rde" and not is_single_object else 3
        images = reference_clip(2 * num_frames, 32, 48).unflatten(0, (2, num_frames))
        num_objects = 1 if is_single_object else 2
        masks = random_inputs(2, num_objects)[1]
        labels = torch.randint(0, num_objects + 1, (2, num_frames, 32, 48))
        parts = METHODS[method]
        present = torch.tensor([num_objects, num_objects])
        outputs = parts.unroll(network)(images, masks.roll(2, 3), present, masks)
        parts.loss(outputs, labels, present, 1.0)["total_loss"].backward()
        for name, parameter in network.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
            assert parameter.grad is None or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("method", [*METHODS])
def test_copy_for_inference_has_the_same_output_and_leaves_the_original(method: str) -> None:
    network = tiny_network(method=method).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    image, masks = random_inputs(2, 1 if method == "imsfr" else 2)
    expected = segment(network, image, masks).detach()

    folded = network.for_inference(CPU, torch.float32)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert not any(p.requires_grad for p in folded.parameters())
    assert not folded.training
    assert folded.spec == network.spec
    torch.testing.assert_close(segment(folded, image, masks), expected, rtol=1e-4, atol=1e-4)

    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert torch.equal(segment(network, image, masks), expected)


def test_bfloat16_output_is_close_to_float32() -> None:
    network = tiny_network()
    half = network.for_inference(CPU, torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    image, masks = random_inputs(1, 2)
    logits = segment(half, image.bfloat16(), masks.bfloat16())
    assert logits.dtype == torch.float32
    expected = segment(network, image, masks)
    difference = (torch.sigmoid(logits) - torch.sigmoid(expected)).abs()
    assert 0 < difference.max() < 0.1
    assert difference.mean() < 0.02


def test_images_are_normalised_in_float32_by_imagenet_statistics() -> None:
    network = tiny_network()
    image = torch.zeros(2, 3, 1, 2, dtype=torch.uint8)
    image[..., 1] = 255
    expected = torch.tensor([[-0.485 / 0.229, 0.515 / 0.229], [-0.456 / 0.224, 0.544 / 0.224]])
    for each in (network, network.for_inference(CPU, torch.bfloat16)):
        normalised = each.normalise(image)
        assert normalised.dtype == torch.float32
        torch.testing.assert_close(normalised[1, :2, 0], expected)
    assert "mean" not in network.state_dict()  # constants are not weights


def test_unknown_methods_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no method 'xmem': choose from .*stcn"):
        build_network(NetworkSpec("xmem"))
    with pytest.raises(ValueError, match=r"stcn has no size 'huge': choose from base, small, tiny"):
        build_network(NetworkSpec(size="huge"))
