"""Full memories: capacity, eviction, and QualityGated, which stores frames by their quality."""

from __future__ import annotations

import pytest
import torch

from inference_memory_bank import (
    EveryN,
    IsogenousSampling,
    MemoryPolicy,
    QualityGated,
    SamCompression,
)
from model.memory_bank import MemoryBank
from tests.memory_frames import (
    CK,
    CV,
    P,
    make_entry,
    merge,
    slot_frames,
    store_video,
    stored_frames,
)
from util.devices import HostCopy


@pytest.mark.parametrize(
    "policy",
    [
        EveryN(1, mem_capacity=4),
        EveryN(2, include_last=True, mem_capacity=4),
        IsogenousSampling(1, True, 2, 0.5, mem_capacity=4),
        QualityGated(1, 0.0, mem_capacity=4),
        SamCompression(1, "stm", mem_capacity=4),
        SamCompression(1, "compress", merge, mem_capacity=4),
    ],
)
@pytest.mark.parametrize("annotations", [(0,), (0, 5), (0, 5, 6, 7, 8, 9, 20)])
def test_memory_never_exceeds_its_capacity(
    policy: MemoryPolicy, annotations: tuple[int, ...]
) -> None:
    bank = MemoryBank(policy.max_slots(40), policy.mem_capacity)
    slot, most = P * (CK + CV) * 4, 0
    for t in range(40):
        if t in annotations or policy.needs(bank, t):
            policy.write(bank, make_entry(t), t, t in annotations)
        assert bank.bytes_stored <= 4 * slot
        most = max(most, bank.num_slots)
        assert stored_frames(bank) == slot_frames(bank)
        assert slot_frames(bank)[0] == 0, "the first annotation is never evicted"
        assert slot_frames(bank) == sorted(slot_frames(bank))
    # With mem_every=1, the slot for the temporary frame stays empty. SAM has two slots and the
    # embedding.
    assert most == (
        2
        if policy.num_reserved and isinstance(policy, SamCompression)
        else 4 - (policy.num_reserved and policy.mem_every == 1)
    )


def test_oldest_frame_is_evicted_first_and_annotated_frames_last() -> None:
    bank, _ = store_video(EveryN(1, mem_capacity=4), 6, annotations=(0, 2))
    assert stored_frames(bank) == [0, 2, 4, 5]
    bank, _ = store_video(EveryN(1, mem_capacity=3), 6, annotations=(0, 1, 2, 3))
    assert stored_frames(bank) == [0, 3, 5]


def test_too_small_capacity_is_an_error() -> None:
    for make in (
        lambda: EveryN(5, mem_capacity=1),
        lambda: EveryN(5, include_last=True, mem_capacity=2),
        lambda: QualityGated(mem_capacity=2),
        lambda: SamCompression(compressor=merge, mem_capacity=2),
    ):
        with pytest.raises(ValueError, match=r"mem_capacity \d is too small: .* at least \d slots"):
            make()


def store_qualities(
    policy: QualityGated, qualities: list[float]
) -> tuple[MemoryBank, list[list[int]]]:
    """Store frames of these qualities; return the bank, and the frames that each read uses."""
    bank, read = MemoryBank(), []
    for t, quality in enumerate(qualities):
        read.append(stored_frames(bank) if bank.num_slots else [])
        assert t == 0 or policy.needs(bank, t)
        policy.write(bank, make_entry(t, quality), t, is_annotation=t == 0)
    return bank, read


def test_good_frames_are_stored_and_the_previous_frame_is_read() -> None:
    policy = QualityGated(mem_every=2, quality_threshold=0.8)
    #        annotated, early, good, early, bad, bad, good, early
    qualities = [0.5, 0.5, 0.45, 0.5, 0.3, 0.39, 0.41, 0.5]
    bank, read = store_qualities(policy, qualities)
    assert read[1:] == [[0], [0, 1], [0, 2], [0, 2, 3], [0, 2, 4], [0, 2, 5], [0, 2, 6]]
    assert stored_frames(bank) == [0, 2, 6, 7]
    assert [round(slot.quality, 2) for slot in bank.stored] == [1, 0.9, 0.82]


def test_quality_relative_to_the_first_prediction() -> None:
    policy = QualityGated(2, 0.75, "prediction")
    bank, _ = store_qualities(policy, [0.9, 0.4, 0.35, 0.4, 0.29])
    assert stored_frames(bank) == [0, 2, 4]  # 4 is in the temporary slot
    assert bank.last_stored == 2


@pytest.mark.parametrize("reference", ["annotation", "prediction"])
def test_quality_of_zero(reference: str) -> None:
    """It is not a reference, and its frame is not stored."""
    bank, _ = store_qualities(QualityGated(1, 0.5, reference), [0.0, 0.0, 0.5, 0.0, 0.4, 0.1, 0.3])
    assert [slot.frame_index for slot in bank.stored] == [0, 2, 4, 6]
    assert all(slot.quality == slot.quality for slot in bank.slots)


def test_lowest_quality_and_age_are_evicted() -> None:
    """The annotated frame never is (in the published code, the index was wrong by one)."""
    policy = QualityGated(1, 0.5, mem_capacity=5)
    bank, _ = store_qualities(policy, [1, 0.9, 0.6, 0.9, 0.9, 0.9])
    assert [slot.frame_index for slot in bank.stored] == [0, 3, 4, 5]
    bank, _ = store_qualities(policy, [0.1, 0.9, 0.9, 0.9, 0.9, 0.9])
    assert slot_frames(bank)[:1] == [0]
    assert 1 not in slot_frames(bank), "of equal qualities, the oldest frame is evicted"


@pytest.mark.parametrize("threshold", [float("nan"), -0.1, 50])
def test_wrong_threshold_is_an_error(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"quality_threshold must be in \[0, 1\]"):
        QualityGated(quality_threshold=threshold)


@pytest.mark.parametrize("capacity", [0, 4])
@pytest.mark.parametrize("reference", ["annotation", "prediction"])
def test_a_decision_about_quality_may_come_with_the_next_frame(
    capacity: int, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, the quality is not known when the frame is written."""
    policy = QualityGated(2, 0.9, reference, mem_capacity=capacity)
    annotations, generator = (0, 9), torch.Generator().manual_seed(0)
    qualities = torch.rand(30, generator=generator).tolist()
    seen = []
    for is_complete in (True, False):
        monkeypatch.setattr(HostCopy, "is_complete", is_complete)
        bank = MemoryBank(capacity=capacity or None)
        views = []
        for t in range(30):
            if bank.slots:
                view = policy.view(bank, t)
                views.append((view.key.clone(), view.value.clone()))
            policy.write(bank, make_entry(t, quality=qualities[t]), t, t in annotations)
        seen.append(views)
        frames = [slot.frame_index for slot in bank.slots]
    assert 4 <= len(frames) < 15, "some frames are stored, others are not"
    for now, later in zip(*seen, strict=True):
        assert torch.equal(now[0], later[0])
        assert torch.equal(now[1], later[1])
