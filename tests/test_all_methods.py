"""What holds for a video whatever the method: late objects, corrections, skips, long videos."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import model.network
from inference.predictor import make_policy
from inference_core import InferenceCore
from inference_core_yv import InferenceCoreYV
from inference_memory_bank import MemoryPolicy, QualityGated, SamCompression
from model.features import MemoryEntry
from model.memory_bank import MemoryBank
from model.methods import METHODS
from model.network import Network
from model.reference import reference_clip, reference_masks
from tests.test_network import tiny_network
from util.hyper_para import EvalSettings
from util.parse_settings import of_method
from util.presets import POLICY_OPTIONS

NUM_FRAMES, HEIGHT, WIDTH = 14, 40, 56
FRAMES = reference_clip(NUM_FRAMES, HEIGHT, WIDTH, seed=4)
DISCS = reference_masks(NUM_FRAMES, 3, HEIGHT, WIDTH)

each_method = pytest.mark.parametrize("method", [*METHODS])


def ready(method: str, **asked: object) -> tuple[Network, MemoryPolicy]:
    network = tiny_network(method=method).for_inference(torch.device("cpu"), torch.float32)
    return network, make_policy(network, of_method(EvalSettings(**asked), method))  # type: ignore[arg-type]


def masks_on(given: dict[int, list[int]], t: int) -> dict[int, torch.Tensor] | None:
    return {o: DISCS[o - 1, t] for o in given[t]} if t in given else None


def run(
    core: InferenceCore,
    given: dict[int, list[int]],
    is_required: Callable[[int], bool] = lambda _: True,
) -> dict[int, torch.Tensor]:
    """Probabilities of the frames that are wanted; others are skipped where that is possible."""
    probs = {}
    for t in range(NUM_FRAMES):
        if not is_required(t) and t not in given and core.can_skip():
            core.skip()
            continue
        probs[t] = core.step(FRAMES[t], masks_on(given, t), is_last=t == NUM_FRAMES - 1)
    return probs


@each_method
@pytest.mark.parametrize("memory", ["", "every_n", "isogenous"])
def test_skipped_frames_change_nothing(method: str, memory: str) -> None:
    network, policy = ready(method, memory=memory)
    given = {0: [1], 4: [2]}
    full = run(InferenceCoreYV(network, policy, 5), given)
    core = InferenceCoreYV(network, policy, 5)
    part = run(core, given, lambda t: t % 5 == 0)
    assert (len(part) < NUM_FRAMES) == (method != "qdmn"), "whose next frame looks at each mask"
    for t, prob in part.items():
        torch.testing.assert_close(prob, full[t], rtol=1e-4, atol=1e-5)


@each_method
def test_both_cores_agree_where_all_objects_start_together(method: str) -> None:
    network, policy = ready(method)
    plain, later = (kind(network, policy, 5) for kind in (InferenceCore, InferenceCoreYV))
    one, other = run(plain, {0: [1, 2]}), run(later, {0: [1, 2]})
    for t in range(NUM_FRAMES):
        torch.testing.assert_close(one[t], other[t], rtol=1e-4, atol=1e-5)


@each_method
def test_a_late_object_and_a_correction(method: str) -> None:
    """What is given on frame 6 shows there, changes what follows, and nothing before."""
    network, policy = ready(method)
    before = run(InferenceCoreYV(network, policy, 5), {0: [1]})
    late = run(InferenceCoreYV(network, policy, 5), {0: [1], 6: [2]})
    corrected = run(InferenceCoreYV(network, policy, 5), {0: [1], 6: [1]})
    for t in range(6):
        torch.testing.assert_close(late[t], before[t])
        torch.testing.assert_close(corrected[t], before[t])
    assert len(late[6]) == len(late[13]) == 3
    assert torch.equal(late[6].argmax(0) == 2, DISCS[1, 6] > 0)
    assert (corrected[6] - before[6]).abs().max() > 0.1
    assert (corrected[8] - before[8]).abs().max() > 1e-6


@each_method
def test_sessions_do_not_share_what_they_saw(method: str) -> None:
    network, policy = ready(method)
    alone = run(InferenceCoreYV(network, policy, 5), {0: [1, 2], 5: [3]})
    other = InferenceCoreYV(network, policy, 5)
    other.step(FRAMES[3].flip(2), {1: DISCS[2, 3]})
    core = InferenceCoreYV(network, policy, 5)
    for t in range(NUM_FRAMES):
        prob = core.step(FRAMES[t], masks_on({0: [1, 2], 5: [3]}, t), t == NUM_FRAMES - 1)
        torch.testing.assert_close(prob, alone[t])
        other.step(FRAMES[t].flip(1))


@each_method
def test_nothing_comes_after_the_last_frame(method: str) -> None:
    network, policy = ready(method)
    core = InferenceCore(network, policy, 5)
    core.step(FRAMES[0], {1: DISCS[0, 0]}, is_last=True)
    assert not core.can_skip()
    with pytest.raises(
        ValueError, match="Frame 1 comes after the one that was said to be the last"
    ):
        core.step(FRAMES[1])


@each_method
def test_many_objects_in_passes(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, policy = ready(method)
    whole = run(InferenceCore(network, policy, 5), {0: [1, 2, 3]})
    sizes = []
    inner = model.network._in_passes

    def spy(size: int, *rest: Any) -> torch.Tensor:
        sizes.append(size)
        return inner(size, *rest)

    monkeypatch.setattr(model.network, "_in_passes", spy)
    # Where there is room for less than one, one is taken.
    for name, value, size in (("_OBJECTS_PER_PASS", 2, 2), ("total_memory", lambda _: 2**16, 1)):
        monkeypatch.setattr(model.network, name, value)
        parts = run(InferenceCore(network, policy, 5), {0: [1, 2, 3]})
        assert {*sizes} == {size}
        sizes.clear()
        for t in range(NUM_FRAMES):
            torch.testing.assert_close(whole[t], parts[t], rtol=1e-4, atol=1e-5)


@each_method
def test_bfloat16_agrees(method: str) -> None:
    network, policy = ready(method)
    half = tiny_network(method=method).for_inference(torch.device("cpu"), torch.bfloat16)
    settings = of_method(EvalSettings(), method)
    exact = run(InferenceCore(network, policy, 5), {0: [1, 2]})
    core = InferenceCore(half, make_policy(half, settings), 5)
    # The first steps: fresh networks feed small differences back into themselves.
    for t in range(3):
        prob = core.step(FRAMES[t], masks_on({0: [1, 2]}, t))
        assert prob.dtype == torch.float32
        assert (prob.argmax(0) == exact[t].argmax(0)).float().mean() > 0.9


@each_method
@pytest.mark.parametrize("top_k", [5, None])
def test_a_memory_in_half_precision(method: str, top_k: int | None) -> None:
    # With these weights values of RDE's embedding are too large for float16.
    network, policy = ready(method, mem_every=3, memory="every_n")
    cores = [
        InferenceCoreYV(network, policy, top_k, halves_memory=halves) for halves in (False, True)
    ]
    whole, half = (run(core, {0: [1, 2], 5: [3]}) for core in cores)
    assert any((whole[t] != half[t]).any() for t in range(1, NUM_FRAMES)), "it rounds"
    for t in range(NUM_FRAMES):
        torch.testing.assert_close(whole[t], half[t], rtol=0, atol=5e-3)
    large, small = (core._groups[0].bank for core in cores)
    assert large._values is not None
    assert small._values is not None
    assert (large._values.dtype, small._values.dtype) == (torch.float32, torch.float16)
    assert large._values.nbytes == 2 * small._values.nbytes
    # A network in half precision has values as small, of its own type.
    lean = tiny_network(method=method).for_inference(torch.device("cpu"), torch.bfloat16)
    core = InferenceCore(lean, policy, top_k, halves_memory=True)
    core.step(FRAMES[0], masks_on({0: [1]}, 0))
    core.step(FRAMES[1])
    values = core._groups[0].bank._values
    assert values is not None
    assert values.dtype == torch.bfloat16


@each_method
@pytest.mark.parametrize("memory", [*POLICY_OPTIONS])
@pytest.mark.parametrize("capacity", [3, 5])
def test_a_capped_memory_stays_under_its_cap(method: str, memory: str, capacity: int) -> None:
    if {"quality": method != "qdmn", "sam": method != "rde"}.get(memory, False):
        with pytest.raises(ValueError, match="has none"):
            ready(method, memory=memory, mem_capacity=capacity)
        return
    network, policy = ready(method, memory=memory, mem_capacity=capacity, mem_every=1)
    core = InferenceCoreYV(network, policy, 5)
    run(core, {0: [1, 2], 5: [3], 8: [1]})
    for group in core._groups:
        assert group.bank.num_slots + (group.bank.embedding is not None) <= capacity
        assert group.bank.slots[0].is_annotation


def test_the_youtube_prior_is_youtube_s_alone() -> None:
    network, policy = ready("qdmn")
    given = {0: [1], 4: [2]}
    plain = run(InferenceCoreYV(network, policy, 5), given)
    youtube = run(InferenceCoreYV(network, policy, 5, num_objects=2), given)
    assert (plain[2] - youtube[2]).abs().max() > 1e-6


def test_a_pass_of_youtube_has_its_own_reference_quality() -> None:
    """Annotated on frame 4, where scores are lower: they are the measure from then on."""

    def entry(quality: float) -> MemoryEntry:
        score = torch.tensor([[quality]])
        return MemoryEntry(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 2, 1, 1), quality=score)

    policy, bank = QualityGated(1, 0.75, "prediction"), MemoryBank()
    for t, quality in enumerate([1, 0.9, 0.9, 0.5, 0.9, 0.5, 0.45, 0.3]):
        policy.write(bank, entry(quality), t, is_annotation=t in (0, 4))
    assert [slot.frame_index for slot in bank.stored] == [0, 1, 2, 4, 5, 6]


@each_method
def test_what_a_session_cannot_be_made_of(method: str) -> None:
    network, policy = ready(method)
    for top_k in (0, -1):
        with pytest.raises(ValueError, match="top_k must be at least 1, or None"):
            InferenceCore(network, policy, top_k)
    if method != "qdmn":
        with pytest.raises(ValueError, match=f"QualityGated needs a head .* {method} has none"):
            InferenceCoreYV(network, QualityGated())
    if method != "rde":
        with pytest.raises(ValueError, match="two-frames-compress needs a compressor"):
            SamCompression(compressor=network.compressor)


def test_skipping_what_matters_is_refused() -> None:
    network, policy = ready("stcn")
    core = InferenceCore(network, policy, 5)
    core.step(FRAMES[0], {1: DISCS[0, 0]})
    for _ in range(4):
        core.skip()
    with pytest.raises(ValueError, match="Frame 5 cannot be skipped"):
        core.skip()
    core.step(FRAMES[5])
    core.skip()


def test_an_embedding_counts_as_one_memory_frame() -> None:
    core = InferenceCore(*ready("rde", mem_every=2), 5)
    counts = []
    for t in range(NUM_FRAMES):
        core.step(FRAMES[t], masks_on({0: [1]}, t), is_last=t == NUM_FRAMES - 1)
        counts.append(core.num_memory_frames)
    # The first frame with the embedding; the latest memory frame from frame 2 on.
    assert counts == [2, 2] + [3] * (NUM_FRAMES - 2)


@each_method
@pytest.mark.parametrize("memory", ["", "every_n"])
def test_a_removed_object_leaves_the_others(method: str, memory: str) -> None:
    network, policy = ready(method, memory=memory, include_last=memory == "every_n")
    given = {0: [1, 2], 4: [3]}
    core = InferenceCoreYV(network, policy, 5)
    for t in range(7):
        core.step(FRAMES[t], masks_on(given, t))
    stored = core.bytes_stored
    core.remove_objects([1])
    assert core.labels == [2, 3]
    assert core.bytes_stored < stored
    with pytest.raises(ValueError, match="There is no object 1, 9 to remove: there is 2, 3"):
        core.remove_objects([9, 1, 3])
    prob = core.step(FRAMES[7])
    assert prob.shape[0] == 3
    torch.testing.assert_close(prob.sum(0), torch.ones(HEIGHT, WIDTH), rtol=1e-4, atol=1e-4)
    for t in range(8, 11):
        assert core.step(FRAMES[t]).isfinite().all()
    core.step(FRAMES[11], {1: DISCS[0, 11]})  # and comes back
    assert core.labels == [2, 3, 1]
    core.remove_objects([2, 3, 1])
    assert core.labels == []
    assert core.step(FRAMES[12]).shape[0] == 1
    core.step(FRAMES[13], {5: DISCS[1, 13]})
    assert core.labels == [5]


def test_a_bank_without_some_objects() -> None:
    """Shared keys: columns of the values go; own keys: whole sets of rows."""
    generator = torch.Generator().manual_seed(1)
    for has_own in (False, True):
        key = torch.randn(1, 3, 4, 2, 3, generator=generator)
        value = torch.randn(1, 3, 5, 2, 3, generator=generator)
        entry = MemoryEntry(key if has_own else key[:, 0], value)
        part = MemoryEntry(key[:, [0, 2]] if has_own else key[:, 0], value[:, [0, 2]])
        whole, expected = MemoryBank(), MemoryBank()
        whole.append(entry, 0)
        whole.append(entry, 1)
        whole.keep_objects([0, 2], 3)
        whole.append(part, 2)
        for t in range(3):
            expected.append(part, t)
        for one, other in zip(whole.view()[:2], expected.view()[:2], strict=True):
            assert torch.equal(one, other)
