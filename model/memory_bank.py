"""The memory bank: preallocated slots for frames. What to keep: inference_memory_bank.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from model.features import MemoryEntry, MemoryView, Rows

# A bank starts with no more: a long video need not have all its memory from its first frame on.
_FIRST_SLOTS = 64


@dataclass(frozen=True)
class Slot:
    """What a bank knows of a frame in it."""

    frame_index: int
    is_annotation: bool = False
    number: int = 0  # frames stored before it, those gone since included
    quality: float = 1.0  # of its masks, beside those of an annotated frame (quality-gated)


class MemoryBank:
    """Slots for one group of objects that started together, preallocated.

    A slot is a frame: P rows of key and value for each of G sets of keys (1 where the objects share
    theirs, else one an object), so that reads gather contiguous rows. The latest slot may be
    temporary: the next write replaces it.

    Args:
        max_slots: slots that the video needs at most, where known. The bank starts with these, or
            a few, and doubles when it is full.
        capacity: slots that it may have at most; None for any number.
        centres_keys: keep keys relative to the mean of the first frame's. Distances stay as they
            are, and lose less of their precision the shorter the keys are.
        halves_values: keep float32 values in float16, which are less than 65504.
    """

    def __init__(
        self,
        max_slots: int | None = None,
        capacity: int | None = None,
        centres_keys: bool = False,
        halves_values: bool = False,
    ) -> None:
        self._limit = capacity
        self._centres_keys = centres_keys
        self._halves_values = halves_values
        self._centre: torch.Tensor | None = None  # (G, 1, CK)
        self._allocated = min(max(max_slots or 8, 1), _FIRST_SLOTS, capacity or _FIRST_SLOTS)
        self._keys: torch.Tensor | None = None  # (G, allocated, P, CK)
        self._values: torch.Tensor | None = None  # (G, allocated, P, C)
        self._has_temporary = False
        self._latest: Rows | None = None  # of the latest frame: key, and its detail as value
        self._num_written = 0
        self.slots: list[Slot] = []  # the temporary one comes last
        self.embedding: MemoryEntry | None = None  # all frames so far in one, where a policy has it
        self.reference_quality: float | None = None  # what qualities are relative to

    @property
    def num_slots(self) -> int:
        """Slots in use, the temporary one included."""
        return len(self.slots)

    @property
    def stored(self) -> Sequence[Slot]:
        """The slots that stay."""
        return self.slots[:-1] if self._has_temporary else self.slots

    @property
    def last_stored(self) -> int:
        """Frame index of the latest slot that stays."""
        return self.stored[-1].frame_index

    @property
    def num_rows(self) -> int:
        """P: rows of a slot."""
        assert self._keys is not None
        return self._keys.shape[2]

    @property
    def bytes_stored(self) -> int:
        """Bytes of the slots in use, and of what is kept beside them."""
        if self._keys is None or self._values is None:
            return 0
        slot = self._keys[:, 0].nbytes + self._values[:, 0].nbytes
        extra = [*self._latest] if self._latest else []
        extra += [self.embedding.key, self.embedding.value] if self.embedding else []
        return self.num_slots * slot + sum(tensor.nbytes for tensor in extra)

    def append(
        self,
        entry: MemoryEntry,
        frame_index: int,
        is_temporary: bool = False,
        is_annotation: bool = False,
        quality: float = 1.0,
    ) -> None:
        """Write a frame into the next slot, or over the temporary one.

        Keys are kept in float32, in which they are compared, so that no read converts them.
        """
        key, value = self.relative(entry.rows())
        if self._has_temporary:
            self.slots.pop()
        number = self.num_slots
        assert self._limit is None or number < self._limit, "the policy did not make room"
        if self._keys is None or self._values is None:
            self._keys = key.new_empty(len(key), self._allocated, *key.shape[1:])
            self._values = value.new_empty(len(value), self._allocated, *value.shape[1:])
        elif number == self._allocated:
            self._allocated = min(2 * self._allocated, self._limit or 2 * self._allocated)
            self._keys = _grow(self._keys, self._allocated)
            self._values = _grow(self._values, self._allocated)
        self._keys[:, number].copy_(key)
        self._values[:, number].copy_(value)
        latest = entry.latest_rows()
        self._latest = None if latest is None else self.relative(latest)
        self._has_temporary = is_temporary
        self.slots.append(Slot(frame_index, is_annotation, self._num_written, quality))
        self._num_written += not is_temporary

    def keep_objects(self, kept: Sequence[int], num_objects: int) -> None:
        """Forget all objects but those at some positions among `num_objects`."""

        def choose(value: torch.Tensor, has_own_keys: bool) -> torch.Tensor:
            if has_own_keys:  # (O, ..., CV)
                return value[[*kept]]
            return value.unflatten(-1, (num_objects, -1))[..., [*kept], :].flatten(-2)

        if self._keys is None or self._values is None:
            return
        has_own_keys = len(self._keys) == num_objects > 1
        self._values = choose(self._values, has_own_keys)
        if self._latest is not None:
            key, value = self._latest
            key = key[[*kept]] if has_own_keys else key
            self._latest = Rows(key, choose(value, has_own_keys))
        if has_own_keys:
            self._keys = self._keys[[*kept]]
            self._centre = None if self._centre is None else self._centre[[*kept]]
        if self.embedding is not None:
            value = self.embedding.value[:, [*kept]]
            self.embedding = MemoryEntry(self.embedding.key, value)

    def relative(self, rows: Rows) -> Rows:
        """Rows as the bank keeps them: keys in float32, relative to its centre."""
        key, value = rows.key.float(), rows.value
        if self._centres_keys and self._centre is None:
            self._centre = key.mean(1, keepdim=True)
        if self._halves_values and value.dtype == torch.float32:
            value = value.half()
        return Rows(key if self._centre is None else key - self._centre, value)

    def remove(self, slot: Slot) -> None:
        """Drop a slot that stays otherwise; the later ones move up."""
        assert self._keys is not None
        assert self._values is not None
        at, end = self.slots.index(slot), self.num_slots
        for tensor in (self._keys, self._values):
            tensor[:, at : end - 1] = tensor[:, at + 1 : end].clone()
        del self.slots[at]

    def view(self, at: Sequence[int] | None = None) -> MemoryView:
        """All slots, without a copy; or those at some positions, in their order."""
        assert self._keys is not None
        assert self._values is not None
        keys, values = self._keys[:, : self.num_slots], self._values[:, : self.num_slots]
        first = Rows(keys[:, 0], values[:, 0])
        if at is not None and len(at) < self.num_slots:
            index = torch.tensor([*at], device=keys.device)
            keys, values = keys[:, index], values[:, index]
        rows = keys.flatten(1, 2), values.flatten(1, 2)
        return MemoryView(*rows, first, self._latest, self._centre)


def _grow(slots: torch.Tensor, allocated: int) -> torch.Tensor:
    grown = slots.new_empty(len(slots), allocated, *slots.shape[2:])
    grown[:, : slots.shape[1]] = slots
    return grown
