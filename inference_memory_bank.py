"""The memory bank (how to store and read) and its update policies (what to keep)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from model.encoders import MemoryEntry

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
        self.embedding: MemoryEntry | None = None  # all frames so far in one, where a policy has it
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
        extra = self.embedding.key.nbytes + self.embedding.value.nbytes if self.embedding else 0
        return self.num_slots * row + extra

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
        entry: MemoryEntry,
        frame_index: int,
        is_annotation: bool = False,
    ) -> None:
        """Keep, replace, compress, or leave out a frame."""

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
        entry: MemoryEntry,
        frame_index: int,
        is_annotation: bool = False,
    ) -> None:
        """See MemoryPolicy."""
        if is_annotation or self._is_memory_frame(bank, frame_index):
            bank.append(*entry.rows(), frame_index)
        elif self.include_last:
            bank.append(*entry.rows(), frame_index, is_temporary=True)

    def view(self, bank: MemoryBank) -> MemoryView:
        """See MemoryPolicy."""
        return bank.view()

    def max_slots(self, num_frames: int) -> int:
        """See MemoryPolicy."""
        return 1 + (num_frames - 1) // self.mem_every + self.include_last

    def _is_memory_frame(self, bank: MemoryBank, frame_index: int) -> bool:
        return frame_index - bank.last_stored >= self.mem_every


# What RDE can read: the embedding of all frames so far, the latest memory frame, the first one.
SAM_MODES = (
    "stm", "two-frames", "gt", "last", "compress", "gt-compress", "last-compress",
    "two-frames-compress",
)  # fmt: skip


@dataclass(frozen=True)
class SamCompression:
    """Every n-th frame goes into one embedding of constant size (RDE, CVPR 2022, section 3.2).

    Args:
        compressor: [embedding so far, new frame] -> embedding.
        mode: what a read sees; "stm" alone grows with the video. The first frame counts twice in
            "two-frames" and "two-frames-compress".
        mem_every: n.
    """

    compressor: Callable[[MemoryEntry, MemoryEntry], MemoryEntry]
    mode: str = "two-frames-compress"
    mem_every: int = 3

    def __post_init__(self) -> None:
        if self.mode not in SAM_MODES:
            raise ValueError(f"There is no mode {self.mode!r}: choose from {', '.join(SAM_MODES)}.")
        if self.mem_every < 1:
            raise ValueError(f"mem_every must be at least 1; it is {self.mem_every}.")

    def needs(self, bank: MemoryBank, frame_index: int) -> bool:
        """See MemoryPolicy."""
        return self.mode != "gt" and frame_index - bank.frame_indices[-1] >= self.mem_every

    def write(
        self,
        bank: MemoryBank,
        entry: MemoryEntry,
        frame_index: int,
        is_annotation: bool = False,
    ) -> None:
        """See MemoryPolicy."""
        is_first = not bank.frame_indices
        if not (is_annotation or self.needs(bank, frame_index)):
            return
        is_temporary = not is_first and self.mode != "stm"  # the latest frame takes its turn
        bank.append(*entry.rows(), frame_index, is_temporary)
        if self.mode.endswith("compress"):
            before = bank.embedding
            bank.embedding = entry if before is None else self.compressor(before, entry)

    def view(self, bank: MemoryBank) -> MemoryView:
        """See MemoryPolicy."""
        slots = bank.view()
        if self.mode == "stm":
            return slots
        rows = slots.key.shape[1] // bank.num_slots
        first, latest = (
            MemoryView(slots.key[:, part], slots.value[:, part])
            for part in (slice(rows), slice(-rows, None))
        )
        is_updated = bank.num_slots > 1
        embedding = first
        if bank.embedding is not None:
            key, value = bank.embedding.rows()
            embedding = MemoryView(key.float(), value)
        read = {
            "two-frames": [latest, first, first] if is_updated else [first],
            "gt": [first],
            "last": [latest],
            "compress": [embedding],
            "gt-compress": [embedding, first],
            "last-compress": [embedding, latest] if is_updated else [first],
            "two-frames-compress": [embedding, latest, first, first] if is_updated else [first] * 2,
        }[self.mode]
        return MemoryView(
            torch.cat([v.key for v in read], 1), torch.cat([v.value for v in read], 1)
        )

    def max_slots(self, num_frames: int) -> int:
        """See MemoryPolicy."""
        return 1 + (num_frames - 1) // self.mem_every if self.mode == "stm" else 2
