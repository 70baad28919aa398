"""Which frames a propagation segments, and from which masks: the gaps between annotated frames."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

from annotator.errors import SessionError

Direction = Literal["forwards", "backwards", "both"]
Scope = Literal["gap", "all"]
# Other annotated frames that are also put into memory, on each side of a gap.
_NUM_REFERENCES = 3


class Gap(NamedTuple):
    """Frames to segment in one propagation."""

    first: int
    last: int  # inclusive
    direction: Direction

    @property
    def num_steps(self) -> int:
        """Number of frames to segment; "both" segments each frame twice."""
        return (self.last + 1 - self.first) * (2 if self.direction == "both" else 1)


def annotated_frames(protected: Mapping[int, Mapping[int, str]]) -> list[int]:
    """List the frames with a drawn or accepted mask, ascending.

    Args:
        protected: see `Store.protected_frames`.
    """
    return sorted(
        frame for frame, states in protected.items() if {"drawn", "accepted"} & {*states.values()}
    )


def plan(
    annotated: Sequence[int], num_frames: int, frame: int, direction: Direction, scope: Scope
) -> list[Gap]:
    """Plan the gaps of a propagation.

    "gap" is from the annotated frame at or before `frame` up to the next one (backwards: the
    reverse; both: all gaps that touch the frame). "all" is every gap of the clip.

    Args:
        annotated: frames with masks, ascending.

    Raises:
        SessionError: there is no mask to start from.
    """
    if not annotated:
        raise SessionError("There is no mask yet: draw one object on one frame first.")
    # Neighbours in this list enclose a gap; None is an end of the clip.
    ends: list[int | None] = [None, *annotated, None]
    gaps = []
    for left, right in itertools.pairwise(ends):
        if scope == "gap" and not _touches(left, right, frame, direction):
            continue
        way = _way(left, right, direction)
        first, last = left or 0, num_frames - 1 if right is None else right
        if way is not None and last > first:
            gaps.append(Gap(first, last, way))
    if not gaps and scope == "gap" and not _has_start(annotated, frame, direction):
        before, other = (
            ("before", "backwards") if direction == "forwards" else ("after", "forwards")
        )
        raise SessionError(
            f"There is no mask on frame {frame} or {before} it: draw one, or propagate {other}."
        )
    if not gaps:
        raise SessionError("There is nothing to propagate to: no frame lies in this direction.")
    return gaps


def _has_start(annotated: Sequence[int], frame: int, direction: Direction) -> bool:
    if direction == "both":
        return True
    return annotated[0] <= frame if direction == "forwards" else annotated[-1] >= frame


def _touches(left: int | None, right: int | None, frame: int, direction: Direction) -> bool:
    """Whether a propagation from a frame fills the gap between two annotated frames."""
    is_after_left = left is None or left <= frame
    is_before_right = right is None or frame <= right
    if direction == "forwards":
        is_before_right = right is None or frame < right
    if direction == "backwards":
        is_after_left = left is None or left < frame
    return is_after_left and is_before_right


def _way(left: int | None, right: int | None, direction: Direction) -> Direction | None:
    """Direction in which a gap is filled; None if there is no mask to start from."""
    if direction == "forwards":
        return None if left is None else "forwards"
    if direction == "backwards":
        return None if right is None else "backwards"
    if left is None:
        return "backwards"
    return "forwards" if right is None else "both"


def frames_of(gap: Gap, annotated: Collection[int]) -> tuple[list[int], int]:
    """List the frames that a session gets for a gap, and the position of the gap's first frame.

    Annotated frames next to the gap are segmented before it, so that memory contains them.
    """
    before = [frame for frame in annotated if frame < gap.first][-_NUM_REFERENCES:]
    after = [frame for frame in annotated if frame > gap.last][:_NUM_REFERENCES]
    inside = [*range(gap.first, gap.last + 1)]
    if gap.direction == "forwards":
        return [*before, *reversed(after), *inside], len(before) + len(after)
    if gap.direction == "backwards":
        return [*inside, *reversed(before), *after], 0
    return [*before, *inside, *after], len(before)
