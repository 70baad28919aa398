"""Sessions of all methods: late objects, corrections, skipped frames, capacity and precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import model.network
from inference.predictor import make_policy
from inference_core import InferenceCore
from inference_core_yv import InferenceCoreYV
from inference_memory_bank import QualityGated, SamCompression
from model.features import MemoryEntry
from model.memory_bank import MemoryBank
from model.methods import METHODS
from tests.example_sessions import (
    DISCS,
    FRAMES,
    HEIGHT,
    NUM_FRAMES,
    WIDTH,
    masks_on,
    network_and_policy,
    run_session,
)
from tests.tiny_networks import tiny_network
from util.hyper_para import EvalSettings
from util.parse_settings import of_method
from util.presets import POLICY_OPTIONS

each_method = pytest.mark.parametrize("method", [*METHODS])


@each_method
@pytest.mark.parametrize("memory", ["", "every_n", "isogenous"])
def test_skipped_frames_do_not_change_others(method: str, memory: str) -> None:
    network, policy = network_and_policy(method, memory=memory)
    annotations = {0: [1], 4: [2]}
    full = run_session(InferenceCoreYV(network, policy, 5), annotations)
    core = InferenceCoreYV(network, policy, 5)
    part = run_session(core, annotations, lambda t: t % 5 == 0)
    assert (len(part) < NUM_FRAMES) == (method != "qdmn"), "QDMN needs every frame"
    for t, prob in part.items():
        torch.testing.assert_close(prob, full[t], rtol=1e-4, atol=1e-5)


@each_method
def test_cores_agree_if_all_objects_start_together(method: str) -> None:
    network, policy = network_and_policy(method)
    plain, later = (kind(network, policy, 5) for kind in (InferenceCore, InferenceCoreYV))
    one, other = run_session(plain, {0: [1, 2]}), run_session(later, {0: [1, 2]})
    for t in range(NUM_FRAMES):
        torch.testing.assert_close(one[t], other[t], rtol=1e-4, atol=1e-5)


@each_method
def test_late_object_and_correction(method: str) -> None:
    """An annotation of frame 6 changes this frame and later ones, but not earlier ones."""
    network, policy = network_and_policy(method)
    before = run_session(InferenceCoreYV(network, policy, 5), {0: [1]})
    late = run_session(InferenceCoreYV(network, policy, 5), {0: [1], 6: [2]})
    corrected = run_session(InferenceCoreYV(network, policy, 5), {0: [1], 6: [1]})
    for t in range(6):
        torch.testing.assert_close(late[t], before[t])
        torch.testing.assert_close(corrected[t], before[t])
    assert len(late[6]) == len(late[13]) == 3
    assert torch.equal(late[6].argmax(0) == 2, DISCS[1, 6] > 0)
    assert (corrected[6] - before[6]).abs().max() > 0.1
    assert (corrected[8] - before[8]).abs().max() > 1e-6


@each_method
def test_sessions_are_independent(method: str) -> None:
    network, policy = network_and_policy(method)
    alone = run_session(InferenceCoreYV(network, policy, 5), {0: [1, 2], 5: [3]})
    other = InferenceCoreYV(network, policy, 5)
    other.step(FRAMES[3].flip(2), {1: DISCS[2, 3]})
    core = InferenceCoreYV(network, policy, 5)
    for t in range(NUM_FRAMES):
        prob = core.step(FRAMES[t], masks_on({0: [1, 2], 5: [3]}, t), t == NUM_FRAMES - 1)
        torch.testing.assert_close(prob, alone[t])
        other.step(FRAMES[t].flip(1))


@each_method
def test_frame_after_the_last_one_is_an_error(method: str) -> None:
    network, policy = network_and_policy(method)
    core = InferenceCore(network, policy, 5)
    core.step(FRAMES[0], {1: DISCS[0, 0]}, is_last=True)
    assert not core.can_skip()
    with pytest.raises(ValueError, match="Frame 1 follows a frame that was passed with is_last"):
        core.step(FRAMES[1])


@each_method
def test_many_objects_are_processed_in_chunks(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, policy = network_and_policy(method)
    expected = run_session(InferenceCore(network, policy, 5), {0: [1, 2, 3]})
    sizes = []
    inner = model.network._in_chunks

    def record(size: int, *rest: Any) -> torch.Tensor:
        sizes.append(size)
        return inner(size, *rest)

    monkeypatch.setattr(model.network, "_in_chunks", record)
    # At least one object is processed, even if there is too little memory for it.
    for name, value, size in (("_OBJECTS_PER_CHUNK", 2, 2), ("total_memory", lambda _: 2**16, 1)):
        monkeypatch.setattr(model.network, name, value)
        parts = run_session(InferenceCore(network, policy, 5), {0: [1, 2, 3]})
        assert {*sizes} == {size}
        sizes.clear()
        for t in range(NUM_FRAMES):
            torch.testing.assert_close(parts[t], expected[t], rtol=1e-4, atol=1e-5)


@each_method
def test_bfloat16_is_close_to_float32(method: str) -> None:
    network, policy = network_and_policy(method)
    half = tiny_network(method=method).for_inference(torch.device("cpu"), torch.bfloat16)
    settings = of_method(EvalSettings(), method)
    exact = run_session(InferenceCore(network, policy, 5), {0: [1, 2]})
    core = InferenceCore(half, make_policy(half, settings), 5)
    # Only the first frames: in untrained networks, small differences grow.
    for t in range(3):
        prob = core.step(FRAMES[t], masks_on({0: [1, 2]}, t))
        assert prob.dtype == torch.float32
        assert (prob.argmax(0) == exact[t].argmax(0)).float().mean() > 0.9


@each_method
@pytest.mark.parametrize("top_k", [5, None])
def test_memory_in_half_precision(method: str, top_k: int | None) -> None:
    # With these weights, values of RDE's embedding are too large for float16.
    network, policy = network_and_policy(method, mem_every=3, memory="every_n")
    cores = [InferenceCoreYV(network, policy, top_k, half_memory=half) for half in (False, True)]
    full, half = (run_session(core, {0: [1, 2], 5: [3]}) for core in cores)
    assert any((full[t] != half[t]).any() for t in range(1, NUM_FRAMES)), "values are rounded"
    for t in range(NUM_FRAMES):
        torch.testing.assert_close(full[t], half[t], rtol=0, atol=5e-3)
    large, small = (core._groups[0].bank for core in cores)
    assert large._values is not None
    assert small._values is not None
    assert (large._values.dtype, small._values.dtype) == (torch.float32, torch.float16)
    assert large._values.nbytes == 2 * small._values.nbytes
    # A network in half precision stores values in its own type.
    half_network = tiny_network(method=method).for_inference(torch.device("cpu"), torch.bfloat16)
    core = InferenceCore(half_network, policy, top_k, half_memory=True)
    core.step(FRAMES[0], masks_on({0: [1]}, 0))
    core.step(FRAMES[1])
    values = core._groups[0].bank._values
    assert values is not None
    assert values.dtype == torch.bfloat16


@each_method
@pytest.mark.parametrize("memory", [*POLICY_OPTIONS])
@pytest.mark.parametrize("capacity", [3, 5])
def test_memory_stays_within_its_capacity(method: str, memory: str, capacity: int) -> None:
    if {"quality": method != "qdmn", "sam": method != "rde"}.get(memory, False):
        with pytest.raises(ValueError, match="has none"):
            network_and_policy(method, memory=memory, mem_capacity=capacity)
        return
    network, policy = network_and_policy(method, memory=memory, mem_capacity=capacity, mem_every=1)
    core = InferenceCoreYV(network, policy, 5)
    run_session(core, {0: [1, 2], 5: [3], 8: [1]})
    for group in core._groups:
        assert group.bank.num_slots + (group.bank.embedding is not None) <= capacity
        assert group.bank.slots[0].is_annotation


@each_method
@pytest.mark.parametrize(("height", "width"), [(16, 16), (9, 40), (40, 1)])
def test_frames_of_one_position(method: str, height: int, width: int) -> None:
    """Features have a stride of 16 pixels."""
    network, policy = network_and_policy(method, mem_every=1)
    core = InferenceCore(network, policy, 5)
    core.step(FRAMES[0, :, :height, :width], {1: torch.ones(height, width)})
    for t in range(1, 4):
        prob = core.step(FRAMES[t, :, :height, :width])
        assert prob.shape == (2, height, width)
        assert prob.isfinite().all()


def test_prior_of_youtube_differs() -> None:
    network, policy = network_and_policy("qdmn")
    annotations = {0: [1], 4: [2]}
    plain = run_session(InferenceCoreYV(network, policy, 5), annotations)
    youtube = run_session(InferenceCoreYV(network, policy, 5, num_objects=2), annotations)
    assert (plain[2] - youtube[2]).abs().max() > 1e-6


def test_reference_quality_follows_the_latest_annotation() -> None:
    """The second annotation is on frame 4, after which qualities are lower."""

    def make_entry(quality: float) -> MemoryEntry:
        key, value = torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 2, 1, 1)
        return MemoryEntry(key, value, quality=torch.tensor([[quality]]))

    policy, bank = QualityGated(1, 0.75, "prediction"), MemoryBank()
    for t, quality in enumerate([1, 0.9, 0.9, 0.5, 0.9, 0.5, 0.45, 0.3]):
        policy.write(bank, make_entry(quality), t, is_annotation=t in (0, 4))
    assert [slot.frame_index for slot in bank.stored] == [0, 1, 2, 4, 5, 6]


@each_method
def test_wrong_parameters_of_a_session_are_errors(method: str) -> None:
    network, policy = network_and_policy(method)
    for top_k in (0, -1):
        with pytest.raises(ValueError, match="top_k must be at least 1, or None"):
            InferenceCore(network, policy, top_k)
    if method != "qdmn":
        with pytest.raises(
            ValueError, match=f"QualityGated needs a quality head.* {method} has none"
        ):
            InferenceCoreYV(network, QualityGated())
    if method != "rde":
        with pytest.raises(ValueError, match="two-frames-compress needs a compressor"):
            SamCompression(compressor=network.compressor)


def test_skipping_a_frame_of_the_memory_is_an_error() -> None:
    network, policy = network_and_policy("stcn")
    core = InferenceCore(network, policy, 5)
    core.step(FRAMES[0], {1: DISCS[0, 0]})
    for _ in range(4):
        core.skip()
    with pytest.raises(ValueError, match="Frame 5 cannot be skipped"):
        core.skip()
    core.step(FRAMES[5])
    core.skip()


def test_embedding_counts_as_one_memory_frame() -> None:
    core = InferenceCore(*network_and_policy("rde", mem_every=2), 5)
    counts = []
    for t in range(NUM_FRAMES):
        core.step(FRAMES[t], masks_on({0: [1]}, t), is_last=t == NUM_FRAMES - 1)
        counts.append(core.num_memory_frames)
    # First frame and embedding; from frame 2 on, also the latest memory frame.
    assert counts == [2, 2] + [3] * (NUM_FRAMES - 2)


@each_method
@pytest.mark.parametrize("memory", ["", "every_n"])
def test_removing_an_object_keeps_the_others(method: str, memory: str) -> None:
    network, policy = network_and_policy(method, memory=memory, include_last=memory == "every_n")
    annotations = {0: [1, 2], 4: [3]}
    core = InferenceCoreYV(network, policy, 5)
    for t in range(7):
        core.step(FRAMES[t], masks_on(annotations, t))
    stored = core.bytes_stored
    core.remove_objects([1])
    assert core.labels == [2, 3]
    assert core.bytes_stored < stored
    with pytest.raises(ValueError, match=r"There is no object 1, 9 to remove\. .* are: 2, 3"):
        core.remove_objects([9, 1, 3])
    prob = core.step(FRAMES[7])
    assert prob.shape[0] == 3
    torch.testing.assert_close(prob.sum(0), torch.ones(HEIGHT, WIDTH), rtol=1e-4, atol=1e-4)
    for t in range(8, 11):
        assert core.step(FRAMES[t]).isfinite().all()
    core.step(FRAMES[11], {1: DISCS[0, 11]})  # object 1 starts again
    assert core.labels == [2, 3, 1]
    core.remove_objects([2, 3, 1])
    assert core.labels == []
    assert core.step(FRAMES[12]).shape[0] == 1
    core.step(FRAMES[13], {5: DISCS[1, 13]})
    assert core.labels == [5]


@each_method
def test_after_all_objects_are_removed_a_session_is_like_a_new_one(method: str) -> None:
    used, new = (InferenceCoreYV(*network_and_policy(method, mem_every=2), 5) for _ in range(2))
    for t in range(5):
        used.step(FRAMES[t], masks_on({0: [1, 2]}, t))
        new.step(FRAMES[t])
    used.remove_objects([1, 2])
    assert used.can_skip()
    for t in range(5, 10):
        masks = masks_on({6: [3]}, t)
        torch.testing.assert_close(used.step(FRAMES[t], masks), new.step(FRAMES[t], masks))


def test_bank_after_removing_objects() -> None:
    """With shared keys and with own keys of each object."""
    generator = torch.Generator().manual_seed(1)
    for has_own_keys in (False, True):
        key = torch.randn(1, 3, 4, 2, 3, generator=generator)
        value = torch.randn(1, 3, 5, 2, 3, generator=generator)
        entry = MemoryEntry(key if has_own_keys else key[:, 0], value)
        part = MemoryEntry(key[:, [0, 2]] if has_own_keys else key[:, 0], value[:, [0, 2]])
        bank, expected = MemoryBank(), MemoryBank()
        bank.append(entry, 0)
        bank.append(entry, 1)
        bank.keep_objects([0, 2], 3)
        bank.append(part, 2)
        for t in range(3):
            expected.append(part, t)
        for one, other in zip(bank.view()[:2], expected.view()[:2], strict=True):
            assert torch.equal(one, other)
