"""Memory update policies: what is kept of a video. How it is stored: model/memory_bank.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from model.features import MemoryEntry, MemoryView, Rows
from model.memory_bank import MemoryBank, Slot


@dataclass(frozen=True)
class MemoryPolicy:
    """What is kept of a video. It knows nothing of data sets, and the first annotation stays.

    Args:
        mem_every: frames between two that are stored.
        mem_capacity: slots at most, all kinds counted; 0 for any number. The oldest frame makes
            room, annotated ones last, and the first annotation never.
    """

    mem_every: int = 5
    mem_capacity: int = field(default=0, kw_only=True)

    needs_quality: ClassVar[bool] = False  # whether entries must come with a score of their masks

    def __post_init__(self) -> None:
        if self.mem_every < 1:
            raise ValueError(f"mem_every must be at least 1; it is {self.mem_every}.")
        least = self.num_reserved + 2
        if self.mem_capacity and self.mem_capacity < least:
            raise ValueError(
                f"mem_capacity {self.mem_capacity} is too small: this memory needs {least} frames "
                "at least (or 0, for any number)."
            )

    @property
    def num_reserved(self) -> int:
        """Slots needed beside those that stay."""
        return 0

    def needs(self, bank: MemoryBank, frame_index: int) -> bool:
        """Whether `write` would do anything with this frame: if not, it need not be encoded."""
        return self._is_due(bank, frame_index)

    def write(
        self,
        bank: MemoryBank,
        entry: MemoryEntry,
        frame_index: int,
        is_annotation: bool = False,
    ) -> None:
        """Keep, replace, compress, or leave out a frame."""
        raise NotImplementedError

    def view(self, bank: MemoryBank, frame_index: int) -> MemoryView:
        """What the read for a frame sees."""
        return bank.view()

    def max_slots(self, num_frames: int) -> int:
        """Slots that a video of this length fills at most, if its objects start together."""
        most = 1 + (num_frames - 1) // self.mem_every + self.num_reserved
        return min(most, self.mem_capacity or most)

    def _is_due(self, bank: MemoryBank, frame_index: int) -> bool:
        return frame_index - bank.last_stored >= self.mem_every

    def _evict(self, bank: MemoryBank) -> None:
        """Drop frames until one more can be stored."""
        while self.mem_capacity and len(bank.stored) >= self.mem_capacity - self.num_reserved:
            bank.remove(self._choose_evicted(bank))

    def _choose_evicted(self, bank: MemoryBank) -> Slot:
        return min(bank.stored[1:], key=lambda slot: (slot.is_annotation, slot.frame_index))


@dataclass(frozen=True)
class EveryN(MemoryPolicy):
    """Every n-th frame after the last stored one, as STM and STCN do; annotations always.

    Args:
        include_last: the latest frame is read too, as a temporary slot.
    """

    include_last: bool = False

    @property
    def num_reserved(self) -> int:
        """See MemoryPolicy."""
        return int(self.include_last)

    def needs(self, bank: MemoryBank, frame_index: int) -> bool:
        """See MemoryPolicy."""
        return self.include_last or self._is_due(bank, frame_index)

    def write(
        self,
        bank: MemoryBank,
        entry: MemoryEntry,
        frame_index: int,
        is_annotation: bool = False,
    ) -> None:
        """See MemoryPolicy."""
        if is_annotation or self._is_due(bank, frame_index):
            self._evict(bank)
            bank.append(entry, frame_index, is_annotation=is_annotation)
        elif self.include_last:
            bank.append(entry, frame_index, is_temporary=True)


@dataclass(frozen=True)
class IsogenousSampling(EveryN):
    """Every n-th frame is stored, and a read sees a random part of them (IMSFR, section 3.2).

    Args:
        sample_from: with so many frames stored, or fewer, all are read.
        sample_share: share of the frames drawn for each read.
        sample_keep: frames always read, as Python's indices and slices of those stored, joined by
            commas.
        sample_seed: of the draws, which depend on the frame alone.
    """

    sample_from: int = 10
    sample_share: float = 0.6
    sample_keep: str = "0:2,-5:"
    sample_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample_from < 0 or self.sample_seed < 0:
            raise ValueError("sample_from and sample_seed must be 0 or more.")
        if not 0 < self.sample_share <= 1:
            raise ValueError(f"sample_share must lie in (0, 1]; it is {self.sample_share}.")
        _positions(self.sample_keep, 100)

    def view(self, bank: MemoryBank, frame_index: int) -> MemoryView:
        """See MemoryPolicy."""
        num = bank.num_slots
        if num <= self.sample_from:
            return bank.view()
        rng = np.random.default_rng((self.sample_seed, frame_index))
        drawn = rng.choice(num, max(int(num * self.sample_share), 1), replace=False)
        return bank.view(sorted({*drawn.tolist(), *_positions(self.sample_keep, num)}))


def _positions(text: str, num: int) -> set[int]:
    """Of "1,-5:" or ":2,-5:-1" among `num`."""
    found: set[int] = set()
    for part in text.split(","):
        try:
            start, *rest = [int(end) if end else None for end in part.split(":")]
            if not rest:
                assert start is not None
                found.update(range(num)[start : start + 1 or None])
            else:
                (stop,) = rest
                found.update(range(num)[start:stop])
        except (AssertionError, ValueError) as error:
            raise ValueError(
                f"sample_keep {text!r} holds {part!r}, no index or slice: write 1 or 0:2 or -5: "
                "for example, with commas between."
            ) from error
    return found


@dataclass(frozen=True)
class QualityGated(MemoryPolicy):
    """Frames whose masks look good; the one before is read in any case (QDMN, section 3.2).

    Args:
        quality_threshold: a frame is stored where its quality exceeds this share of the reference.
        quality_reference: the annotated frame's quality, or that of the first one predicted
            after it ("prediction", as published for YouTube; objects of quality 0 then drop out).

    When full, the frame with the least quality + exp(-age) leaves; age counts stored frames.
    """

    quality_threshold: float = 0.8
    quality_reference: str = "annotation"

    needs_quality: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.quality_threshold <= 1:
            raise ValueError(
                f"quality_threshold must lie in [0, 1]; it is {self.quality_threshold}."
            )

    @property
    def num_reserved(self) -> int:
        """See MemoryPolicy."""
        return 1

    def needs(self, bank: MemoryBank, frame_index: int) -> bool:
        """See MemoryPolicy: every frame is the next one's frame before."""
        return True

    def write(
        self,
        bank: MemoryBank,
        entry: MemoryEntry,
        frame_index: int,
        is_annotation: bool = False,
    ) -> None:
        """See MemoryPolicy."""
        quality = self._measure(bank, entry, is_annotation)
        is_good = quality > self.quality_threshold
        if is_annotation or (is_good and self._is_due(bank, frame_index)):
            self._evict(bank)
            bank.append(entry, frame_index, is_annotation=is_annotation, quality=quality)
        else:
            bank.append(entry, frame_index, is_temporary=True)

    def _measure(self, bank: MemoryBank, entry: MemoryEntry, is_annotation: bool) -> float:
        """Mean quality of the frame's objects, relative to the reference."""
        assert entry.quality is not None
        scores = entry.quality[0].float()
        is_predicted = self.quality_reference == "prediction"
        if is_annotation or is_predicted:
            scores = scores[scores > 0]
        quality = scores.mean().item() if len(scores) else 0.0
        if is_annotation:
            bank.reference_quality = None if is_predicted else quality
            return 1.0
        # A score of 0 is no measure: the first one above it is.
        bank.reference_quality = bank.reference_quality or quality
        return quality / bank.reference_quality if bank.reference_quality else 0.0

    def _choose_evicted(self, bank: MemoryBank) -> Slot:
        newest = bank.stored[-1].number + 1  # the one to come

        def worth(slot: Slot) -> tuple[bool, float]:
            return slot.is_annotation, slot.quality + math.exp(slot.number - newest)

        return min(bank.stored[1:], key=worth)


# What RDE can read: the embedding of all frames so far, the latest memory frame, the first one.
SAM_MODES = (
    "stm", "two-frames", "gt", "last", "compress", "gt-compress", "last-compress",
    "two-frames-compress",
)  # fmt: skip


@dataclass(frozen=True)
class SamCompression(MemoryPolicy):
    """Every n-th frame goes into one embedding of constant size (RDE, CVPR 2022, section 3.2).

    Args:
        mode: what a read sees; "stm" alone grows with the video. The first frame counts twice in
            "two-frames" and "two-frames-compress".
        compressor: [embedding so far, new frame] -> embedding.
    """

    mem_every: int = 3
    mode: str = "two-frames-compress"
    compressor: Callable[[MemoryEntry, MemoryEntry], MemoryEntry] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in SAM_MODES:
            raise ValueError(f"There is no mode {self.mode!r}: choose from {', '.join(SAM_MODES)}.")
        if self.compressor is None and self._compresses:
            raise ValueError(
                f"The mode {self.mode} needs a compressor of memory frames, such as the "
                "network.compressor of rde: give it, or take stm, two-frames, gt or last."
            )

    @property
    def _compresses(self) -> bool:
        return self.mode.endswith("compress")

    @property
    def num_reserved(self) -> int:
        """See MemoryPolicy: the embedding takes the place of a slot."""
        return int(self._compresses)

    def needs(self, bank: MemoryBank, frame_index: int) -> bool:
        """See MemoryPolicy."""
        return self.mode != "gt" and frame_index - bank.slots[-1].frame_index >= self.mem_every

    def write(
        self,
        bank: MemoryBank,
        entry: MemoryEntry,
        frame_index: int,
        is_annotation: bool = False,
    ) -> None:
        """See MemoryPolicy."""
        is_first = not bank.slots
        if not (is_annotation or self.needs(bank, frame_index)):
            return
        if self.mode == "stm":
            self._evict(bank)
            bank.append(entry, frame_index, is_annotation=is_annotation)
        else:  # the latest frame takes its turn
            bank.append(entry, frame_index, not is_first, is_annotation)
        if self._compresses:
            assert self.compressor is not None
            before = bank.embedding
            bank.embedding = entry if before is None else self.compressor(before, entry)

    def view(self, bank: MemoryBank, frame_index: int) -> MemoryView:
        """See MemoryPolicy."""
        slots = bank.view()
        if self.mode == "stm":
            return slots
        rows = bank.num_rows
        first, latest = (
            Rows(slots.key[:, part], slots.value[:, part])
            for part in (slice(rows), slice(-rows, None))
        )
        is_updated = bank.num_slots > 1
        embedding = first
        if bank.embedding is not None:
            embedding = bank.relative(bank.embedding.rows())
        read = {
            "two-frames": [latest, first, first] if is_updated else [first],
            "gt": [first],
            "last": [latest],
            "compress": [embedding],
            "gt-compress": [embedding, first],
            "last-compress": [embedding, latest] if is_updated else [first],
            "two-frames-compress": [embedding, latest, first, first] if is_updated else [first] * 2,
        }[self.mode]
        return slots._replace(
            key=torch.cat([v.key for v in read], 1), value=torch.cat([v.value for v in read], 1)
        )

    def max_slots(self, num_frames: int) -> int:
        """See MemoryPolicy."""
        return super().max_slots(num_frames) if self.mode == "stm" else 2


# By the name on the command line (--memory).
POLICIES: dict[str, type[MemoryPolicy]] = {
    "every_n": EveryN,
    "quality": QualityGated,
    "sam": SamCompression,
    "isogenous": IsogenousSampling,
}
