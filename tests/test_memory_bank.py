"""The memory bank: slots, growth, and how keys and values are stored."""

from __future__ import annotations

import pytest
import torch

from model.features import MemoryEntry
from model.matching import l2_similarity
from model.memory_bank import MemoryBank
from tests.memory_frames import CK, CV, P, make_entry, rows_of, slot_frames, stored_frames


def pointers(bank: MemoryBank) -> tuple[int, int]:
    key, value, *_ = bank.view()
    return key.data_ptr(), value.data_ptr()


def test_bank_with_max_slots_is_allocated_once() -> None:
    bank = MemoryBank(max_slots=5)
    assert bank.bytes_stored == 0
    bank.append(make_entry(0), 0)
    first = pointers(bank)
    for t in range(1, 5):
        bank.append(make_entry(t), t)
        assert pointers(bank) == first
        assert bank.bytes_stored == (t + 1) * P * (CK + CV) * 4
    assert stored_frames(bank) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("max_slots", [1, 3, None])
def test_bank_grows_beyond_max_slots(max_slots: int | None) -> None:
    bank = MemoryBank(max_slots)
    addresses = set()
    for t in range(20):
        bank.append(make_entry(t), t)
        addresses.add(pointers(bank))
        assert stored_frames(bank) == [*range(t + 1)]
    assert slot_frames(bank) == [*range(20)]
    assert len(addresses) <= 6  # its size doubles


def test_view_is_not_a_copy() -> None:
    bank = MemoryBank(4)
    bank.append(make_entry(0), 0)
    bank.append(make_entry(1), 1)
    early = bank.view()
    assert early.key.is_contiguous()
    assert early.value.is_contiguous()
    bank.append(make_entry(2), 2)
    assert bank.view().key.data_ptr() == early.key.data_ptr()
    early.key[0, 0, 0] = -1
    assert bank.view().key[0, 0, 0] == -1


def test_bank_copies_keys_as_float32_and_values_in_their_type() -> None:
    bank = MemoryBank()
    half = make_entry(0)
    half.key, half.value = half.key.bfloat16(), half.value.bfloat16()
    bank.append(half, 0)
    half.key.zero_()
    view = bank.view()
    assert view.key.dtype == torch.float32
    assert view.value.dtype == torch.bfloat16
    assert view.key.sum() > 0
    assert bank.bytes_stored == P * (CK * 4 + CV * 2)


def test_temporary_slot_is_replaced() -> None:
    bank = MemoryBank(max_slots=3)
    bank.append(make_entry(0), 0)
    first = pointers(bank)
    for t in (1, 2):
        bank.append(make_entry(t), t, is_temporary=True)
        assert stored_frames(bank) == [0, t]
        assert bank.last_stored == 0
    bank.append(make_entry(3), 3)
    assert stored_frames(bank) == slot_frames(bank) == [0, 3]
    assert bank.last_stored == 3
    bank.append(make_entry(4), 4, is_temporary=True)
    assert stored_frames(bank) == [0, 3, 4]
    assert bank.last_stored == 3
    assert pointers(bank) == first
    bank.append(make_entry(5), 5)
    bank.append(make_entry(6), 6)
    assert stored_frames(bank) == [0, 3, 5, 6]  # the bank has grown, without the temporary frame


def test_bank_with_own_keys_of_each_object() -> None:
    bank = MemoryBank(2)
    for t in range(5):
        a, b = make_entry(t), make_entry(t + 100)
        bank.append(
            MemoryEntry(torch.stack([a.key, b.key], 1), torch.cat([a.value, b.value], 1)), t
        )
    view = bank.view()
    assert view.key.shape == (2, 5 * P, CK)
    assert view.value.shape == (2, 5 * P, CV)
    for row, start in ((0, 0), (1, 100)):
        assert torch.equal(view.key[row], torch.cat([rows_of(start + t)[0][0] for t in range(5)]))
        assert torch.equal(view.value[row], torch.cat([rows_of(start + t)[1][0] for t in range(5)]))
    part = bank.view([1, 4])
    assert torch.equal(part.key[1], torch.cat([rows_of(101)[0][0], rows_of(104)[0][0]]))
    assert part.first is not None
    assert torch.equal(part.first.key[1], rows_of(100)[0][0])


def test_centred_keys_have_equal_distances_and_smaller_errors() -> None:
    generator = torch.Generator().manual_seed(0)
    offset = 30 * torch.randn(1, 64, 1, 1, generator=generator)  # common to all keys
    bank, plain = MemoryBank(centre_keys=True), MemoryBank()
    for t in range(3):
        key = offset + torch.randn(1, 64, 2, 3, generator=generator)
        frame = MemoryEntry(key, torch.randn(1, 1, 4, 2, 3, generator=generator))
        bank.append(frame, t)
        plain.append(frame, t)
    query = (offset + torch.randn(1, 64, 2, 3, generator=generator)).flatten(2).transpose(1, 2)
    view, other = bank.view(), plain.view()
    assert view.centre is not None
    assert other.centre is None
    distances = (query.double()[:, :, None] - other.key.double()[:, None]).square().sum(-1)
    exact = torch.softmax(-distances / 8, -1)
    errors = [
        (torch.softmax(similarities, -1) - exact).abs().max().item()
        for similarities in (
            l2_similarity(other.key, query),
            l2_similarity(view.key, query - view.centre),
        )
    ]
    assert errors[1] < 1e-5
    assert errors[1] < errors[0] / 3
