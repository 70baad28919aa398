"""Memory frames whose numbers identify them, for tests of banks and policies."""

from __future__ import annotations

import torch

from inference_memory_bank import MemoryPolicy
from model.features import MemoryEntry, Rows
from model.memory_bank import MemoryBank

P, CK, CV = 6, 4, 10


def rows_of(frame_index: int) -> Rows:
    """Make key (1, P, CK) and value (1, P, CV) of a frame; all numbers differ."""
    base = 1000 * frame_index
    key = torch.arange(P * CK).view(1, P, CK) + base
    return Rows(key.float(), (torch.arange(P * CV).view(1, P, CV) + base + 500).float())


def make_entry(frame_index: int, quality: float = 1.0) -> MemoryEntry:
    """Make the same as a frame of 2x3 positions with one object."""
    key, value = (t.transpose(1, 2).unflatten(2, (2, 3)) for t in rows_of(frame_index))
    return MemoryEntry(key, value[:, None], quality=torch.tensor([[quality]]))


def slot_frames(bank: MemoryBank) -> list[int]:
    """List the frame indices of all slots."""
    return [slot.frame_index for slot in bank.slots]


def stored_frames(bank: MemoryBank) -> list[int]:
    """List the frames whose rows the bank contains, and check that the rows are complete."""
    key, value, *_ = bank.view()
    assert key.shape == (1, P * bank.num_slots, CK)
    assert value.shape == (1, P * bank.num_slots, CV)
    frames = [int(k[0, 0]) // 1000 for k in key[0].split(P)]
    assert torch.equal(key, torch.cat([rows_of(t)[0] for t in frames], 1))
    assert torch.equal(value, torch.cat([rows_of(t)[1] for t in frames], 1))
    return frames


def store_video(
    policy: MemoryPolicy, num_frames: int, annotations: tuple[int, ...] = (0,)
) -> tuple[MemoryBank, list[list[int]]]:
    """Store a video; return its bank, and for each frame the frames that its read uses."""
    bank = MemoryBank(policy.max_slots(num_frames))
    read = []
    for t in range(num_frames):
        read.append(stored_frames(bank) if bank.num_slots else [])
        is_annotation = t in annotations
        if is_annotation or policy.needs(bank, t):
            policy.write(bank, make_entry(t), t, is_annotation)
    return bank, read


def merge(embedding: MemoryEntry, new: MemoryEntry) -> MemoryEntry:
    """Replace the learned compressor by the mean of keys and the sum of values."""
    return MemoryEntry((embedding.key + new.key) / 2, embedding.value + new.value)
