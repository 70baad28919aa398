"""Propagate masks through a video: forwards, backwards, or both ways."""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from inference.probability_files import pack_probabilities, read_probabilities, write_probabilities
from inference.tracker import Tracker
from model.features import EncodedImage
from util.frames import Frame, FrameSource, prefetch

# Optional frames are buffered together with required ones, up to this many frames per required one.
_FRAMES_HELD = 5

# (O+1, h, w), background first, and the labels of the objects.
Probabilities = tuple[torch.Tensor, Sequence[int]]


class SegmentedFrame(NamedTuple):
    """A frame and its probabilities."""

    frame: Frame
    prob: torch.Tensor | None  # (O+1, h, w), background first; None where it is not required
    labels: list[int]  # of the objects
    quality: dict[int, float]  # of their masks, where the method predicts it
    key: torch.Tensor | None  # (CK, h/16, w/16), query key; None if there is no object
    # Probabilities of the forward and the backward propagation; only of "both".
    directions: tuple[Probabilities, Probabilities] | None = None


def propagate(
    frames: FrameSource[Frame],
    annotated_labels: Mapping[int, Sequence[int]],
    start: Callable[[], Tracker],
    direction: str = "forwards",
    scratch: Path | None = None,
    write_all: bool = True,
    removed: Mapping[int, Sequence[int]] | None = None,
) -> Iterator[SegmentedFrame | None]:
    """Segment a video from the annotations of its frames.

    Forwards, an annotation takes effect from its frame on; backwards, up to its frame. Both ways, a
    backward propagation writes its probabilities to files, which keeps memory use constant, and a
    forward one yields the mean of both. Between two annotations of an object, each direction is
    weighted linearly by the distance to its annotation (Cheng et al., MiVOS, CVPR 2021).

    Args:
        frames: the video.
        annotated_labels: frame index -> labels annotated there.
        start: makes a tracker for each propagation.
        scratch: folder for the files of the backward propagation; required for "both".
        write_all: all frames are required.
        removed: label -> frames from which the object is absent, until its next annotation.

    Yields:
        Frames in the order of propagation; None for each frame of the backward propagation of
        "both".

    Raises:
        ValueError: a frame cannot be decoded or segmented; the message names it.
    """
    annotations = annotated_frames(annotated_labels)
    forwards, backwards = range(len(frames)), range(len(frames) - 1, -1, -1)

    def run(order: range) -> Iterator[SegmentedFrame]:
        tracker = start()
        decoded = prefetch(frames, order)
        for frame, encoded in _encode_ahead(tracker, decoded, write_all):
            for label in [*tracker.labels]:
                absent = (removed or {}).get(label, ())
                if _is_removed(annotations[label], absent, frame.index, order.step):
                    tracker.remove_object(label)
            yield _segment(tracker, frame, encoded, frame.index == order[-1], write_all)
            del encoded  # releases the features of its whole batch

    if direction != "both":
        yield from run(forwards if direction == "forwards" else backwards)
        return
    assert scratch is not None
    scratch.mkdir(exist_ok=True)
    for result in run(backwards):
        if result.prob is not None and result.labels:
            path = scratch / f"{result.frame.index}.npz"
            write_probabilities(path, pack_probabilities(result.prob, result.labels), level=0)
        yield None
    for result in run(forwards):
        path = scratch / f"{result.frame.index}.npz"
        if result.prob is None or not path.exists():
            yield result
            continue
        packed = read_probabilities(path)
        path.unlink()
        backward = torch.from_numpy(packed.prob).to(result.prob.device).float() / 255
        weights = {k: _forward_weight(at, result.frame.index) for k, at in annotations.items()}
        directions = (result.prob, result.labels), (backward, packed.labels)
        prob, labels = mix(*directions, weights)
        yield result._replace(prob=prob, labels=labels, directions=directions)


def _encode_ahead(
    tracker: Tracker, frames: Iterable[Frame], write_all: bool
) -> Iterator[tuple[Frame, list[EncodedImage] | None]]:
    """Yield frames with their encodings; None for frames that were not encoded in a batch."""
    frames = iter(frames)
    failure: Exception | None = None
    while failure is None:
        group: deque[Frame] = deque()
        num_certain = 0
        try:
            for frame in frames:
                group.append(frame)
                num_certain += _is_certain(tracker, frame, write_all)
                num = tracker.encode_batch_size(frame.image)
                if num_certain >= num or len(group) >= _FRAMES_HELD * num:
                    break
        except Exception as error:  # raised below, after the frames before it are segmented
            failure = error
        if not group:
            break
        encodings = _encode(tracker, group, write_all)
        while group:
            frame = group.popleft()
            yield frame, encodings.pop(frame.index, None)
    if failure is not None:
        raise failure


def _is_certain(tracker: Tracker, frame: Frame, write_all: bool) -> bool:
    """Whether the frame will be segmented; optional frames are usually skipped."""
    return frame.is_required or write_all or tracker.needs_every_frame


def _encode(
    tracker: Tracker, group: Iterable[Frame], write_all: bool
) -> dict[int, list[EncodedImage]]:
    """Encode the frames of a group that will be segmented, in one batch, by frame index.

    The result is empty if fewer than two frames can share a batch. Frames before the first object
    are not encoded.
    """
    if not tracker.labels:
        group = itertools.dropwhile(lambda frame: frame.annotation is None, group)
    certain = [frame for frame in group if _is_certain(tracker, frame, write_all)]
    if len(certain) < 2 or len({frame.image.shape for frame in certain}) > 1:
        return {}
    try:
        encodings = tracker.encode_images([frame.image for frame in certain])
    except ValueError:  # Tracker.step raises it again and names the frame
        return {}
    return {frame.index: views for frame, views in zip(certain, encodings, strict=True)}


def _segment(
    tracker: Tracker,
    frame: Frame,
    encoded: list[EncodedImage] | None,
    is_last: bool,
    write_all: bool,
) -> SegmentedFrame:
    is_required = frame.is_required or write_all
    try:
        prob = tracker.step(frame.image, frame.annotation, is_last, is_required, encoded)
    except ValueError as error:
        raise ValueError(f"frame {frame.name}: {error}") from error
    labels, quality = [*tracker.labels], dict(tracker.quality)
    return SegmentedFrame(frame, prob if is_required else None, labels, quality, tracker.query_key)


def _is_removed(annotated: Sequence[int], removed: Sequence[int], index: int, step: int) -> bool:
    """Whether an object has been removed since the annotation that this propagation started from.

    Args:
        annotated: frames with an annotation of the object, ascending.
        removed: frames from which the object is absent, up to its next annotation.
        step: 1 forwards, -1 backwards.
    """
    if step < 0:
        later = annotated[bisect.bisect_left(annotated, index)]
        return any(frame <= index < later for frame in removed)
    before = annotated[bisect.bisect_right(annotated, index) - 1]
    return any(before < frame <= index for frame in removed)


def annotated_frames(annotated_labels: Mapping[int, Sequence[int]]) -> dict[int, list[int]]:
    """Invert frame index -> labels to label -> frame indices, ascending."""
    frames: dict[int, list[int]] = {}
    for index, labels in sorted(annotated_labels.items()):
        for label in labels:
            frames.setdefault(label, []).append(index)
    return frames


def _forward_weight(annotated: Sequence[int], index: int) -> float:
    """Weight of the forward propagation on a frame, for an object annotated on these frames."""
    before = [frame for frame in annotated if frame <= index]
    after = [frame for frame in annotated if frame >= index]
    if not before or not after:
        return float(bool(before))
    between = after[0] - before[-1]
    return (after[0] - index) / between if between else 1.0


def mix(
    first: Probabilities,
    second: Probabilities,
    weights: Mapping[int, float],
) -> tuple[torch.Tensor, list[int]]:
    """Weighted mean of two sets of probabilities, each (O+1, h, w) with its objects' labels.

    An object that only one of them has keeps its probabilities. The background is the remainder.

    Args:
        weights: label -> weight of the first, in [0, 1].

    Returns:
        (O+1, h, w), and the labels, ascending.
    """
    known = [dict(zip(labels, prob[1:], strict=True)) for prob, labels in (first, second)]
    labels = sorted({*known[0], *known[1]})
    parts = []
    for label in labels:
        if label in known[0] and label in known[1]:
            parts.append(torch.lerp(known[1][label], known[0][label], weights[label]))
        else:
            parts.append(known[0][label] if label in known[0] else known[1][label])
    objects = torch.stack(parts)
    # Where the two have different objects, the sum can exceed 1.
    objects = objects / objects.sum(0).clamp(min=1)
    return torch.cat([(1 - objects.sum(0, keepdim=True)).clamp(min=0), objects]), labels
