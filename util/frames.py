"""Frames of a video, their sources, and prefetching in a background thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

_FRAMES_AHEAD = 4  # frames decoded before they are needed

FrameT = TypeVar("FrameT", covariant=True)


@dataclass(frozen=True)
class Frame:
    """One frame of a video at its working size (h, w)."""

    index: int  # position in the video, from 0
    name: str  # file stem
    image: np.ndarray  # (h, w, 3) uint8 RGB
    annotation: np.ndarray | None = None  # (h, w) uint8 labels of the annotated objects, else 0
    is_required: bool = True  # whether the output needs a mask of this frame


class FrameSource(Protocol[FrameT]):
    """Frames at random access; `source[i]` may be called from any thread."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> FrameT: ...


def prefetch(frames: FrameSource[FrameT], order: Iterable[int] | None = None) -> Iterator[FrameT]:
    """Yield frames that a background thread decodes ahead of time.

    Args:
        order: indices to yield; by default all, in order.

    Raises:
        Exception: any error of decoding a frame, raised in place of that frame.
    """
    pool = ThreadPoolExecutor(1)
    try:
        pending: deque[Future[FrameT]] = deque()
        for index in range(len(frames)) if order is None else order:
            pending.append(pool.submit(frames.__getitem__, index))
            if len(pending) > _FRAMES_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
