"""Operations on one object's mask of a frame, by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from annotator.aids import fill_holes, grow, largest_part, shrink
from annotator.edits import change_state, replace_mask
from annotator.errors import SessionError
from annotator.store import FrameState, Store

# The new mask (H, W) bool from the old one and a number of pixels.
_MASK_OPERATIONS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "fill": lambda mask, _: fill_holes(mask),
    "largest": lambda mask, _: largest_part(mask),
    "grow": grow,
    "shrink": shrink,
}
# The new state from the old one.
_STATE_OPERATIONS: dict[str, tuple[str, str | None]] = {
    "accept": ("propagated", "accepted"),
    "unaccept": ("accepted", "propagated"),
    "unempty": ("empty", None),
}
OPERATIONS = (*_MASK_OPERATIONS, *_STATE_OPERATIONS, "copy", "clear", "empty")


def operate(
    store: Store,
    frame: int,
    revision: int,
    label: int,
    operation: str,
    source: int | None = None,
    pixels: int = 1,
) -> FrameState:
    """Apply an operation to one object of a frame.

    Args:
        revision: that of the frame when the page loaded it.
        label: the object; 0 with "accept": all propagated objects.
        operation: one of OPERATIONS. "empty" declares that the object is absent from this frame.
        source: frame whose mask "copy" takes.
        pixels: by which "grow" and "shrink" move the outline, 1 to 100.

    Raises:
        SessionError, ConflictError: see `annotator.edits.paint`; or the operation does nothing
            here.
    """
    if operation == "accept" and label == 0:
        return _accept_all(store, frame, revision)
    if operation in _STATE_OPERATIONS:
        before, after = _STATE_OPERATIONS[operation]
        if store.frame(frame).states.get(label) != before:
            name = store.find_object(label).name
            raise SessionError(f"The mask of {name} on frame {frame} is not {before}.")
        return change_state(store, frame, revision, label, after)
    mask = store.labels(frame) == label
    if operation in ("clear", "empty"):
        state = "empty" if operation == "empty" else None
        return replace_mask(store, frame, revision, label, np.zeros_like(mask), state)
    if operation == "copy":
        if source is None:
            raise SessionError("The frame to copy from is missing.")
        mask = store.labels(source) == label
        if not mask.any():
            name = store.find_object(label).name
            raise SessionError(f"Frame {source} has no mask of {name} to copy.")
        return replace_mask(store, frame, revision, label, mask, "drawn")
    if operation not in _MASK_OPERATIONS:
        raise SessionError(f"There is no operation {operation!r}: use {', '.join(OPERATIONS)}.")
    if not mask.any():
        raise SessionError(f"{store.find_object(label).name} has no mask on frame {frame}.")
    if not 1 <= pixels <= 100:
        raise SessionError(f"The number of pixels must be from 1 to 100; it is {pixels}.")
    return replace_mask(
        store, frame, revision, label, _MASK_OPERATIONS[operation](mask, pixels), "drawn"
    )


def _accept_all(store: Store, frame: int, revision: int) -> FrameState:
    state = store.frame(store.check_frame(frame))
    propagated = [label for label, name in state.states.items() if name == "propagated"]
    if not propagated:
        raise SessionError(f"Frame {frame} has no propagated mask to accept.")
    for label in propagated:
        state = change_state(store, frame, revision, label, "accepted")
        revision = state.revision
    return state
