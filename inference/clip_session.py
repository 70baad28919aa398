"""A clip at random access: masks are added, corrected and removed on any frame, then propagated."""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Iterator, Sized
from pathlib import Path

import numpy as np

from inference.frame_results import FrameResult, make_result
from inference.labels import check_image, check_mask, label_map
from inference.predictor import Predictor
from inference.propagation import SegmentedFrame, propagate
from inference.tracker import Tracker
from util.frames import Frame, FrameSource
from util.images import resize_image, working_size
from util.masks import labels_of, resize_labels


class _Clip:
    """Frames and masks of one propagation; later changes to the session do not affect it."""

    def __init__(
        self,
        frames: FrameSource[np.ndarray],
        masks: dict[int, np.ndarray],
        size: tuple[int, int],
        shorter_side: int | None,
    ) -> None:
        self._frames, self._masks = frames, masks
        self._size, self._small = size, working_size(size, shorter_side)
        self.annotated_labels = {index: labels_of(mask) for index, mask in sorted(masks.items())}

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Frame:
        image = self._frames[index]
        check_image(image, f"Frame {index}")
        if image.shape[:2] != self._size:
            raise ValueError(
                f"Frame {index} is {image.shape[:2]}, but frame 0 is {self._size}: all frames of a "
                "clip need the same size."
            )
        mask = self._masks.get(index)
        annotation = None if mask is None else resize_labels(mask, self._small)
        return Frame(index, str(index), resize_image(image, self._small), annotation)


class ClipSession:
    """Segments a clip from masks on any of its frames, forwards, backwards or both ways.

        clip = ClipSession(Predictor(EvalSettings(model=...)), frames)
        clip.add_mask(0, first_mask)
        clip.add_mask(40, corrected_mask)
        clip.remove_object(3, frame_index=50)
        for index, labels in clip.propagate("both"):
            ...

    For frames that arrive one by one, as from a camera, see `Tracker`.

    Args:
        predictor: makes the sessions; its session type must be InferenceCoreYV, the default.
        frames: (H, W, 3) uint8 RGB each, all of one size: a list, or any object with a length that
            loads frame i for `frames[i]`, in another thread.
        scratch: folder for temporary files of "both", 1 byte per pixel, frame and object; by
            default the system's temporary folder.

    Raises:
        ValueError: there are no frames, or the first one has a wrong shape or type.
    """

    def __init__(
        self, predictor: Predictor, frames: FrameSource[np.ndarray], scratch: Path | None = None
    ) -> None:
        if not isinstance(frames, Sized):
            raise ValueError(
                f"The frames are of type {type(frames).__name__}: pass a list, or an object with a "
                "length that loads frame i for `frames[i]`."
            )
        if not len(frames):
            raise ValueError("There are no frames.")
        check_image(frames[0], "Frame 0")
        self._predictor = predictor
        self._frames = frames
        self._scratch = scratch
        self._masks: dict[int, np.ndarray] = {}
        self._removed: dict[int, list[int]] = {}
        self._size = (frames[0].shape[0], frames[0].shape[1])

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def labels(self) -> list[int]:
        """Labels of all objects that have a mask, ascending."""
        return sorted({label for mask in self._masks.values() for label in labels_of(mask)})

    def add_mask(self, frame_index: int, mask: np.ndarray) -> None:
        """Add a mask of new objects, or correct known ones, on one frame.

        Objects that are not in the mask are segmented from memory. A second mask on the same frame
        is merged with the first and replaces the objects that both have. An object that was removed
        from this frame on is present again.

        Args:
            mask: (H, W) uint8 labels.

        Raises:
            ValueError: the mask has a wrong size or type or no object, or the frame does not exist.
        """
        index = self._check_index(frame_index)
        check_mask(mask, self._size, f"The mask on frame {index}")
        labels = labels_of(mask)
        if not labels:
            raise ValueError(f"The mask on frame {index} has no object: every pixel is 0.")
        before = self._masks.get(index)
        if before is not None:
            before = np.where(np.isin(before, labels), 0, before).astype(np.uint8)
            mask = np.where(mask > 0, mask, before)
        self._masks[index] = mask.copy()
        for label in labels:
            self._removed[label] = [at for at in self._removed.get(label, []) if at != index]

    def clear_mask(self, frame_index: int) -> None:
        """Delete the masks of a frame."""
        self._masks.pop(self._check_index(frame_index), None)
        self._drop_unknown_removals()

    def remove_object(self, label: int, frame_index: int) -> None:
        """Remove an object from a frame on, until a later mask shows it.

        Raises:
            ValueError: the object or the frame does not exist.
        """
        index = self._check_index(frame_index)
        if label not in self.labels:
            raise ValueError(f"There is no object {label}: the objects are {self.labels}.")
        self._removed.setdefault(label, []).append(index)
        mask = self._masks.get(index)
        if mask is not None:
            rest = np.where(mask == label, 0, mask).astype(np.uint8)
            self._masks[index] = rest
            if not rest.any():
                del self._masks[index]
        self._drop_unknown_removals()

    def restore_object(self, label: int) -> None:
        """Undo all removals of an object."""
        self._removed.pop(label, None)

    def propagate(self, direction: str = "forwards") -> Iterator[tuple[int, np.ndarray]]:
        """Segment all frames from the masks added so far.

        Args:
            direction: "forwards": a mask takes effect from its frame on. "backwards": up to its
                frame. "both": the weighted mean of the two, between two masks of an object.

        Returns:
            An iterator over frame indices and label maps (H, W) uint8, in the order of propagation.
            Masks that are added or removed meanwhile take effect in the next propagation.

        Raises:
            ValueError: there are no masks, or the direction is unknown; from the iterator, if a
                frame has another size or type.
        """
        return (
            (result.frame.index, label_map(result.prob, result.labels, self._size))
            for result in self._start(direction)
            if result is not None and result.prob is not None
        )

    def propagate_results(self, direction: str = "forwards") -> Iterator[FrameResult | None]:
        """Segment all frames as `propagate` does, and measure how reliable the masks are.

        Returns:
            An iterator over the results of the frames, in the order of propagation: label maps,
            confidences, qualities, agreement of the two directions, and query keys. "both" first
            propagates backwards and yields None for each frame, from the last to the first, so that
            callers can show progress or stop.

        Raises:
            ValueError: see `propagate`.
        """
        return (
            None if segmented is None else make_result(segmented, self._size)
            for segmented in self._start(direction)
        )

    def _start(self, direction: str) -> Iterator[SegmentedFrame | None]:
        """Check, and start a propagation of the masks added so far; see `propagate`."""
        if direction not in ("forwards", "backwards", "both"):
            raise ValueError(
                f"There is no direction {direction!r}: use forwards, backwards or both."
            )
        if not self._masks:
            raise ValueError("There are no masks: call add_mask first.")
        side = self._predictor.settings.shorter_side
        clip = _Clip(self._frames, dict(self._masks), self._size, side)
        return self._run(clip, direction, {label: [*at] for label, at in self._removed.items()})

    def _run(
        self, clip: _Clip, direction: str, removed: dict[int, list[int]]
    ) -> Iterator[SegmentedFrame | None]:
        annotated = clip.annotated_labels
        num_objects = len({label for labels in annotated.values() for label in labels})

        def start() -> Tracker:
            return Tracker(self._predictor, len(clip), num_objects)

        with tempfile.TemporaryDirectory(dir=self._scratch) as scratch:
            yield from propagate(clip, annotated, start, direction, Path(scratch), removed=removed)

    def _check_index(self, index: int) -> int:
        if not 0 <= operator.index(index) < len(self):
            raise ValueError(
                f"There is no frame {index}: the clip has frames 0 to {len(self) - 1}."
            )
        return operator.index(index)

    def _drop_unknown_removals(self) -> None:
        known = {*self.labels}
        self._removed = {label: at for label, at in self._removed.items() if label in known}
