"""Memory policies, which select the frames to store. model/memory_bank.py stores them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from model.features import MemoryEntry, MemoryView, Rows
from model.memory_bank import MemoryBank, Slot
from util.devices import HostCopy
from util.positions import parse_positions
from util.presets import POLICY_OPTIONS
from util.registration import check_options, check_parameters, memory_options


@dataclass(frozen=True)
class MemoryPolicy:
    """Base class of memory policies.

    Args:
        mem_every: interval in frames between two stored frames.
        mem_capacity: maximum number of slots of any kind; 0 for no limit. A full memory evicts its
            oldest frame, annotated frames last, and the first annotation never.

    Raises:
        ValueError: a parameter is out of range.
    """

    mem_every: int = 5
    mem_capacity: int = field(default=0, kw_only=True)

    needs_quality: ClassVar[bool] = False  # True if entries need a predicted quality

    def __post_init__(self) -> None:
        if self.mem_every < 1:
            raise ValueError(f"mem_every must be at least 1; it is {self.mem_every}.")
        least = self.num_reserved + 2
        if self.mem_capacity and self.mem_capacity < least:
            raise ValueError(
                f"mem_capacity {self.mem_capacity} is too small: this policy needs at least "
                f"{least} slots. Choose more, or 0 for no limit."
            )

    @property
    def num_reserved(self) -> int:
        """Number of slots reserved for temporary frames."""
        return 0

    def needs(self, bank: MemoryBank, frame_index: int) -> bool:
        """Return True if `write` would change the bank; if not, the frame is not encoded."""
        return self._is_due(bank, frame_index)

    def write(
        self,
        bank: MemoryBank,
        entry: MemoryEntry,
        frame_index: int,
        is_annotation: bool = False,
        must_store: bool = False,
    ) -> None:
        """Store, replace, compress or ignore a memory frame.

        Args:
            bank: the bank to change.
            entry: the encoded frame.
            frame_index: index of the frame in the video.
            is_annotation: an object of this bank is annotated.
            must_store: an object of this or another bank is annotated, so the frame must be stored.
        """
        raise NotImplementedError

    def view(self, bank: MemoryBank, frame_index: int) -> MemoryView:
        """Return the part of the bank that the read of a frame uses."""
        return bank.view()

    def max_slots(self, num_frames: int) -> int:
        """Most slots that a video needs if all its objects start on the first frame."""
        num_slots = 1 + (num_frames - 1) // self.mem_every + self.num_reserved
        return min(num_slots, self.mem_capacity or num_slots)

    def _is_due(self, bank: MemoryBank, frame_index: int) -> bool:
        return frame_index - bank.last_stored >= self.mem_every

    def _evict(self, bank: MemoryBank) -> None:
        """Evict frames until one more can be stored."""
        while self._is_full(bank):
            bank.remove(self._choose_evicted(bank))

    def _is_full(self, bank: MemoryBank) -> bool:
        """Whether a frame must be evicted before another can be stored."""
        return 0 < self.mem_capacity <= len(bank.stored) + self.num_reserved

    def _choose_evicted(self, bank: MemoryBank) -> Slot:
        """Choose the slot to evict, never the first one."""
        return min(bank.stored[1:], key=lambda slot: (slot.is_annotation, slot.frame_index))


@dataclass(frozen=True)
class EveryN(MemoryPolicy):
    """Store every n-th frame after the last stored one, and all annotated frames (STM, STCN).

    Args: see MemoryPolicy.
        include_last: also read the latest frame, in a temporary slot.
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
        must_store: bool = False,
    ) -> None:
        """See MemoryPolicy."""
        if is_annotation or must_store or self._is_due(bank, frame_index):
            self._evict(bank)
            bank.append(entry, frame_index, is_annotation=is_annotation)
        elif self.include_last:
            bank.append(entry, frame_index, is_temporary=True)


@dataclass(frozen=True)
class IsogenousSampling(EveryN):
    """Store every n-th frame, and read a random sample of the stored frames (IMSFR, section 3.2).

    Args: see EveryN.
        sample_from: all frames are read up to this number of stored frames.
        sample_share: share of the stored frames that each read draws.
        sample_keep: stored frames that every read includes: Python indices and slices, separated by
            commas.
        sample_seed: seed of the draws. A draw depends on the seed and the frame index alone.
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
            raise ValueError(f"sample_share must be in (0, 1]; it is {self.sample_share}.")
        parse_positions(self.sample_keep, 100)

    def view(self, bank: MemoryBank, frame_index: int) -> MemoryView:
        """See MemoryPolicy."""
        num = bank.num_slots
        if num <= self.sample_from:
            return bank.view()
        rng = np.random.default_rng((self.sample_seed, frame_index))
        drawn = rng.choice(num, max(int(num * self.sample_share), 1), replace=False)
        return bank.view(sorted({*drawn.tolist(), *parse_positions(self.sample_keep, num)}))


@dataclass(frozen=True)
class QualityGated(MemoryPolicy):
    """Store frames whose masks have a high predicted quality (QDMN, section 3.2).

    The previous frame is always read, in a temporary slot. A full memory evicts the frame with the
    lowest quality + exp(-age), where age is counted in stored frames.

    Args: see MemoryPolicy.
        quality_threshold: a frame is stored if its quality exceeds this share of the reference.
        quality_reference: "annotation": the quality of the annotated frame. "prediction": the
            quality of the first frame after it, without objects of quality 0, as published for
            YouTube-VOS.
    """

    quality_threshold: float = 0.8
    quality_reference: str = "annotation"

    needs_quality: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.quality_threshold <= 1:
            raise ValueError(
                f"quality_threshold must be in [0, 1]; it is {self.quality_threshold}."
            )

    @property
    def num_reserved(self) -> int:
        """See MemoryPolicy."""
        return 1

    def needs(self, bank: MemoryBank, frame_index: int) -> bool:
        """See MemoryPolicy: every frame is stored, at least in the temporary slot."""
        return True

    def write(
        self,
        bank: MemoryBank,
        entry: MemoryEntry,
        frame_index: int,
        is_annotation: bool = False,
        must_store: bool = False,
    ) -> None:
        """See MemoryPolicy."""
        assert entry.quality is not None
        self._decide(bank)
        bank.append(entry, frame_index, is_temporary=True, is_annotation=is_annotation)
        quality = HostCopy(entry.quality[0].float())  # (O,)
        bank.undecided = quality, is_annotation or must_store
        if quality.is_complete:  # else the next frame decides, so that this one does not wait
            self._decide(bank)

    def view(self, bank: MemoryBank, frame_index: int) -> MemoryView:
        """See MemoryPolicy."""
        if self._is_full(bank):  # storing the latest frame would evict another
            self._decide(bank)
        return bank.view()

    def _decide(self, bank: MemoryBank) -> None:
        """Store the temporary slot permanently if it must be, or if its quality is high."""
        if bank.undecided is None:
            return
        (quality, must_store), bank.undecided = bank.undecided, None
        slot = bank.slots[-1]
        measured = self._measure(bank, quality.read(), slot.is_annotation)
        is_good = measured > self.quality_threshold
        if must_store or (is_good and self._is_due(bank, slot.frame_index)):
            self._evict(bank)
            bank.keep_temporary(measured)

    def _measure(self, bank: MemoryBank, qualities: torch.Tensor, is_annotation: bool) -> float:
        """Compute the mean quality (O,) of a frame's objects relative to the reference."""
        is_predicted = self.quality_reference == "prediction"
        if is_annotation or is_predicted:
            qualities = qualities[qualities > 0]
        quality = qualities.mean().item() if len(qualities) else 0.0
        if is_annotation:
            bank.reference_quality = None if is_predicted else quality
            return 1.0
        # A reference of 0 is replaced by the first quality above 0.
        bank.reference_quality = bank.reference_quality or quality
        return quality / bank.reference_quality if bank.reference_quality else 0.0

    def _choose_evicted(self, bank: MemoryBank) -> Slot:
        newest = bank.stored[-1].number + 1  # number of the frame to be stored

        def priority(slot: Slot) -> tuple[bool, float]:
            return slot.is_annotation, slot.quality + math.exp(slot.number - newest)

        return min(bank.stored[1:], key=priority)


# What RDE reads: the embedding of all frames so far (compress), the latest memory frame (last), the
# first frame (gt), latest and first frame (two-frames), or all memory frames (stm).
SAM_MODES = (
    "stm", "two-frames", "gt", "last", "compress", "gt-compress", "last-compress",
    "two-frames-compress",
)  # fmt: skip


@dataclass(frozen=True)
class SamCompression(MemoryPolicy):
    """Compress every n-th frame into one embedding of constant size (RDE, CVPR 2022, section 3.2).

    Args: see MemoryPolicy.
        mode: what a read uses, one of SAM_MODES. Memory grows with the video only in "stm".
            "two-frames" and "two-frames-compress" read the first frame twice, as published.
        compressor: (embedding so far, new frame) -> embedding.
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
                f"The mode {self.mode} needs a compressor of memory frames: give the "
                "network.compressor of rde, or use stm, two-frames, gt or last."
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
        must_store: bool = False,
    ) -> None:
        """See MemoryPolicy."""
        is_first = not bank.slots
        if not (is_annotation or must_store or self.needs(bank, frame_index)):
            return
        if self.mode == "stm":
            self._evict(bank)
            bank.append(entry, frame_index, is_annotation=is_annotation)
        else:  # the latest frame replaces the one before
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
        first, latest = (  # (G, P, CK) and (G, P, C) each
            Rows(slots.key[:, part], slots.value[:, part])
            for part in (slice(rows), slice(-rows, None))
        )
        is_updated = bank.num_slots > 1
        embedding = first
        if bank.embedding is not None:
            embedding = bank.prepare_rows(bank.embedding.rows())
        parts = {
            "two-frames": [latest, first, first] if is_updated else [first],
            "gt": [first],
            "last": [latest],
            "compress": [embedding],
            "gt-compress": [embedding, first],
            "last-compress": [embedding, latest] if is_updated else [first],
            "two-frames-compress": [embedding, latest, first, first] if is_updated else [first] * 2,
        }[self.mode]
        return slots._replace(
            key=torch.cat([part.key for part in parts], 1),
            value=torch.cat([part.value for part in parts], 1),
        )

    def max_slots(self, num_frames: int) -> int:
        """See MemoryPolicy."""
        return super().max_slots(num_frames) if self.mode == "stm" else 2


# Name of --memory -> policy.
POLICIES: dict[str, type[MemoryPolicy]] = {
    "every_n": EveryN,
    "quality": QualityGated,
    "sam": SamCompression,
    "isogenous": IsogenousSampling,
}


def register_policy(name: str, policy: type[MemoryPolicy], options: Sequence[str]) -> None:
    """Add a memory policy to --memory of all commands, from a plugin (docs/plugins.md).

    Args:
        options: options of the eval scripts that the policy takes as parameters of the same names,
            such as mem_every.

    Raises:
        ValueError: there is a policy of this name, an option or parameter is unknown, or its method
            `write` lacks a parameter.
    """
    if name in POLICIES:
        raise ValueError(f"There already is a memory policy {name!r}: choose another name.")
    owner = f"The memory policy {name!r}"
    check_options(owner, options, memory_options())
    check_parameters(f"{owner} has", policy, options)
    check_parameters(f"{owner} has a method write with", policy.write, ["must_store"])
    POLICIES[name] = policy
    POLICY_OPTIONS[name] = tuple(options)
