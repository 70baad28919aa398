"""Outputs of the encoders: query features, memory frames, and memory as rows to read.

Shapes: see the legend in network.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from model.backbones import ImageFeatures
from model.matching import to_rows


@dataclass(frozen=True)
class EncodedImage:
    """One image with the features that do not depend on earlier frames."""

    image: torch.Tensor  # (1, 3, H, W), normalised and padded
    padding: tuple[int, int, int, int]  # left, right, top, bottom
    features: ImageFeatures

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the frame without padding."""
        left, right, top, bottom = self.padding
        height, width = self.image.shape[-2:]
        return height - top - bottom, width - left - right


@dataclass
class QueryFeatures:
    """Features of the current frame, shared by all its objects."""

    key: torch.Tensor  # (B, CK, h, w), the query key
    thin: torch.Tensor  # (B, CV, h, w), projection of feat16 for the decoder
    feat16: torch.Tensor  # (B, C16, h, w)
    feat8: torch.Tensor  # (B, C8, H/8, W/8)
    feat4: torch.Tensor  # (B, C4, H/4, W/4)


class Rows(NamedTuple):
    """Memory as rows, one per position of a memory frame.

    G is the number of key sets: B if the objects of a sample share keys, else B*O.
    """

    key: torch.Tensor  # (G, N, CK)
    value: torch.Tensor  # (G, N, C): C is O*CV if the objects share keys, else CV


class MemoryView(NamedTuple):
    """The part of the memory that one read uses, oldest slot first."""

    key: torch.Tensor  # (G, N, CK), see Rows
    value: torch.Tensor  # (G, N, C)
    first: Rows | None = None  # the first memory frame (IMSFR)
    latest: Rows | None = None  # the latest memory frame, with its detail as value (IMSFR)
    centre: torch.Tensor | None = None  # (G, 1, CK), which was subtracted from the keys


@dataclass
class MemoryEntry:
    """One encoded memory frame."""

    key: torch.Tensor  # (B, CK, h, w); if each object has its own key, (B, O, CK, h, w)
    value: torch.Tensor  # (B, O, CV, h, w)
    detail: torch.Tensor | None = None  # (B, O, CV, h, w), value of the latest frame (IMSFR)
    quality: torch.Tensor | None = None  # (B, O), predicted quality of the masks (QDMN)

    @property
    def has_own_keys(self) -> bool:
        """True if each object has its own key."""
        return self.key.ndim == 5

    def select_objects(self, members: slice) -> MemoryEntry:
        """Return the entry of some objects; the quality stays that of all objects."""
        return MemoryEntry(
            self.key[:, members] if self.has_own_keys else self.key,
            self.value[:, members],
            None if self.detail is None else self.detail[:, members],
            self.quality,
        )

    def rows(self) -> Rows:
        """Return key and value as rows.

        (B, P, CK) and (B, P, O*CV); if each object has its own key, (B*O, P, CK) and (B*O, P, CV).
        """
        return Rows(self._key_rows(), self._value_rows(self.value))

    def latest_rows(self) -> Rows | None:
        """Return key and detail as rows; None without a detail."""
        if self.detail is None:
            return None
        return Rows(self._key_rows(), self._value_rows(self.detail))

    def _key_rows(self) -> torch.Tensor:
        return to_rows(self.key.flatten(0, 1) if self.has_own_keys else self.key)  # (G, P, CK)

    def _value_rows(self, value: torch.Tensor) -> torch.Tensor:
        # (G, P, C)
        return to_rows(value.flatten(0, 1) if self.has_own_keys else value.flatten(1, 2))


def join_objects(entries: Sequence[MemoryEntry]) -> MemoryEntry:
    """Join entries of one frame that were encoded for different objects."""
    first = entries[0]
    if len(entries) == 1:
        return first
    key = first.key
    if first.has_own_keys:
        key = torch.cat([entry.key for entry in entries], 1)  # (B, O, CK, h, w)
    details = [entry.detail for entry in entries if entry.detail is not None]
    qualities = [entry.quality for entry in entries if entry.quality is not None]
    return MemoryEntry(
        key,
        torch.cat([entry.value for entry in entries], 1),  # (B, O, CV, h, w)
        torch.cat(details, 1) if details else None,  # (B, O, CV, h, w)
        torch.cat(qualities, 1) if qualities else None,  # (B, O)
    )


def view_of(entries: Sequence[MemoryEntry]) -> MemoryView:
    """Return a view of all given frames, oldest first.

    For training; inference reads from a MemoryBank.
    """
    rows = [entry.rows() for entry in entries]
    return MemoryView(
        torch.cat([r.key for r in rows], 1),  # (G, N, CK)
        torch.cat([r.value for r in rows], 1),  # (G, N, C)
        rows[0],
        entries[-1].latest_rows(),
    )
