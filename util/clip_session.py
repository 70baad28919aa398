"""A clip worked on by hand: masks given, corrected and removed, and the rest followed from them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from util.images import resize_image, working_size
from util.masks import labels_of, resize_labels
from util.passes import propagate
from util.tracker import Sessions, Tracker


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
            loads frame i for `frames[i]`.
    """

    palette = None
    fps = 24.0
    name = "clip"
    digest = ""

    def __init__(self, sessions: Sessions, frames: Frames) -> None:
        if not len(frames):
            raise ValueError("There are no frames.")
        self._sessions = sessions
        self._frames = frames
        self._masks: dict[int, np.ndarray] = {}
        self._removed: dict[int, list[int]] = {}
        height, width = frames[0].shape[:2]
        self.size = (height, width)
        self.frame_names = [str(index) for index in range(len(frames))]
        self.required_frames = frozenset(range(len(frames)))

    @property
    def labels(self) -> list[int]:
        """All objects, rising."""
        return sorted({label for new in self.new_objects.values() for label in new})

    @property
    def new_objects(self) -> dict[int, list[int]]:
        """The objects of which a mask is given, by frame."""
        return {index: labels_of(mask) for index, mask in sorted(self._masks.items())}

    def give(self, index: int, mask: np.ndarray) -> None:
        """Give masks on a frame: (H, W) uint8, of new objects or to correct known ones.

        Objects that are not in it are followed as before. Further masks on the same frame join
        those given before, which they overrule where both have an object.

        Raises:
            ValueError: the mask is of another size or type, or without an object, or there is no
                such frame.
        """
        self._check_index(index)
        if mask.shape != self.size or mask.dtype != np.uint8:
            raise ValueError(
                f"The mask on frame {index} is {mask.shape} {mask.dtype}: give {self.size} uint8, "
                "a label for each pixel."
            )
        labels = labels_of(mask)
        if not labels:
            raise ValueError(f"The mask on frame {index} has no object: every pixel is 0.")
        before = self._masks.get(index)
        if before is not None:  # what a label was given before is no longer so
            before = np.where(np.isin(before, labels), 0, before).astype(np.uint8)
            mask = np.where(mask > 0, mask, before)
        self._masks[index] = mask.copy()

    def take_back(self, index: int) -> None:
        """Forget the masks given on a frame."""
        self._check_index(index)
        self._masks.pop(index, None)

    def remove(self, label: int, at: int) -> None:
        """An object is gone from a frame on, until a mask of it is given later.

        Raises:
            ValueError: there is no such object or frame.
        """
        self._check_index(at)
        if label not in self.labels:
            raise ValueError(f"There is no object {label} to remove; there is {self.labels}.")
        self._removed.setdefault(label, []).append(at)

    def propagate(self, direction: str = "forwards") -> Iterator[tuple[int, np.ndarray]]:
        """Segment all frames from what has been given so far, in the order of the pass.

        Args:
            direction: "forwards": a mask counts from its frame on. "backwards": up to it. "both":
                two passes, of which frames between two masks get the weighted mean.

        Yields:
            the frame's index and its labels, (H, W) uint8.

        Raises:
            ValueError: no mask is given, or there is no such direction; a frame is of another size.
        """
        if direction not in ("forwards", "backwards", "both"):
            raise ValueError(f"There is no direction {direction!r}: forwards, backwards or both.")
        if not self._masks:
            raise ValueError("No mask is given: give one of the objects first.")

        def start() -> Tracker:
            return Tracker(self._sessions, len(self), len(self.labels))

        with tempfile.TemporaryDirectory() as scratch:
            passes = propagate(self, start, direction, Path(scratch), removed=self._removed)
            for tracker, found in passes:
                if found is not None:
                    assert found.prob is not None
                    labels = tracker.label_map(found.prob, self.size, found.labels)
                    yield found.frame.index, labels

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> _Frame:
        image = self._frames[index]
        if image.shape != (*self.size, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"Frame {index} is {image.shape} {image.dtype}: all must be {(*self.size, 3)} "
                "uint8, as the first."
            )
        small = working_size(self.size, self._sessions.settings.shorter_side)
        mask = self._masks.get(index)
        new_labels = None if mask is None else resize_labels(mask, small)
        return _Frame(index, str(index), resize_image(image, small), new_labels)

    def _check_index(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise ValueError(f"There is no frame {index}: the clip has {len(self)}, from 0.")
