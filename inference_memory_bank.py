"""The memory bank (how to store and read) and its update policies (what to keep)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

# A bank starts with no more: a long video need not have all its memory from its first frame on.
_FIRST_SLOTS = 64


class MemoryView(NamedTuple):
    """What one read sees: rows of slots, oldest first."""

    key: torch.Tensor  # (1, N, CK)
    value: torch.Tensor  # (1, N, O*CV)


class MemoryBank:
    """Slots for one group of objects that share their keys, preallocated.

    A slot is a frame: P rows of key and value, so that reads gather contiguous rows. The latest
    slot may be temporary: the next write replaces it.

    Args:
        max_slots: slots that the video needs at most, where known. The bank starts with these, or
            a few, and doubles when it is full.
    """

    def __init__(self, max_slots: int | None = None) -> None:
        self._capacity = min(max(max_slots or 8, 1), _FIRST_SLOTS)
        self._keys: torch.Tensor | None = None  # (capacity, P, CK)
        self._values: torch.Tensor | None = None  # (capacity, P, O*CV)
        self._has_temporary = False
        self.frame_indices: list[int] = []  # of the slots; the temporary one comes last

    @property
    def num_slots(self) -> int:
        """Slots in use, the temporary one included."""
        return len(self.frame_indices)

    @property
    def last_stored(self) -> int:
        """Frame index of the latest slot that stays."""
        return self.frame_indices[-2 if self._has_temporary else -1]

    @property
    def bytes_stored(self) -> int:
        """Bytes of the slots in use."""
        if self._keys is None or self._values is None:
            return 0
        row = self._keys[0].nbytes + self._values[0].nbytes
        return self.num_slots * row

    def append(
        self, key: torch.Tensor, value: torch.Tensor, frame_index: int, is_temporary: bool = False
    ) -> None:
        """Write a frame's rows, key (1, P, CK) and value (1, P, O*CV), into the next slot.

        Keys are kept in float32, in which they are compared, so that no read converts them.
        """
        key = key.float()
        if self._has_temporary:
            self.frame_indices.pop()
        slot = self.num_slots
        if self._keys is None or self._values is None:
            self._keys = key.new_empty(self._capacity, *key.shape[1:])
            self._values = value.new_empty(self._capacity, *value.shape[1:])
        elif slot == self._capacity:
            self._capacity *= 2
            self._keys = _grow(self._keys, self._capacity)
            self._values = _grow(self._values, self._capacity)
        self._keys[slot].copy_(key[0])
        self._values[slot].copy_(value[0])
        self.frame_indices.append(frame_index)
        self._has_temporary = is_temporary

    def view(self) -> MemoryView:
        """All slots; no copy."""
        assert self._keys is not None
        assert self._values is not None
        keys, values = self._keys[: self.num_slots], self._values[: self.num_slots]
        return MemoryView(keys.flatten(0, 1)[None], values.flatten(0, 1)[None])


def _grow(slots: torch.Tensor, capacity: int) -> torch.Tensor:
    grown = slots.new_empty(capacity, *slots.shape[1:])
    grown[: slots.shape[0]] = slots
    return grown


class MemoryPolicy(Protocol):
    """What is kept of a video. It knows nothing of data sets, and the first annotation stays."""

    def needs(self, bank: MemoryBank, frame_index: int) -> bool:
        """Whether `write` would do anything with this frame: if not, it need not be encoded."""

    def write(
        self,
        bank: MemoryBank,
        key: torch.Tensor,
        value: torch.Tensor,
        frame_index: int,
        is_annotation: bool = False,
    ) -> None:
        """Keep, replace, or leave out a frame: key (1, P, CK), value (1, P, O*CV)."""

    def view(self, bank: MemoryBank) -> MemoryView:
        """What a read sees."""

    def max_slots(self, num_frames: int) -> int:
        """Slots that a video of this length fills at most, if its objects start together."""


@dataclass(frozen=True)
class EveryN:
    """Every n-th frame after the last stored one, as STM and STCN do; annotations always.

    Args:
        mem_every: n.
        include_last: the latest frame is read too, as a temporary slot.
    """

    mem_every: int = 5
    include_last: bool = False

    def __post_init__(self) -> None:
        if self.mem_every < 1:
            raise ValueError(f"mem_every must be at least 1; it is {self.mem_every}.")

    def needs(self, bank: MemoryBank, frame_index: int) -> bool:
        """See MemoryPolicy."""
        return self.include_last or self._is_memory_frame(bank, frame_index)

    def write(
        self,
        bank: MemoryBank,
        key: torch.Tensor,
        value: torch.Tensor,
        frame_index: int,
        is_annotation: bool = False,
    ) -> None:
        """See MemoryPolicy."""
        if is_annotation or self._is_memory_frame(bank, frame_index):
            bank.append(key, value, frame_index)
        elif self.include_last:
            bank.append(key, value, frame_index, is_temporary=True)

    def view(self, bank: MemoryBank) -> MemoryView:
        """See MemoryPolicy."""
        return bank.view()

    def max_slots(self, num_frames: int) -> int:
        """See MemoryPolicy."""
        return 1 + (num_frames - 1) // self.mem_every + self.include_last

    def _is_memory_frame(self, bank: MemoryBank, frame_index: int) -> bool:
        return frame_index - bank.last_stored >= self.mem_every
