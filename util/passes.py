"""Through a video forwards, backwards, or both ways."""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from util.background import Frames, prefetch
from util.scores import pack_scores, read_scores, write_scores
from util.tracker import Tracker

# Frames that nobody wants wait with those that are wanted, so many times as many at most.
_FRAMES_HELD = 5


class Segmented(NamedTuple):
    """A frame, and what was found on it."""

    frame: Any  # as datasets/video.py has it
    prob: torch.Tensor | None  # (O+1, h, w), background first; None where nobody wants it
    labels: list[int]  # of the objects
    quality: dict[int, float]  # how good their masks look, where the method says


class GivenFrames(Frames, Protocol):
    """Frames, and the objects whose masks are given on them."""

    @property
    def new_objects(self) -> dict[int, list[int]]:
        """Labels by frame."""


def propagate(
    video: GivenFrames,
    start: Callable[[], Tracker],
    direction: str = "forwards",
    scratch: Path | None = None,
    write_all: bool = True,
    removed: Mapping[int, Sequence[int]] | None = None,
) -> Iterator[Segmented | None]:
    """Segment a video from the masks given on its frames.

    Forwards, a mask counts from its frame on, and backwards, up to it. Both ways, a first pass goes
    backwards and leaves its probabilities in files, so that memory stays as it is; the second one
    goes forwards and yields the mean of both. An object between two of its masks counts in each
    the more, the nearer that pass' mask is (Cheng et al., MiVOS, CVPR 2021, weigh linearly too).

    Args:
        start: makes a tracker for a pass.
        scratch: folder for those files, where `direction` is "both".
        write_all: every frame is wanted, not the required ones alone.
        removed: label -> frames from which on the object is gone, until a mask is given again.

    Yields:
        a frame in the order of the pass, or None for a frame of the first of two passes.

    Raises:
        ValueError: a frame cannot be decoded or segmented; it is named.
    """
    given = given_frames(video)
    onwards, back = range(len(video)), range(len(video) - 1, -1, -1)

    def run(order: range) -> Iterator[Segmented]:
        tracker = start()
        frames = prefetch(video, order)
        for frame, seen in _look_ahead(tracker, frames, write_all):
            leaving = [
                label
                for label in tracker.labels
                if _is_gone(given[label], (removed or {}).get(label, ()), frame.index, order.step)
            ]
            if leaving:
                tracker.remove(leaving)
            yield _segment(tracker, frame, seen, frame.index == order[-1], write_all)
            del seen  # with it, what was seen of its whole group

    if direction != "both":
        yield from run(onwards if direction == "forwards" else back)
        return
    assert scratch is not None
    scratch.mkdir(exist_ok=True)
    for found in run(back):
        if found.prob is not None and found.labels:
            path = scratch / f"{found.frame.index}.npz"
            write_scores(path, pack_scores(found.prob, found.labels), level=0)
        yield None
    for found in run(onwards):
        path = scratch / f"{found.frame.index}.npz"
        if found.prob is None or not path.exists():
            yield found
            continue
        packed = read_scores(path)
        path.unlink()
        later = torch.from_numpy(packed.prob).to(found.prob.device).float() / 255
        weights = {k: _forward_weight(frames, found.frame.index) for k, frames in given.items()}
        prob, labels = mix((found.prob, found.labels), (later, packed.labels), weights)
        yield found._replace(prob=prob, labels=labels)


def _look_ahead(
    tracker: Tracker, frames: Iterable[Any], write_all: bool
) -> Iterator[tuple[Any, Any]]:
    """Frames, and what the tracker saw of them when it looked at several at once (or None)."""
    frames = iter(frames)
    failure: Exception | None = None
    while failure is None:
        group: deque[Any] = deque()
        num_due = 0
        try:
            for frame in frames:
                group.append(frame)
                num_due += _is_due(tracker, frame, write_all)
                num = tracker.frames_at_once(frame.image)
                if num_due >= num or len(group) >= _FRAMES_HELD * num:
                    break
        except Exception as error:  # of a frame that comes after those of the group
            failure = error
        if not group:
            break
        seen = _look(tracker, group, write_all)
        while group:
            frame = group.popleft()
            yield frame, seen.pop(frame.index, None)
    if failure is not None:
        raise failure


def _is_due(tracker: Tracker, frame: Any, write_all: bool) -> bool:
    """Whether a frame is looked at for certain; of those that nobody wants, most are not."""
    return frame.is_required or write_all or tracker.needs_every_frame


def _look(tracker: Tracker, group: Iterable[Any], write_all: bool) -> dict[int, Any]:
    """What the tracker sees of frames, by index; of none where one look is no better."""
    if not tracker.labels:  # before there are objects, nothing is looked at
        group = itertools.dropwhile(lambda frame: frame.new_labels is None, group)
    due = [frame for frame in group if _is_due(tracker, frame, write_all)]
    if len(due) < 2 or len({frame.image.shape for frame in due}) > 1:
        return {}
    try:
        looks = tracker.look([frame.image for frame in due])
    except ValueError:  # the tracker's step says of which frame
        return {}
    return {frame.index: look for frame, look in zip(due, looks, strict=True)}


def _segment(tracker: Tracker, frame: Any, seen: Any, is_last: bool, write_all: bool) -> Segmented:
    is_wanted = frame.is_required or write_all
    try:
        prob = tracker.step(frame.image, frame.new_labels, is_last, is_wanted, seen)
    except ValueError as error:
        raise ValueError(f"frame {frame.name}: {error}") from error
    labels, quality = [*tracker.labels], dict(tracker.quality)
    return Segmented(frame, prob if is_wanted else None, labels, quality)


def _is_gone(given: Sequence[int], removed: Sequence[int], index: int, step: int) -> bool:
    """Whether an object that a pass follows since a mask of it has been removed since then.

    given: frames with masks of it, rising; removed: frames from which on it is gone, up to the next
    mask of it.
    """
    if step < 0:
        later = given[bisect.bisect_left(given, index)]
        return any(frame <= index < later for frame in removed)
    before = given[bisect.bisect_right(given, index) - 1]
    return any(before < frame <= index for frame in removed)


def given_frames(video: GivenFrames) -> dict[int, list[int]]:
    """The frames on which each object's mask is given, rising, by label."""
    frames: dict[int, list[int]] = {}
    for index, labels in sorted(video.new_objects.items()):
        for label in labels:
            frames.setdefault(label, []).append(index)
    return frames


def _forward_weight(given: Sequence[int], index: int) -> float:
    """How much the forward pass counts on a frame, for an object with masks on frames `given`."""
    before = [frame for frame in given if frame <= index]
    after = [frame for frame in given if frame >= index]
    if not before or not after:
        return float(bool(before))
    between = after[0] - before[-1]
    return (after[0] - index) / between if between else 1.0


def mix(
    first: tuple[torch.Tensor, Sequence[int]],
    second: tuple[torch.Tensor, Sequence[int]],
    weights: Mapping[int, float],
) -> tuple[torch.Tensor, list[int]]:
    """Mean of two passes' probabilities, each (O+1, h, w) and the objects' labels.

    weights: of the first one, in [0, 1], by label. An object that one of them does not know is as
    the other says. The background is what the objects leave.

    Returns:
        (O+1, h, w), and the labels, rising.
    """
    known = [dict(zip(labels, prob[1:], strict=True)) for prob, labels in (first, second)]
    labels = sorted({*known[0], *known[1]})
    parts = []
    for label in labels:
        if label in known[0] and label in known[1]:
            parts.append(torch.lerp(known[1][label], known[0][label], weights[label]))
        else:
            parts.append(known[label in known[1]][label])
    objects = torch.stack(parts)
    # Of two opinions that know different objects, both may be sure.
    objects = objects / objects.sum(0).clamp(min=1)
    return torch.cat([(1 - objects.sum(0, keepdim=True)).clamp(min=0), objects]), labels
