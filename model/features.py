"""What encoders hand on: a query's features, a memory frame, and memory as rows to read.

Shapes: see the legend in network.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch

from model.backbones import ImageFeatures
from model.matching import to_rows


@dataclass(frozen=True)
class EncodedImage:
    """One image and its features, which do not depend on earlier frames."""

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
    """What one image gives, whatever its objects."""

    key: torch.Tensor  # (B, CK, h, w)
    thin: torch.Tensor  # (B, CV, h, w), the decoder's view of feat16
    feat16: torch.Tensor  # (B, C16, h, w)
    feat8: torch.Tensor  # (B, C8, H/8, W/8)
    feat4: torch.Tensor  # (B, C4, H/4, W/4)


class Rows(NamedTuple):
    """Memory as rows of G groups that each have keys of their own: G is B where all objects of a
    sample share them, else B*O."""

    key: torch.Tensor  # (G, N, CK)
    value: torch.Tensor  # (G, N, C): C is O*CV where objects share keys, else CV


class MemoryView(NamedTuple):
    """What one read sees. Rows of slots, oldest first; frame relations (IMSFR) need two more."""

    key: torch.Tensor  # as Rows
    value: torch.Tensor
    first: Rows | None = None  # of the first frame alone
    latest: Rows | None = None  # of the latest memory frame alone, with its detail as value
    centre: torch.Tensor | None = None  # (G, 1, CK), which the keys are relative to


@dataclass
class MemoryEntry:
    """What is remembered of one frame."""

    key: torch.Tensor  # (B, CK, h, w), or where each object has its own (B, O, CK, h, w)
    value: torch.Tensor  # (B, O, CV, h, w)
    detail: torch.Tensor | None = None  # (B, O, CV, h, w): a second value, while latest (IMSFR)
    quality: torch.Tensor | None = None  # (B, O), how good the masks look (QDMN)

    @property
    def has_own_keys(self) -> bool:
        """Whether each object has keys of its own."""
        return self.key.ndim == 5

    def of_objects(self, members: slice) -> MemoryEntry:
        """The same frame for some of its objects; its quality is still that of all of them."""
        return MemoryEntry(
            self.key[:, members] if self.has_own_keys else self.key,
            self.value[:, members],
            None if self.detail is None else self.detail[:, members],
            self.quality,
        )

    def rows(self) -> Rows:
        """Key and value as rows: (B, P, CK) and (B, P, O*CV), or with own keys (B*O, P, ...)."""
        return Rows(self._key_rows(), self._value_rows(self.value))

    def latest_rows(self) -> Rows | None:
        """Key and detail as rows, where there is a detail."""
        if self.detail is None:
            return None
        return Rows(self._key_rows(), self._value_rows(self.detail))

    def _key_rows(self) -> torch.Tensor:
        return to_rows(self.key.flatten(0, 1) if self.has_own_keys else self.key)

    def _value_rows(self, value: torch.Tensor) -> torch.Tensor:
        return to_rows(value.flatten(0, 1) if self.has_own_keys else value.flatten(1, 2))


def join_objects(entries: Sequence[MemoryEntry]) -> MemoryEntry:
    """One frame, encoded for some objects after the other."""
    if len(entries) == 1:
        return entries[0]
    joined = {}
    for field in fields(MemoryEntry):
        parts = [getattr(entry, field.name) for entry in entries]
        is_shared = parts[0] is None or (field.name == "key" and not entries[0].has_own_keys)
        joined[field.name] = parts[0] if is_shared else torch.cat(parts, 1)
    return MemoryEntry(**joined)


def view_of(entries: Sequence[MemoryEntry]) -> MemoryView:
    """All of some frames, oldest first, to read from (in training: inference has a bank)."""
    rows = [entry.rows() for entry in entries]
    return MemoryView(
        torch.cat([r.key for r in rows], 1),
        torch.cat([r.value for r in rows], 1),
        rows[0],
        entries[-1].latest_rows(),
    )
