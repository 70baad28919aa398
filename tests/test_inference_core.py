"""Predictor: one video, frame by frame, with objects from the start (DAVIS) or later (YouTube)."""

from __future__ import annotations

import gc
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from inference.predictor import Predictor
from inference_core import InferenceCore
from inference_core_yv import InferenceCoreYV
from inference_memory_bank import EveryN
from model.checkpoint import save_network
from model.matching import aggregate
from model.network import Network
from model.reference import reference_clip, reference_masks
from tests.test_network import tiny_network
from util.hyper_para import EvalSettings

HEIGHT, WIDTH, NUM_FRAMES = 40, 56, 9  # padded to 48 x 64
FRAMES = reference_clip(NUM_FRAMES, HEIGHT, WIDTH)
DISCS = reference_masks(NUM_FRAMES, 3, HEIGHT, WIDTH)  # (O, T, H, W)
CORES = [InferenceCore, InferenceCoreYV]

Annotations = Mapping[int, Mapping[int, torch.Tensor]]  # frame -> label -> mask


@pytest.fixture(scope="module")
def network() -> Network:
    return tiny_network().for_inference(torch.device("cpu"), torch.float32)


def discs(*labels: int, frame: int = 0) -> dict[int, torch.Tensor]:
    """Masks by label, in the order given; label o is disc o."""
    return {label: DISCS[label - 1, frame] for label in labels}


def run(
    core: InferenceCore, annotations: Annotations, last: int = NUM_FRAMES
) -> list[torch.Tensor]:
    """Probabilities of frames 0 to last - 1."""
    return [core.step(FRAMES[t], annotations.get(t), t == NUM_FRAMES - 1) for t in range(last)]


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def label_map(prob: torch.Tensor, core: InferenceCore) -> torch.Tensor:
    return torch.tensor([0, *core.labels])[prob.argmax(0)]


def slot_bytes(network: Network, num_objects: int) -> int:
    """Float32 bytes of a stored frame of 48 x 64: 3 x 4 rows of a key and its objects' values."""
    assert network.key_encoder.key_proj is not None
    key = network.key_encoder.key_proj.out_channels
    value = network.key_encoder.thin_proj.out_channels  # as wide as the value
    return 3 * 4 * (key + num_objects * value) * 4


# --- what comes out


@pytest.mark.parametrize("core_type", CORES)
def test_probabilities_of_a_video(network: Network, core_type: type[InferenceCore]) -> None:
    core = core_type(network, EveryN(3), top_k=5)
    probs = run(core, {0: discs(1, 2, 3)})
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
def test_the_first_frame_is_the_annotation(
    network: Network, core_type: type[InferenceCore], labels: tuple[int, ...]
) -> None:
    core = core_type(network, EveryN())
    prob = core.step(FRAMES[0], discs(*labels))
    assert core.labels == [*labels]
    expected = torch.stack([label * mask for label, mask in discs(*labels).items()]).sum(0)
    assert torch.equal(label_map(prob, core), expected.long())


@pytest.mark.parametrize("core_type", CORES)
@pytest.mark.parametrize("top_k", [5, None])
def test_the_order_of_objects_does_not_matter(
    network: Network, core_type: type[InferenceCore], top_k: int | None
) -> None:
    cores = [core_type(network, EveryN(2), top_k) for _ in range(2)]
    in_order = run(cores[0], {0: discs(1, 2, 3)})
    shuffled = run(cores[1], {0: discs(3, 1, 2)})
    rows = [0, *(1 + cores[1].labels.index(label) for label in (1, 2, 3))]
    assert_same(in_order, [prob[rows] for prob in shuffled])


@pytest.mark.parametrize("core_type", CORES)
def test_frames_before_the_objects_are_background_and_change_nothing(
    network: Network, core_type: type[InferenceCore]
) -> None:
    core = core_type(network, EveryN(2))
    for t in range(3):
        prob = core.step(FRAMES[t])
        assert torch.equal(prob, torch.ones(1, HEIGHT, WIDTH))
    assert core.bytes_stored == 0
    late = [core.step(FRAMES[t], discs(1) if t == 3 else None) for t in range(3, 8)]
    fresh = core_type(network, EveryN(2))
    assert_same(late, [fresh.step(FRAMES[t], discs(1) if t == 3 else None) for t in range(3, 8)])


@pytest.mark.parametrize(("height", "width"), [(33, 50), (48, 47), (16, 16)])
def test_sizes_are_padded_evenly_with_zeros(network: Network, height: int, width: int) -> None:
    frames = reference_clip(3, height, width)
    masks = reference_masks(1, 2, height, width)[:, 0]
    top, left = (-height % 16) // 2, (-width % 16) // 2
    bottom, right = -height % 16 - top, -width % 16 - left
    padding = (left, right, top, bottom)
    core, by_hand = InferenceCore(network, EveryN(1)), InferenceCore(network, EveryN(1))
    for t in range(3):
        given = {1: masks[0], 2: masks[1]} if t == 0 else None
        prob = core.step(frames[t], given)
        assert prob.shape == (3, height, width)
        padded = {k: torch.nn.functional.pad(v, padding) for k, v in (given or {}).items()}
        whole = by_hand.step(torch.nn.functional.pad(frames[t], padding), padded or None)
        assert torch.equal(prob, whole[:, top : top + height, left : left + width])


def test_soft_and_boolean_masks(network: Network) -> None:
    soft = InferenceCore(network, EveryN()).step(FRAMES[0], {1: 0.6 * DISCS[0, 0]})
    # Odds 0.6 / 0.4 against 0.4 / 0.6.
    assert soft[1].max() == pytest.approx(1.5 / (1.5 + 1 / 1.5), abs=1e-5)
    boolean = InferenceCore(network, EveryN()).step(FRAMES[0], {1: DISCS[0, 0] > 0})
    assert torch.equal(boolean, InferenceCore(network, EveryN()).step(FRAMES[0], discs(1)))


@pytest.mark.parametrize("core_type", CORES)
@pytest.mark.parametrize("include_last", [False, True])
def test_the_length_need_not_be_known(
    network: Network, core_type: type[InferenceCore], include_last: bool
) -> None:
    policy = EveryN(1, include_last)
    annotations = {1: discs(1, 2)}
    known = core_type(network, policy, 5, num_frames=NUM_FRAMES)
    unknown = core_type(network, policy, 5)
    ours, theirs = run(known, annotations), run(unknown, annotations)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert known.bytes_stored == unknown.bytes_stored == 7 * slot_bytes(network, 2)


@pytest.mark.parametrize("core_type", CORES)
def test_a_video_of_one_frame(network: Network, core_type: type[InferenceCore]) -> None:
    core = core_type(network, EveryN(), num_frames=1)
    prob = core.step(FRAMES[0], discs(2), is_last=True)
    assert torch.equal(label_map(prob, core), 2 * DISCS[1, 0].long())
    assert core.bytes_stored == 0  # nobody would read it


def test_the_last_frame_is_not_remembered(network: Network) -> None:
    cores = [InferenceCore(network, EveryN(2)) for _ in range(2)]
    for core in cores:
        for t in range(4):
            core.step(FRAMES[t], discs(1) if t == 0 else None)
    before = cores[0].bytes_stored
    last, ongoing = cores[0].step(FRAMES[4], is_last=True), cores[1].step(FRAMES[4])
    assert torch.equal(last, ongoing)
    assert cores[0].bytes_stored == before == cores[1].bytes_stored - slot_bytes(network, 1)


# --- what is refused


@pytest.mark.parametrize("core_type", CORES)
def test_wrong_masks_are_refused_and_change_nothing(
    network: Network, core_type: type[InferenceCore]
) -> None:
    core = core_type(network, EveryN(2))
    core.step(FRAMES[0])
    with pytest.raises(
        ValueError, match=r"object 7 on frame 1 is \(40, 55\), but the frame is \(40, 56\)"
    ):
        core.step(FRAMES[1], {7: torch.zeros(40, 55)})
    with pytest.raises(ValueError, match=r"Frame 1 was given no masks: leave them out \(None\)"):
        core.step(FRAMES[1], {})
    assert core.labels == []
    assert core.frame_index == 0
    probs = [core.step(FRAMES[t], discs(1) if t == 1 else None) for t in range(1, 6)]
    fresh = core_type(network, EveryN(2))
    fresh.skip()
    assert_same(probs, [fresh.step(FRAMES[t], discs(1) if t == 1 else None) for t in range(1, 6)])


def test_a_davis_session_refuses_second_masks_and_goes_on(network: Network) -> None:
    core = InferenceCore(network, EveryN(2))
    probs = run(core, {0: discs(1)}, last=2)
    with pytest.raises(ValueError, match=r"Frame 2 brings masks.* use InferenceCoreYV"):
        core.step(FRAMES[2], discs(2))
    probs += [core.step(FRAMES[t]) for t in range(2, 5)]
    assert_same(probs, run(InferenceCore(network, EveryN(2)), {0: discs(1)}, last=5))


# --- objects that appear later


@pytest.mark.parametrize("top_k", [5, None])
@pytest.mark.parametrize("include_last", [False, True])
def test_with_all_objects_at_the_start_both_cores_agree(
    network: Network, top_k: int | None, include_last: bool
) -> None:
    annotations = {0: discs(1, 2)}
    policy = EveryN(2, include_last)
    davis = run(InferenceCore(network, policy, top_k), annotations)
    youtube = run(InferenceCoreYV(network, policy, top_k), annotations)
    assert all(torch.equal(a, b) for a, b in zip(davis, youtube, strict=True))


class _OneBankEach(InferenceCoreYV):
    """Every object in a bank of its own, as published."""

    def _start_group(self, labels: list[int]) -> None:
        for label in labels:
            super()._start_group([label])


@pytest.mark.parametrize("top_k", [5, None])
def test_a_shared_affinity_reads_as_one_bank_each(network: Network, top_k: int | None) -> None:
    annotations = {0: discs(1, 2), 3: discs(3, frame=3)}
    shared, separate = (kind(network, EveryN(2), top_k) for kind in (InferenceCoreYV, _OneBankEach))
    assert_same(run(shared, annotations), run(separate, annotations))
    # What sharing saves: objects 1 and 2 hold the same keys twice, of frames 0, 2, 3, 5 and 7.
    assert separate.bytes_stored - shared.bytes_stored == 5 * slot_bytes(network, 0)


def test_a_new_object_takes_its_pixels_and_leaves_the_past(network: Network) -> None:
    core, alone = InferenceCoreYV(network, EveryN(3)), InferenceCoreYV(network, EveryN(3))
    new = DISCS[0, 0]  # where object 1 was annotated
    # A soft mask: had object 1 kept its probabilities there, they would show beside it.
    probs = run(core, {0: discs(1), 4: {9: 0.6 * new}})
    without = run(alone, {0: discs(1)})
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


def test_all_memories_take_the_frame_of_a_new_object(network: Network) -> None:
    core = InferenceCoreYV(network, EveryN(100), num_frames=NUM_FRAMES)
    assert core.num_memory_frames == 0
    core.step(FRAMES[0], discs(1, 2))
    core.step(FRAMES[1])
    assert core.bytes_stored == slot_bytes(network, 2)
    assert core.num_memory_frames == 1
    core.step(FRAMES[2], discs(3, frame=2))
    assert core.num_memory_frames == 2  # of the objects that were there before
    assert core.bytes_stored == 2 * slot_bytes(network, 2) + slot_bytes(network, 1)
    probs = [core.step(FRAMES[t]) for t in range(3, 5)]

    # The known objects, read from frame 0 alone, would be another answer.
    assert core.labels == [1, 2, 3]
    unaware = InferenceCoreYV(network, EveryN(100))
    others = run(unaware, {0: discs(1, 2)}, last=5)
    assert (probs[0][1:3] - others[3][1:]).abs().max() > 0.01


def test_a_known_object_can_be_corrected(network: Network) -> None:
    core = InferenceCoreYV(network, EveryN(3), num_frames=5)  # its bank holds 1 + 4 // 3 slots
    annotations = {0: discs(1, 2), 3: {2: DISCS[2, 3]}}
    probs = run(core, annotations, last=5)
    plain = run(InferenceCoreYV(network, EveryN(3)), {0: discs(1, 2)}, last=5)
    assert core.labels == [1, 2]
    assert all(torch.equal(a, b) for a, b in zip(probs[:3], plain[:3], strict=True))
    inside = DISCS[2, 3] > 0
    assert (probs[3].argmax(0)[inside] == 2).all()
    assert probs[3][2, ~inside].max() < 1e-6  # the mask is all of the object
    assert probs[3][1, inside].max() < 1e-6
    assert (probs[4] - plain[4]).abs().max() > 0.01  # and it is remembered


def test_corrections_and_new_objects_on_one_frame(network: Network) -> None:
    core = InferenceCoreYV(network, EveryN(3))
    probs = run(core, {0: discs(1, 2), 4: discs(3, 1, frame=4)})
    assert core.labels == [1, 2, 3]
    labels = label_map(probs[4], core)
    for label in (1, 3):
        assert torch.equal(labels == label, DISCS[label - 1, 4] > 0)


# --- skipping


@pytest.mark.parametrize("mem_every", [1, 3, 4])
def test_skipping_what_is_not_remembered_changes_no_other_frame(
    network: Network, mem_every: int
) -> None:
    annotations = {1: discs(1), 5: discs(2, frame=5)}
    full = run(InferenceCoreYV(network, EveryN(mem_every)), annotations)
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


def test_with_include_last_no_frame_can_be_skipped(network: Network) -> None:
    core = InferenceCoreYV(network, EveryN(3, include_last=True))
    assert core.can_skip()  # nothing to remember yet
    run(core, {0: discs(1)}, last=2)
    assert not core.can_skip()


# --- memory


def live_tensors() -> tuple[int, int]:
    """Number of tensors alive, and bytes of their storages; packed weights tell of none, nor does
    what torch.compile keeps in their place (in another test of this process)."""
    gc.collect()
    kinds = (torch.Tensor, torch.nn.Parameter)
    tensors = [o for o in gc.get_objects() if type(o) in kinds and not o.is_mkldnn]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return len(tensors), sum(storages.values())


@pytest.mark.parametrize("core_type", CORES)
@pytest.mark.parametrize("include_last", [False, True])
def test_nothing_held_grows_with_the_video(
    network: Network, core_type: type[InferenceCore], include_last: bool
) -> None:
    core = core_type(network, EveryN(1000, include_last))
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(32, 32)
    mask[8:24, 8:24] = 1
    held = {}
    for t in range(60):
        core.step(torch.randn(3, 32, 32, generator=generator), {1: mask} if t == 0 else None)
        if t in (11, 59):
            held[t] = live_tensors()
    assert held[59] == held[11]


# --- predictor of an eval script


def test_sessions_start_fresh_cores_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pth"
    save_network(path, tiny_network(), {})
    settings = EvalSettings(
        model=str(path), device="cpu", top=0, mem_every=2, include_last=True, amp=True
    )
    predictor = Predictor(settings, InferenceCoreYV)
    core = predictor.start(7)
    assert isinstance(core, InferenceCoreYV)
    assert (core.top_k, core.num_frames) == (None, 7)
    assert core.policy == EveryN(2, include_last=True)
    assert core.network.dtype == torch.bfloat16
    image = torch.randint(256, (3, 20, 30), dtype=torch.uint8)
    assert torch.equal(predictor.normalise(image), tiny_network().normalise(image))
    prob = core.step(predictor.normalise(image), {1: torch.ones(20, 30)})
    assert prob.dtype == torch.float32
    assert prob.argmax(0).eq(1).all()
    assert predictor.start().labels == []
    assert predictor.start().num_frames is None

    settings.amp, settings.top = False, 20
    predictor = Predictor(settings)
    assert predictor.network.dtype == torch.float32
    assert predictor.start().top_k == 20
    settings.model = str(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match=re.escape(f"There is no file {settings.model}")):
        Predictor(settings)


def test_a_refused_first_frame_leaves_the_session_free_to_take_another_size(
    network: Network,
) -> None:
    core = InferenceCore(network, EveryN())
    with pytest.raises(ValueError, match="must lie in"):
        core.step(torch.zeros(3, 16, 16), {1: torch.full((16, 16), 7.0)})
    core.step(torch.zeros(3, 32, 16), {1: torch.ones(32, 16)})
    with pytest.raises(ValueError, match="all frames of a video need the same size"):
        core.step(torch.zeros(3, 16, 16))
    with pytest.raises(ValueError, match="give \\(3, H, W\\) floats"):
        core.step(torch.zeros(32, 16, 3))
