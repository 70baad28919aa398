"""Memory policies: which frames EveryN, SamCompression and IsogenousSampling store and read."""

from __future__ import annotations

import pytest
import torch

from inference_memory_bank import EveryN, IsogenousSampling, SamCompression
from model.memory_bank import MemoryBank
from tests.memory_frames import (
    P,
    make_entry,
    merge,
    rows_of,
    slot_frames,
    store_video,
    stored_frames,
)


@pytest.mark.parametrize(
    ("mem_every", "annotations", "stored"),
    [
        (1, (0,), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (3, (0,), [0, 3, 6, 9]),
        (5, (0,), [0, 5, 10]),
        (100, (0,), [0]),
        (1, (0, 4), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (3, (0, 4), [0, 3, 4, 7, 10]),  # the interval starts at any stored frame
        (5, (0, 4), [0, 4, 9]),
        (5, (0, 5), [0, 5, 10]),
    ],
)
@pytest.mark.parametrize("include_last", [False, True])
def test_stored_frames(
    mem_every: int, annotations: tuple[int, ...], stored: list[int], include_last: bool
) -> None:
    policy = EveryN(mem_every, include_last)
    bank, read = store_video(policy, 12, annotations)
    temporary = [11] if include_last and stored[-1] != 11 else []
    assert stored_frames(bank) == slot_frames(bank) == stored + temporary
    assert bank.last_stored == stored[-1]
    assert stored_frames(bank)[0] == 0  # the first annotation stays
    for t in range(1, 12):
        expected = [s for s in stored if s < t]
        if include_last and t - 1 not in expected:
            expected.append(t - 1)
        assert read[t] == expected, t


@pytest.mark.parametrize("mem_every", [1, 3, 5])
@pytest.mark.parametrize("include_last", [False, True])
def test_needs_predicts_whether_write_changes_the_bank(mem_every: int, include_last: bool) -> None:
    policy = EveryN(mem_every, include_last)
    bank = MemoryBank()
    policy.write(bank, make_entry(0), 0, is_annotation=True)
    needed = set()
    for t in range(1, 12):
        is_needed = policy.needs(bank, t)
        before = stored_frames(bank)
        policy.write(bank, make_entry(t), t)
        assert (stored_frames(bank) != before) == is_needed
        needed.add(is_needed)
    assert needed == ({True} if include_last or mem_every == 1 else {True, False})


@pytest.mark.parametrize("include_last", [False, True])
@pytest.mark.parametrize("mem_every", [1, 2, 3, 5, 7, 50])
def test_max_slots_is_a_tight_upper_bound(mem_every: int, include_last: bool) -> None:
    policy = EveryN(mem_every, include_last)
    for num_frames in range(1, 30):
        bank = MemoryBank()
        policy.write(bank, make_entry(0), 0, is_annotation=True)
        most = 1
        for t in range(1, num_frames):
            policy.write(bank, make_entry(t), t)
            most = max(most, bank.num_slots)
        assert most <= policy.max_slots(num_frames) <= most + 1


@pytest.mark.parametrize(
    ("mode", "early", "late"),
    [
        ("stm", [0], [0, 3, 6]),
        ("two-frames", [0], [6, 0, 0]),
        ("gt", [0], [0]),
        ("last", [0], [6]),
        ("compress", [0], ["E"]),
        ("gt-compress", [0, 0], ["E", 0]),
        ("last-compress", [0], ["E", 6]),
        ("two-frames-compress", [0, 0], ["E", 6, 0, 0]),
    ],
)
def test_frames_that_each_mode_reads(mode: str, early: list[int], late: list[int | str]) -> None:
    """Before the first update, and after frames 3 and 6; "E" is the embedding."""
    embedding = merge(merge(make_entry(0), make_entry(3)), make_entry(6)).rows()
    policy, bank = SamCompression(3, mode, merge), MemoryBank()
    for t in range(8):
        if t == 0 or policy.needs(bank, t):
            policy.write(bank, make_entry(t), t, is_annotation=t == 0)
        if t in (2, 7):
            expected = [embedding if f == "E" else rows_of(int(f)) for f in (early, late)[t > 2]]
            view = policy.view(bank, t)
            assert torch.equal(view.key, torch.cat([key for key, _ in expected], 1))
            assert torch.equal(view.value, torch.cat([value for _, value in expected], 1))
    assert bank.num_slots <= policy.max_slots(8)
    if mode != "stm":
        assert bank.num_slots <= 2


def test_sam_memory_has_constant_size() -> None:
    policy, bank = SamCompression(compressor=merge), MemoryBank(2)
    sizes = []
    for t in range(0, 300, 3):
        policy.write(bank, make_entry(t), t, is_annotation=t in (0, 30))
        sizes.append(bank.bytes_stored)
    assert len({*sizes[1:]}) == 1
    assert slot_frames(bank) == [0, 297]


def test_wrong_parameters_are_errors() -> None:
    with pytest.raises(ValueError, match="There is no mode 'all': choose from stm, two-frames"):
        SamCompression(mode="all", compressor=merge)
    for make in (lambda: SamCompression(0, "gt"), lambda: EveryN(0)):
        with pytest.raises(ValueError, match="mem_every must be at least 1"):
            make()


def test_sample_is_random_and_includes_the_frames_to_keep() -> None:
    policy = IsogenousSampling(1, sample_from=10, sample_share=0.3, sample_keep="1,-3:")
    bank = MemoryBank()
    counts = dict.fromkeys(range(30), 0)
    for t in range(30):
        policy.write(bank, make_entry(t), t, t == 0)
        assert (policy.view(bank, t).key.shape[1] == bank.num_slots * P) == (t < 10)
    for t in range(200):
        view = policy.view(bank, t)
        sampled = [int(k[0, 0]) // 1000 for k in view.key[0].split(P)]
        assert sampled == sorted({*sampled})
        assert {1, 27, 28, 29} <= {*sampled}
        assert 9 <= len(sampled) <= 13
        assert torch.equal(view.value, torch.cat([rows_of(i)[1] for i in sampled], 1))
        for i in sampled:
            counts[i] += 1
    others = [n for i, n in counts.items() if i not in (1, 27, 28, 29)]
    assert 30 < min(others) < max(others) < 95  # each in about 30 % of 200 reads


def test_sampling_is_seeded_and_does_not_change_the_bank() -> None:
    def reads(seed: int) -> list[torch.Tensor]:
        policy, bank = IsogenousSampling(1, sample_seed=seed), MemoryBank()
        keys = []
        for t in range(20):
            policy.write(bank, make_entry(t), t, t == 0)
            keys.append(policy.view(bank, t).key)
        assert bank.num_slots == 20
        torch.rand(3)  # other draws have no effect
        return keys

    pairs = zip(reads(0), reads(0), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    pairs = zip(reads(0), reads(1), strict=True)
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("keep", ["", "x", "1,", "1:2:3", "0.5"])
def test_wrong_samples_are_errors(keep: str) -> None:
    with pytest.raises(ValueError, match="not an index or slice: give for example 1 or 0:2"):
        IsogenousSampling(sample_keep=keep)
    with pytest.raises(ValueError, match=r"sample_share must be in \(0, 1\]"):
        IsogenousSampling(sample_share=0)
    with pytest.raises(ValueError, match="sample_from and sample_seed must be 0 or more"):
        IsogenousSampling(sample_from=-1)
