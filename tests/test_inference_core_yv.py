"""InferenceCoreYV: objects that appear later, corrections, and skipped frames."""

from __future__ import annotations

import pytest
import torch

from inference_core import InferenceCore
from inference_core_yv import InferenceCoreYV
from inference_memory_bank import EveryN
from model.matching import aggregate
from model.network import Network
from tests.short_video import (
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


@pytest.mark.parametrize("top_k", [5, None])
@pytest.mark.parametrize("include_last", [False, True])
def test_cores_agree_if_all_objects_start_together(
    network: Network, top_k: int | None, include_last: bool
) -> None:
    annotations = {0: discs(1, 2)}
    policy = EveryN(2, include_last)
    davis = run_session(InferenceCore(network, policy, top_k), annotations)
    youtube = run_session(InferenceCoreYV(network, policy, top_k), annotations)
    assert all(torch.equal(a, b) for a, b in zip(davis, youtube, strict=True))


class _OneBankPerObject(InferenceCoreYV):
    """Stores each object in its own bank, as published."""

    def _start_group(self, labels: list[int]) -> None:
        for label in labels:
            super()._start_group([label])


@pytest.mark.parametrize("top_k", [5, None])
def test_sharing_a_bank_does_not_change_the_output(network: Network, top_k: int | None) -> None:
    annotations = {0: discs(1, 2), 3: discs(3, frame=3)}
    shared = InferenceCoreYV(network, EveryN(2), top_k)
    separate = _OneBankPerObject(network, EveryN(2), top_k)
    assert_close(run_session(shared, annotations), run_session(separate, annotations))
    # Otherwise, the keys of objects 1 and 2 are stored twice, on frames 0, 2, 3, 5 and 7.
    assert separate.bytes_stored - shared.bytes_stored == 5 * slot_bytes(network, 0)


def test_new_object_replaces_others_in_its_mask(network: Network) -> None:
    core, alone = InferenceCoreYV(network, EveryN(3)), InferenceCoreYV(network, EveryN(3))
    new = DISCS[0, 0]  # where object 1 was annotated
    # The mask is soft, so that probabilities of object 1 would have an effect.
    probs = run_session(core, {0: discs(1), 4: {9: 0.6 * new}})
    without = run_session(alone, {0: discs(1)})
    assert core.labels == [1, 9]
    assert all(torch.equal(a, b) for a, b in zip(probs[:4], without[:4], strict=True))
    assert all(prob.shape == (3, HEIGHT, WIDTH) for prob in probs[4:])
    inside = new > 0
    assert (probs[4][:, inside].argmax(0) == 2).all()
    assert without[4][1, inside].max() > 1e-4
    assert probs[4][1, inside].max() < 1e-6
    assert probs[4][2, ~inside].max() < 1e-6
    elsewhere = torch.softmax(aggregate(without[4][1:, ~inside]), 0)  # aggregated again
    torch.testing.assert_close(probs[4][:2, ~inside], elsewhere, rtol=1e-4, atol=1e-5)


def test_all_banks_store_the_frame_of_a_new_object(network: Network) -> None:
    core = InferenceCoreYV(network, EveryN(100), num_frames=NUM_FRAMES)
    assert core.num_memory_frames == 0
    core.step(FRAMES[0], discs(1, 2))
    core.step(FRAMES[1])
    assert core.bytes_stored == slot_bytes(network, 2)
    assert core.num_memory_frames == 1
    core.step(FRAMES[2], discs(3, frame=2))
    assert core.num_memory_frames == 2  # in the bank of objects 1 and 2
    assert core.bytes_stored == 2 * slot_bytes(network, 2) + slot_bytes(network, 1)
    probs = [core.step(FRAMES[t]) for t in range(3, 5)]

    # Objects 1 and 2 would have another output if only frame 0 were stored.
    assert core.labels == [1, 2, 3]
    unaware = InferenceCoreYV(network, EveryN(100))
    others = run_session(unaware, {0: discs(1, 2)}, last=5)
    assert (probs[0][1:3] - others[3][1:]).abs().max() > 0.01


def test_existing_object_can_be_corrected(network: Network) -> None:
    core = InferenceCoreYV(network, EveryN(3), num_frames=5)  # allocates 1 + 4 // 3 slots
    annotations = {0: discs(1, 2), 3: {2: DISCS[2, 3]}}
    probs = run_session(core, annotations, last=5)
    plain = run_session(InferenceCoreYV(network, EveryN(3)), {0: discs(1, 2)}, last=5)
    assert core.labels == [1, 2]
    assert all(torch.equal(a, b) for a, b in zip(probs[:3], plain[:3], strict=True))
    inside = DISCS[2, 3] > 0
    assert (probs[3].argmax(0)[inside] == 2).all()
    assert probs[3][2, ~inside].max() < 1e-6  # the object is only in the mask
    assert probs[3][1, inside].max() < 1e-6
    assert (probs[4] - plain[4]).abs().max() > 0.01  # the correction is stored


def test_corrections_and_new_objects_on_the_same_frame(network: Network) -> None:
    core = InferenceCoreYV(network, EveryN(3))
    probs = run_session(core, {0: discs(1, 2), 4: discs(3, 1, frame=4)})
    assert core.labels == [1, 2, 3]
    labels = label_map(probs[4], core)
    for label in (1, 3):
        assert torch.equal(labels == label, DISCS[label - 1, 4] > 0)


@pytest.mark.parametrize("mem_every", [1, 3, 4])
def test_skipped_frames_do_not_change_others(network: Network, mem_every: int) -> None:
    annotations = {1: discs(1), 5: discs(2, frame=5)}
    full = run_session(InferenceCoreYV(network, EveryN(mem_every)), annotations)
    core = InferenceCoreYV(network, EveryN(mem_every))
    skipped = []
    for t in range(NUM_FRAMES):
        if t not in annotations and t != NUM_FRAMES - 1 and core.can_skip():
            core.skip()
            skipped.append(t)
        else:
            prob = core.step(FRAMES[t], annotations.get(t), t == NUM_FRAMES - 1)
            assert torch.equal(prob, full[t]), t
    assert core.frame_index == NUM_FRAMES - 1
    assert skipped == {1: [0], 3: [0, 2, 3, 6, 7], 4: [0, 2, 3, 4, 6, 7]}[mem_every]


def test_no_frame_can_be_skipped_with_include_last(network: Network) -> None:
    core = InferenceCoreYV(network, EveryN(3, include_last=True))
    assert core.can_skip()  # there is no object
    run_session(core, {0: discs(1)}, last=2)
    assert not core.can_skip()
