"""InferenceCore: probabilities, sizes, errors and memory use of a session."""

from __future__ import annotations

import gc

import pytest
import torch

from inference_core import InferenceCore
from inference_memory_bank import EveryN
from model.network import Network
from model.reference import reference_clip, reference_masks
from tests.short_video import (
    CORES,
    DISCS,
    FRAMES,
    HEIGHT,
    NUM_FRAMES,
    WIDTH,
    assert_close,
    discs,
    label_map,
    run_session,
    slot_bytes,
)
from tests.tiny_networks import tiny_network


@pytest.fixture(scope="module")
def network() -> Network:
    return tiny_network().for_inference(torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("core_type", CORES)
def test_probabilities_of_a_video(network: Network, core_type: type[InferenceCore]) -> None:
    core = core_type(network, EveryN(3), top_k=5)
    probs = run_session(core, {0: discs(1, 2, 3)})
    for prob in probs:
        assert prob.shape == (4, HEIGHT, WIDTH)
        assert prob.dtype == torch.float32
        assert prob.min() >= 0
        torch.testing.assert_close(prob.sum(0), torch.ones(HEIGHT, WIDTH))
    assert core.labels == [1, 2, 3]
    assert core.frame_index == NUM_FRAMES - 1
    assert (probs[2] - probs[1]).abs().max() > 0.01


@pytest.mark.parametrize("core_type", CORES)
@pytest.mark.parametrize("labels", [(1, 2, 3), (3, 1, 2), (2,)])
def test_first_frame_has_the_annotated_masks(
    network: Network, core_type: type[InferenceCore], labels: tuple[int, ...]
) -> None:
    core = core_type(network, EveryN())
    prob = core.step(FRAMES[0], discs(*labels))
    assert core.labels == [*labels]
    expected = torch.stack([label * mask for label, mask in discs(*labels).items()]).sum(0)
    assert torch.equal(label_map(prob, core), expected.long())


@pytest.mark.parametrize("core_type", CORES)
@pytest.mark.parametrize("top_k", [5, None])
def test_order_of_objects_has_no_effect(
    network: Network, core_type: type[InferenceCore], top_k: int | None
) -> None:
    cores = [core_type(network, EveryN(2), top_k) for _ in range(2)]
    in_order = run_session(cores[0], {0: discs(1, 2, 3)})
    shuffled = run_session(cores[1], {0: discs(3, 1, 2)})
    channels = [0, *(1 + cores[1].labels.index(label) for label in (1, 2, 3))]
    assert_close(in_order, [prob[channels] for prob in shuffled])


@pytest.mark.parametrize("core_type", CORES)
def test_frames_before_the_first_annotation_are_background(
    network: Network, core_type: type[InferenceCore]
) -> None:
    core = core_type(network, EveryN(2))
    for t in range(3):
        prob = core.step(FRAMES[t])
        assert torch.equal(prob, torch.ones(1, HEIGHT, WIDTH))
    assert core.bytes_stored == 0
    late = [core.step(FRAMES[t], discs(1) if t == 3 else None) for t in range(3, 8)]
    fresh = core_type(network, EveryN(2))
    assert_close(late, [fresh.step(FRAMES[t], discs(1) if t == 3 else None) for t in range(3, 8)])


@pytest.mark.parametrize(("height", "width"), [(33, 50), (48, 47), (16, 16)])
def test_padding_is_symmetric_with_zeros(network: Network, height: int, width: int) -> None:
    frames = reference_clip(3, height, width)
    masks = reference_masks(1, 2, height, width)[:, 0]
    top, left = (-height % 16) // 2, (-width % 16) // 2
    bottom, right = -height % 16 - top, -width % 16 - left
    padding = (left, right, top, bottom)
    core, padded_core = InferenceCore(network, EveryN(1)), InferenceCore(network, EveryN(1))
    for t in range(3):
        annotation = {1: masks[0], 2: masks[1]} if t == 0 else None
        prob = core.step(frames[t], annotation)
        assert prob.shape == (3, height, width)
        padded = {k: torch.nn.functional.pad(v, padding) for k, v in (annotation or {}).items()}
        padded_prob = padded_core.step(torch.nn.functional.pad(frames[t], padding), padded or None)
        assert torch.equal(prob, padded_prob[:, top : top + height, left : left + width])


def test_soft_and_boolean_masks(network: Network) -> None:
    soft = InferenceCore(network, EveryN()).step(FRAMES[0], {1: 0.6 * DISCS[0, 0]})
    # The odds are 0.6 / 0.4 and 0.4 / 0.6.
    assert soft[1].max() == pytest.approx(1.5 / (1.5 + 1 / 1.5), abs=1e-5)
    boolean = InferenceCore(network, EveryN()).step(FRAMES[0], {1: DISCS[0, 0] > 0})
    assert torch.equal(boolean, InferenceCore(network, EveryN()).step(FRAMES[0], discs(1)))


@pytest.mark.parametrize("core_type", CORES)
@pytest.mark.parametrize("include_last", [False, True])
def test_length_of_the_video_is_optional(
    network: Network, core_type: type[InferenceCore], include_last: bool
) -> None:
    policy = EveryN(1, include_last)
    annotations = {1: discs(1, 2)}
    known = core_type(network, policy, 5, num_frames=NUM_FRAMES)
    unknown = core_type(network, policy, 5)
    ours, theirs = run_session(known, annotations), run_session(unknown, annotations)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert known.bytes_stored == unknown.bytes_stored == 7 * slot_bytes(network, 2)


@pytest.mark.parametrize("core_type", CORES)
def test_video_of_one_frame(network: Network, core_type: type[InferenceCore]) -> None:
    core = core_type(network, EveryN(), num_frames=1)
    prob = core.step(FRAMES[0], discs(2), is_last=True)
    assert torch.equal(label_map(prob, core), 2 * DISCS[1, 0].long())
    assert core.bytes_stored == 0  # no frame would read it


def test_last_frame_is_not_stored(network: Network) -> None:
    cores = [InferenceCore(network, EveryN(2)) for _ in range(2)]
    for core in cores:
        for t in range(4):
            core.step(FRAMES[t], discs(1) if t == 0 else None)
    before = cores[0].bytes_stored
    last, ongoing = cores[0].step(FRAMES[4], is_last=True), cores[1].step(FRAMES[4])
    assert torch.equal(last, ongoing)
    assert cores[0].bytes_stored == before == cores[1].bytes_stored - slot_bytes(network, 1)


@pytest.mark.parametrize("core_type", CORES)
def test_wrong_masks_are_errors_and_do_not_change_the_session(
    network: Network, core_type: type[InferenceCore]
) -> None:
    core = core_type(network, EveryN(2))
    core.step(FRAMES[0])
    with pytest.raises(
        ValueError, match=r"object 7 on frame 1 is \(40, 55\), but the frame is \(40, 56\)"
    ):
        core.step(FRAMES[1], {7: torch.zeros(40, 55)})
    with pytest.raises(ValueError, match=r"The masks of frame 1 are empty: give None"):
        core.step(FRAMES[1], {})
    assert core.labels == []
    assert core.frame_index == 0
    probs = [core.step(FRAMES[t], discs(1) if t == 1 else None) for t in range(1, 6)]
    fresh = core_type(network, EveryN(2))
    fresh.skip()
    assert_close(probs, [fresh.step(FRAMES[t], discs(1) if t == 1 else None) for t in range(1, 6)])


def test_masks_after_the_first_annotation_are_errors_in_inference_core(network: Network) -> None:
    core = InferenceCore(network, EveryN(2))
    probs = run_session(core, {0: discs(1)}, last=2)
    with pytest.raises(ValueError, match=r"Frame 2 has masks.* use InferenceCoreYV"):
        core.step(FRAMES[2], discs(2))
    probs += [core.step(FRAMES[t]) for t in range(2, 5)]
    assert_close(probs, run_session(InferenceCore(network, EveryN(2)), {0: discs(1)}, last=5))


def test_error_on_the_first_frame_does_not_set_the_size(
    network: Network,
) -> None:
    core = InferenceCore(network, EveryN())
    with pytest.raises(ValueError, match="must be in"):
        core.step(torch.zeros(3, 16, 16), {1: torch.full((16, 16), 7.0)})
    core.step(torch.zeros(3, 32, 16), {1: torch.ones(32, 16)})
    with pytest.raises(ValueError, match="all frames of a video must have the same size"):
        core.step(torch.zeros(3, 16, 16))
    with pytest.raises(ValueError, match=r"give floats \(3, H, W\)"):
        core.step(torch.zeros(32, 16, 3))


def live_tensors() -> tuple[int, int]:
    """Count live tensors and the bytes of their storages.

    Packed weights have no storage, nor have tensors that torch.compile keeps (in other tests).
    """
    gc.collect()
    kinds = (torch.Tensor, torch.nn.Parameter)
    tensors = [o for o in gc.get_objects() if type(o) in kinds and not o.is_mkldnn]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return len(tensors), sum(storages.values())


@pytest.mark.parametrize("core_type", CORES)
@pytest.mark.parametrize("include_last", [False, True])
def test_memory_use_is_constant(
    network: Network, core_type: type[InferenceCore], include_last: bool
) -> None:
    core = core_type(network, EveryN(1000, include_last))
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(32, 32)
    mask[8:24, 8:24] = 1
    live = {}
    for t in range(60):
        core.step(torch.randn(3, 32, 32, generator=generator), {1: mask} if t == 0 else None)
        if t in (11, 59):
            live[t] = live_tensors()
    assert live[59] == live[11]
