"""The bank and its policies."""

from __future__ import annotations

import pytest
import torch

from inference_core import make_policy
from inference_memory_bank import EveryN, MemoryBank, SamCompression
from model.features import MemoryEntry
from model.methods import build_network
from model.network import NetworkSpec
from util.hyper_para import EvalSettings
from util.parse_settings import of_method

P, CK, CV = 6, 4, 10


def rows(frame_index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A frame's key (1, P, CK) and value (1, P, CV), each number its own."""
    base = 1000 * frame_index
    key = torch.arange(P * CK).view(1, P, CK) + base
    return key.float(), (torch.arange(P * CV).view(1, P, CV) + base + 500).float()


def entry(frame_index: int) -> MemoryEntry:
    """The same, as a frame of 2x3 positions and one object."""
    key, value = (t.transpose(1, 2).unflatten(2, (2, 3)) for t in rows(frame_index))
    return MemoryEntry(key, value[:, None])


def contents(bank: MemoryBank) -> list[int]:
    """Frame indices by what the rows hold, checked to be whole."""
    key, value = bank.view()
    assert key.shape == (1, P * bank.num_slots, CK)
    assert value.shape == (1, P * bank.num_slots, CV)
    frames = [int(k[0, 0]) // 1000 for k in key[0].split(P)]
    assert torch.equal(key, torch.cat([rows(t)[0] for t in frames], 1))
    assert torch.equal(value, torch.cat([rows(t)[1] for t in frames], 1))
    return frames


def pointers(bank: MemoryBank) -> tuple[int, int]:
    key, value = bank.view()
    return key.data_ptr(), value.data_ptr()


# --- the bank


def test_a_bank_is_allocated_once_for_its_capacity() -> None:
    bank = MemoryBank(max_slots=5)
    assert bank.bytes_stored == 0
    bank.append(*rows(0), 0)
    first = pointers(bank)
    for t in range(1, 5):
        bank.append(*rows(t), t)
        assert pointers(bank) == first
        assert bank.bytes_stored == (t + 1) * P * (CK + CV) * 4
    assert contents(bank) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("max_slots", [1, 3, None])
def test_a_bank_grows_beyond_its_capacity(max_slots: int | None) -> None:
    bank = MemoryBank(max_slots)
    seen = set()
    for t in range(20):
        bank.append(*rows(t), t)
        seen.add(pointers(bank))
        assert contents(bank) == [*range(t + 1)]
    assert bank.frame_indices == [*range(20)]
    assert len(seen) <= 6  # it doubles; it does not grow slot by slot


def test_a_view_is_no_copy() -> None:
    bank = MemoryBank(4)
    bank.append(*rows(0), 0)
    bank.append(*rows(1), 1)
    early = bank.view()
    assert early.key.is_contiguous()
    assert early.value.is_contiguous()
    bank.append(*rows(2), 2)
    assert bank.view().key.data_ptr() == early.key.data_ptr()
    early.key[0, 0, 0] = -1
    assert bank.view().key[0, 0, 0] == -1


def test_the_bank_keeps_its_own_copy_keys_in_float32_values_as_they_come() -> None:
    bank = MemoryBank()
    key, value = (t.bfloat16() for t in rows(0))
    bank.append(key, value, 0)
    key.zero_()
    view = bank.view()
    assert view.key.dtype == torch.float32
    assert view.value.dtype == torch.bfloat16
    assert view.key.sum() > 0
    assert bank.bytes_stored == P * (CK * 4 + CV * 2)


def test_a_temporary_slot_is_replaced() -> None:
    bank = MemoryBank(max_slots=3)
    bank.append(*rows(0), 0)
    first = pointers(bank)
    for t in (1, 2):
        bank.append(*rows(t), t, is_temporary=True)
        assert contents(bank) == [0, t]
        assert bank.last_stored == 0
    bank.append(*rows(3), 3)
    assert contents(bank) == bank.frame_indices == [0, 3]
    assert bank.last_stored == 3
    bank.append(*rows(4), 4, is_temporary=True)
    assert contents(bank) == [0, 3, 4]
    assert bank.last_stored == 3
    assert pointers(bank) == first
    bank.append(*rows(5), 5)
    bank.append(*rows(6), 6)
    assert contents(bank) == [0, 3, 5, 6]  # grown, without what was temporary


# --- every n


def remember(
    policy: EveryN, num_frames: int, annotations: tuple[int, ...] = (0,)
) -> tuple[MemoryBank, list[list[int]]]:
    """The bank after a video, and the frames that each frame's read saw."""
    bank = MemoryBank(policy.max_slots(num_frames))
    seen = []
    for t in range(num_frames):
        seen.append(contents(bank) if bank.num_slots else [])
        is_annotation = t in annotations
        if is_annotation or policy.needs(bank, t):
            policy.write(bank, entry(t), t, is_annotation)
    return bank, seen


@pytest.mark.parametrize(
    ("mem_every", "annotations", "stored"),
    [
        (1, (0,), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (3, (0,), [0, 3, 6, 9]),
        (5, (0,), [0, 5, 10]),
        (100, (0,), [0]),
        (1, (0, 4), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (3, (0, 4), [0, 3, 4, 7, 10]),  # counted from the last stored, the annotation too
        (5, (0, 4), [0, 4, 9]),
        (5, (0, 5), [0, 5, 10]),
    ],
)
@pytest.mark.parametrize("include_last", [False, True])
def test_which_frames_are_stored(
    mem_every: int, annotations: tuple[int, ...], stored: list[int], include_last: bool
) -> None:
    policy = EveryN(mem_every, include_last)
    bank, seen = remember(policy, 12, annotations)
    temporary = [11] if include_last and stored[-1] != 11 else []
    assert contents(bank) == bank.frame_indices == stored + temporary
    assert bank.last_stored == stored[-1]
    assert contents(bank)[0] == 0  # the first annotation stays
    for t in range(1, 12):
        expected = [s for s in stored if s < t]
        if include_last and t - 1 not in expected:
            expected.append(t - 1)
        assert seen[t] == expected, t


@pytest.mark.parametrize("mem_every", [1, 3, 5])
@pytest.mark.parametrize("include_last", [False, True])
def test_needs_says_whether_write_would_do_anything(mem_every: int, include_last: bool) -> None:
    policy = EveryN(mem_every, include_last)
    bank = MemoryBank()
    policy.write(bank, entry(0), 0, is_annotation=True)
    answers = set()
    for t in range(1, 12):
        is_needed = policy.needs(bank, t)
        before = contents(bank)
        policy.write(bank, entry(t), t)
        assert (contents(bank) != before) == is_needed
        answers.add(is_needed)
    assert answers == ({True} if include_last or mem_every == 1 else {True, False})


@pytest.mark.parametrize("include_last", [False, True])
@pytest.mark.parametrize("mem_every", [1, 2, 3, 5, 7, 50])
def test_max_slots_is_a_tight_upper_bound(mem_every: int, include_last: bool) -> None:
    policy = EveryN(mem_every, include_last)
    for num_frames in range(1, 30):
        bank = MemoryBank()
        policy.write(bank, entry(0), 0, is_annotation=True)
        most = 1
        for t in range(1, num_frames):
            policy.write(bank, entry(t), t)
            most = max(most, bank.num_slots)
        assert most <= policy.max_slots(num_frames) <= most + 1


# --- SAM compression


def join(embedding: MemoryEntry, new: MemoryEntry) -> MemoryEntry:
    """Stands in for the learned one: the mean of keys, the sum of values."""
    return MemoryEntry((embedding.key + new.key) / 2, embedding.value + new.value)


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
def test_what_each_mode_reads(mode: str, early: list[int], late: list[int | str]) -> None:
    """Before the first update, and after frames 3 and 6."""
    embedding = join(join(entry(0), entry(3)), entry(6)).rows()
    policy, bank = SamCompression(join, mode, mem_every=3), MemoryBank()
    for t in range(8):
        if t == 0 or policy.needs(bank, t):
            policy.write(bank, entry(t), t, is_annotation=t == 0)
        if t in (2, 7):
            expected = [embedding if f == "E" else rows(int(f)) for f in (early, late)[t > 2]]
            view = policy.view(bank)
            assert torch.equal(view.key, torch.cat([key for key, _ in expected], 1))
            assert torch.equal(view.value, torch.cat([value for _, value in expected], 1))
    assert bank.num_slots <= policy.max_slots(8)
    if mode != "stm":
        assert bank.num_slots <= 2


def test_what_sam_remembers_is_of_constant_size() -> None:
    policy, bank = SamCompression(join), MemoryBank(2)
    sizes = []
    for t in range(0, 300, 3):
        policy.write(bank, entry(t), t, is_annotation=t in (0, 30))
        sizes.append(bank.bytes_stored)
    assert len({*sizes[1:]}) == 1
    assert bank.frame_indices == [0, 297]


def test_policies_that_are_none() -> None:
    with pytest.raises(ValueError, match="There is no mode 'all': choose from stm, two-frames"):
        SamCompression(join, "all")
    for make in (lambda: SamCompression(join, "gt", 0), lambda: EveryN(0)):
        with pytest.raises(ValueError, match="mem_every must be at least 1"):
            make()


def test_the_method_decides_the_policy() -> None:
    def policy(method: str, **asked: object) -> object:
        network = build_network(NetworkSpec(method, "tiny"))
        return make_policy(network, of_method(EvalSettings(**asked), method))  # type: ignore[arg-type]

    assert policy("stcn") == EveryN(5)
    assert policy("gsfm", mem_every=2, include_last=True) == EveryN(2, include_last=True)
    sam = policy("rde")
    assert isinstance(sam, SamCompression)
    assert (sam.mode, sam.mem_every) == ("two-frames-compress", 3)
    assert policy("rde", mode="gt").mode == "gt"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="--mode does nothing with stcn: it belongs to rde"):
        policy("stcn", mode="gt")
    with pytest.raises(ValueError, match="--include_last does nothing with rde, whose --mode"):
        policy("rde", include_last=True)
