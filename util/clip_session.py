"""A clip worked on by hand: masks given, corrected and removed, and the rest followed from them."""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from util.images import resize_image, working_size
from util.masks import labels_of, resize_labels
from util.passes import propagate
from util.tracker import Sessions, Tracker, check_image, check_mask, label_map


class Frames(Protocol):
    """Frames at random access, (H, W, 3) uint8 RGB each: a list of them, say."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> np.ndarray: ...


@dataclass(frozen=True)
class _Frame:
    index: int
    name: str
    image: np.ndarray  # (h, w, 3) uint8
    new_labels: np.ndarray | None  # (h, w) uint8
    is_required: bool = True


class _Clip:
    """The frames and masks of one propagation: what is given while it runs is for the next one."""

    def __init__(
        self, frames: Frames, masks: dict[int, np.ndarray], size: tuple[int, int], side: int | None
    ) -> None:
        self._frames, self._masks = frames, masks
        self._size, self._small = size, working_size(size, side)
        self.new_objects = {index: labels_of(mask) for index, mask in sorted(masks.items())}

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> _Frame:
        image = self._frames[index]
        check_image(image, f"Frame {index}")
        if image.shape[:2] != self._size:
            raise ValueError(f"Frame {index} is {image.shape[:2]}, but frame 0 is {self._size}.")
        mask = self._masks.get(index)
        new_labels = None if mask is None else resize_labels(mask, self._small)
        return _Frame(index, str(index), resize_image(image, self._small), new_labels)


class ClipSession:
    """Frames at random access, with masks on some, to follow forwards, backwards or both ways.

        clip = ClipSession(Sessions(EvalSettings(model=...), InferenceCoreYV), frames)
        clip.give(0, first_mask)
        clip.give(40, corrected_mask)
        clip.remove(3, at=50)
        for index, labels in clip.propagate("both"):
            ...

    For frames that come one at a time, a camera's, see util/tracker.py.

    Args:
        sessions: from inference_core.py, with InferenceCoreYV as its type of core.
        frames: (H, W, 3) uint8 RGB each, all of one size; a list, or anything with a length that
            loads frame i for `frames[i]`, in another thread.
        scratch: folder for what the first of two passes leaves, 1 byte a pixel and object; None for
            the system's temporary one.
    """

    def __init__(self, sessions: Sessions, frames: Frames, scratch: Path | None = None) -> None:
        if not len(frames):
            raise ValueError("There are no frames.")
        check_image(frames[0], "Frame 0")
        self._sessions = sessions
        self._frames = frames
        self._scratch = scratch
        self._masks: dict[int, np.ndarray] = {}
        self._removed: dict[int, list[int]] = {}
        self._size = (frames[0].shape[0], frames[0].shape[1])

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def labels(self) -> list[int]:
        """All objects of which a mask is given, rising."""
        return sorted({label for mask in self._masks.values() for label in labels_of(mask)})

    def give(self, index: int, mask: np.ndarray) -> None:
        """Give masks on a frame: (H, W) uint8, of new objects or to correct known ones.

        Objects that are not in it are followed as before. Further masks on the same frame join
        those given before, which they overrule where both have an object. An object that was
        removed on this frame is there again.

        Raises:
            ValueError: the mask is of another size or type, or without an object, or there is no
                such frame.
        """
        index = self._check_index(index)
        check_mask(mask, self._size, f"The mask on frame {index}")
        labels = labels_of(mask)
        if not labels:
            raise ValueError(f"The mask on frame {index} has no object: every pixel is 0.")
        before = self._masks.get(index)
        if before is not None:  # what a label was given before is no longer so
            before = np.where(np.isin(before, labels), 0, before).astype(np.uint8)
            mask = np.where(mask > 0, mask, before)
        self._masks[index] = mask.copy()
        for label in labels:
            self._removed[label] = [at for at in self._removed.get(label, []) if at != index]

    def take_back(self, index: int) -> None:
        """Forget the masks given on a frame."""
        self._masks.pop(self._check_index(index), None)
        self._forget_removals()

    def remove(self, label: int, at: int) -> None:
        """An object is gone from a frame on, until a mask of it is given later.

        Raises:
            ValueError: there is no such object or frame.
        """
        at = self._check_index(at)
        if label not in self.labels:
            raise ValueError(f"There is no object {label} to remove; there is {self.labels}.")
        self._removed.setdefault(label, []).append(at)
        mask = self._masks.get(at)
        if mask is not None:
            rest = np.where(mask == label, 0, mask).astype(np.uint8)
            self._masks[at] = rest
            if not rest.any():
                del self._masks[at]
        self._forget_removals()

    def restore(self, label: int) -> None:
        """Forget that an object was removed."""
        self._removed.pop(label, None)

    def propagate(self, direction: str = "forwards") -> Iterator[tuple[int, np.ndarray]]:
        """Segment all frames from what has been given so far, in the order of the pass.

        Args:
            direction: "forwards": a mask counts from its frame on. "backwards": up to it. "both":
                two passes, of which frames between two masks get the weighted mean.

        Returns:
            an iterator over the frames' indices and labels, (H, W) uint8. What is given or removed
            while it runs counts from the next propagation on.

        Raises:
            ValueError: no mask is given, or there is no such direction; and from the iterator,
                where a frame is of another size or type.
        """
        if direction not in ("forwards", "backwards", "both"):
            raise ValueError(f"There is no direction {direction!r}: forwards, backwards or both.")
        if not self._masks:
            raise ValueError("No mask is given: give one of the objects first.")
        side = self._sessions.settings.shorter_side
        clip = _Clip(self._frames, dict(self._masks), self._size, side)
        return self._run(clip, direction, {label: [*at] for label, at in self._removed.items()})

    def _run(
        self, clip: _Clip, direction: str, removed: dict[int, list[int]]
    ) -> Iterator[tuple[int, np.ndarray]]:
        num_objects = len({label for labels in clip.new_objects.values() for label in labels})

        def start() -> Tracker:
            return Tracker(self._sessions, len(clip), num_objects)

        with tempfile.TemporaryDirectory(dir=self._scratch) as scratch:
            for found in propagate(clip, start, direction, Path(scratch), removed=removed):
                if found is not None:
                    assert found.prob is not None
                    yield found.frame.index, label_map(found.prob, found.labels, self._size)

    def _check_index(self, index: int) -> int:
        if not 0 <= operator.index(index) < len(self):
            raise ValueError(f"There is no frame {index}: the clip has {len(self)}, from 0.")
        return operator.index(index)

    def _forget_removals(self) -> None:
        known = {*self.labels}
        self._removed = {label: at for label, at in self._removed.items() if label in known}
