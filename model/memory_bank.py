"""The memory bank, which stores memory frames. inference_memory_bank.py selects them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from model.features import MemoryEntry, MemoryView, Rows
from util.devices import HostCopy, to_device

# Most slots allocated at the first frame, so that long videos do not start with all their memory.
_FIRST_SLOTS = 64


@dataclass(frozen=True)
class Slot:
    """Metadata of one stored frame."""

    frame_index: int
    is_annotation: bool = False
    number: int = 0  # number of frames stored before it, evicted ones included
    quality: float = 1.0  # quality of its masks relative to the reference (QualityGated)


class MemoryBank:
    """Preallocated slots for one group of objects that started on the same frame.

    A slot is one memory frame: P rows of key and value for each of G key sets (1 if the objects
    share keys, else one per object), so that reads gather contiguous rows. The latest slot may be
    temporary: the next write replaces it.

    Args:
        max_slots: most slots that the video needs, if known. The bank allocates at most this
            number, limited to 64, and doubles when it is full.
        capacity: maximum number of slots; None for no limit.
        centre_keys: subtract the mean key of the first frame from all keys. Distances do not
            change, and their rounding errors are smaller for shorter keys.
        half_values: store float32 values as float16, whose largest value is 65504.
    """

    def __init__(
        self,
        max_slots: int | None = None,
        capacity: int | None = None,
        centre_keys: bool = False,
        half_values: bool = False,
    ) -> None:
        self._limit = capacity
        self._centre_keys = centre_keys
        self._half_values = half_values
        self._centre: torch.Tensor | None = None  # (G, 1, CK)
        self._allocated = min(max(max_slots or 8, 1), _FIRST_SLOTS, capacity or _FIRST_SLOTS)
        self._keys: torch.Tensor | None = None  # (G, allocated, P, CK)
        self._values: torch.Tensor | None = None  # (G, allocated, P, C)
        self._has_temporary = False
        self._latest: Rows | None = None  # key and detail of the latest frame
        self._num_written = 0
        self.slots: list[Slot] = []  # oldest first; a temporary slot is the last one
        self.embedding: MemoryEntry | None = None  # of all frames so far (SamCompression)
        self.reference_quality: float | None = None  # see QualityGated
        # Quality (O,) of the temporary slot, and whether it must be stored (QualityGated).
        self.undecided: tuple[HostCopy, bool] | None = None

    @property
    def num_slots(self) -> int:
        """Number of slots in use, the temporary one included."""
        return len(self.slots)

    @property
    def stored(self) -> Sequence[Slot]:
        """All slots but the temporary one."""
        return self.slots[:-1] if self._has_temporary else self.slots

    @property
    def last_stored(self) -> int:
        """Frame index of the latest slot that is not temporary."""
        return self.stored[-1].frame_index

    @property
    def num_rows(self) -> int:
        """P, the number of rows of a slot."""
        assert self._keys is not None
        return self._keys.shape[2]

    @property
    def bytes_stored(self) -> int:
        """Bytes of the slots in use, the embedding and the detail."""
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
        """Store a memory frame in the next slot, or replace the temporary one.

        Keys are stored in float32, the type of similarities, so that reads do not convert them.
        """
        key, value = self.prepare_rows(entry.rows())
        if self._has_temporary:
            self.slots.pop()
        number = self.num_slots
        assert self._limit is None or number < self._limit, "the policy must evict a slot first"
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
        self._latest = None if latest is None else self.prepare_rows(latest)
        self._has_temporary = is_temporary
        self.slots.append(Slot(frame_index, is_annotation, self._num_written, quality))
        self._num_written += not is_temporary

    def keep_temporary(self, quality: float) -> None:
        """Store the temporary slot permanently."""
        assert self._has_temporary
        self.slots[-1] = replace(self.slots[-1], quality=quality)
        self._has_temporary = False
        self._num_written += 1

    def keep_objects(self, kept: Sequence[int], num_objects: int) -> None:
        """Remove all objects except some.

        Args:
            kept: positions of the objects to keep.
            num_objects: current number of objects.
        """

        def select(value: torch.Tensor, has_own_keys: bool) -> torch.Tensor:
            if has_own_keys:  # (O, ..., CV)
                return value[[*kept]]
            # (1, ..., O*CV) -> (1, ..., O, CV) -> (1, ..., kept*CV)
            return value.unflatten(-1, (num_objects, -1))[..., [*kept], :].flatten(-2)

        if self._keys is None or self._values is None:
            return
        has_own_keys = len(self._keys) == num_objects > 1
        self._values = select(self._values, has_own_keys)
        if self._latest is not None:
            key, value = self._latest
            key = key[[*kept]] if has_own_keys else key
            self._latest = Rows(key, select(value, has_own_keys))
        if has_own_keys:
            self._keys = self._keys[[*kept]]
            self._centre = None if self._centre is None else self._centre[[*kept]]
        if self.embedding is not None:
            value = self.embedding.value[:, [*kept]]
            self.embedding = MemoryEntry(self.embedding.key, value)

    def prepare_rows(self, rows: Rows) -> Rows:
        """Convert rows as the bank stores them: float32 keys minus the centre, maybe half values.

        The first call sets the centre.
        """
        key, value = rows.key.float(), rows.value
        if self._centre_keys and self._centre is None:
            self._centre = key.mean(1, keepdim=True)  # (G, 1, CK)
        if self._half_values and value.dtype == torch.float32:
            value = value.half()
        return Rows(key if self._centre is None else key - self._centre, value)

    def remove(self, slot: Slot) -> None:
        """Remove a slot that is not temporary; later slots move forward."""
        assert self._keys is not None
        assert self._values is not None
        at, end = self.slots.index(slot), self.num_slots
        for tensor in (self._keys, self._values):
            tensor[:, at : end - 1] = tensor[:, at + 1 : end].clone()
        del self.slots[at]

    def view(self, at: Sequence[int] | None = None) -> MemoryView:
        """Return a view of all slots without a copy, or of the slots at some positions.

        Args:
            at: positions in `slots`, ascending; None for all.
        """
        assert self._keys is not None
        assert self._values is not None
        # (G, slots, P, CK) and (G, slots, P, C)
        keys, values = self._keys[:, : self.num_slots], self._values[:, : self.num_slots]
        first = Rows(keys[:, 0], values[:, 0])
        if at is not None and len(at) < self.num_slots:
            index = to_device(torch.tensor([*at]), keys.device)
            keys, values = keys[:, index], values[:, index]
        rows = keys.flatten(1, 2), values.flatten(1, 2)  # (G, N, CK) and (G, N, C)
        return MemoryView(*rows, first, self._latest, self._centre)


def _grow(slots: torch.Tensor, allocated: int) -> torch.Tensor:
    """Copy slots into a larger tensor: (G, slots, P, C) -> (G, allocated, P, C)."""
    grown = slots.new_empty(len(slots), allocated, *slots.shape[2:])
    grown[:, : slots.shape[1]] = slots
    return grown
