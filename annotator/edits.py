"""Edits of label maps by persons, their undo history, and the masks of a propagation."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from annotator.errors import ConflictError, SessionError
from annotator.label_maps import Box, bounding_box, hide, pack, unpack
from annotator.store import PROTECTED, FrameState, Store, put_frame, put_state


class History(NamedTuple):
    """Whether there is something to undo and to redo."""

    undo: bool
    redo: bool


def paint(
    store: Store, frame: int, revision: int, label: int, box: Box, patch: np.ndarray
) -> FrameState:
    """Replace a rectangle of a frame's label map; the object's state becomes "drawn".

    Pixels of locked objects stay.

    Args:
        revision: that of the frame when the page loaded it.
        label: the object that was painted or erased.
        patch: (height, width) uint8, the new labels of the rectangle.

    Raises:
        ConflictError: the frame has another revision.
        SessionError: the object does not exist or is locked, the rectangle is outside of the
            frame, or the patch has labels of no object.
    """
    height, width = store.size
    is_inside = 0 <= box.x <= box.x + box.width <= width
    is_inside = is_inside and 0 <= box.y <= box.y + box.height <= height
    if not is_inside or box.width < 1 or box.height < 1:
        raise SessionError(
            f"The rectangle {tuple(box)} (x, y, width, height) is not inside of a frame of "
            f"{width}x{height} pixels."
        )
    unknown = sorted({*np.unique(patch).tolist()} - {0, *(k.label for k in store.objects())})
    if unknown:
        raise SessionError(f"There is no object {unknown[0]}: reload the page.")
    with store.reading():
        _check(store, frame, revision, label)
        return _put_patch(store, frame, label, box, patch, "drawn")


def replace_mask(
    store: Store, frame: int, revision: int, label: int, mask: np.ndarray, state: str | None
) -> FrameState:
    """Replace one object's mask on a frame; other objects lose pixels to it unless locked.

    Args:
        mask: (H, W) bool.
        state: new state of the object on the frame.

    Raises: see `paint`.
    """
    with store.reading():
        _check(store, frame, revision, label)
        labels = store.labels(frame)
        patch = np.where(labels == label, 0, labels).astype(np.uint8)
        patch[mask] = label
        box = bounding_box(patch != labels)
        return _put_patch(store, frame, label, box, box.of(patch), state)


def change_state(
    store: Store, frame: int, revision: int, label: int, state: str | None
) -> FrameState:
    """Change the state of an object on a frame; its pixels stay. Raises as `paint` does."""
    with store.reading():
        _check(store, frame, revision, label)
        return _commit(store, frame, label, None, None, state)


def remove_object(store: Store, label: int) -> None:
    """Remove an object from all frames; `undo` brings it back.

    Raises:
        SessionError: the object does not exist or is locked.
    """
    if store.find_object(label).is_locked:
        raise SessionError(f"{store.find_object(label).name} is locked: unlock it first.")
    with store.writing() as db:
        db.execute("UPDATE objects SET is_removed = 1 WHERE label = ?", (label,))
        _forget_undone(db)
        db.execute("INSERT INTO edits (label) VALUES (?)", (label,))


def put_propagated(
    store: Store, frame: int, labels: np.ndarray, objects: Collection[int]
) -> FrameState | None:
    """Store the masks of a propagation, except for what persons gave.

    Objects that are drawn, accepted, marked empty or locked on this frame keep their pixels.

    Args:
        labels: (H, W) uint8.
        objects: labels that were propagated.

    Returns:
        The new state of the frame; None if every object is protected.
    """
    known = {known.label: known for known in store.objects()}
    with store.reading():
        states = store.frame(frame).states
        protected = {k for k, state in states.items() if state in PROTECTED}
        protected |= {k for k, entry in known.items() if entry.is_locked}
        free = sorted({*objects} & {*known} - protected)
        if not free:
            return None
        stored = store.stored_labels(frame)
        others = [k for k in np.unique(stored).tolist() if k and k not in free]
        merged = np.where(np.isin(stored, others), stored, 0).astype(np.uint8)
        is_free = ~np.isin(stored, [k for k in others if k in protected])
        merged = np.where(is_free & np.isin(labels, free), labels, merged)
        with store.writing() as db:
            put_frame(db, frame, merged)
            for label in free:
                put_state(db, frame, label, "propagated")
        return store.frame(frame)


def undo(store: Store) -> tuple[int | None, int]:
    """Undo the latest edit.

    Pixels that have changed since then stay.

    Returns:
        The frame that changed, None for the removal of an object; and the object's label.

    Raises:
        SessionError: there is nothing to undo.
    """
    return _step(store, is_undo=True)


def redo(store: Store) -> tuple[int | None, int]:
    """Redo the latest edit that was undone; see `undo`."""
    return _step(store, is_undo=False)


def history(store: Store) -> History:
    """Return whether there is something to undo and to redo."""
    with store.reading() as db:
        is_undone = {bool(u) for (u,) in db.execute("SELECT DISTINCT is_undone FROM edits")}
    return History(undo=False in is_undone, redo=True in is_undone)


def _check(store: Store, frame: int, revision: int, label: int) -> None:
    known = store.find_object(label)
    if known.is_locked:
        raise SessionError(f"{known.name} is locked: unlock it first.")
    current = store.frame(store.check_frame(frame)).revision
    if current != revision:
        raise ConflictError(
            f"Frame {frame} has changed since it was loaded: it is loaded again, and this edit is "
            "dropped."
        )


def _put_patch(
    store: Store, frame: int, label: int, box: Box, patch: np.ndarray, state: str | None
) -> FrameState:
    """Put a rectangle into the label map of a frame, apart from pixels of locked objects."""
    objects = {known.label: known for known in store.objects()}
    locked = [known.label for known in objects.values() if known.is_locked]
    stored = store.stored_labels(frame)
    before = box.of(stored).copy()
    # Removed objects are invisible to the page, which sends 0 for their pixels.
    seen = hide(before, [value for value in np.unique(before).tolist() if value not in objects])
    after = np.where((patch != seen) & ~np.isin(seen, locked), patch, before)
    box.of(stored)[:] = after
    return _commit(store, frame, label, stored, (box, before, after), state)


def _commit(
    store: Store,
    frame: int,
    label: int,
    labels: np.ndarray | None,
    change: tuple[Box, np.ndarray, np.ndarray] | None,
    state: str | None,
) -> FrameState:
    """Store an edit and its entry in the history in one transaction."""
    state_before = store.frame(frame).states.get(label)
    box, before, after = change or (None, None, None)
    with store.writing() as db:
        put_frame(db, frame, store.stored_labels(frame) if labels is None else labels)
        put_state(db, frame, label, state)
        _forget_undone(db)
        db.execute(
            "INSERT INTO edits (frame, label, x, y, width, height, before, after, state_before, "
            "state_after) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                frame, label, *(box or (None,) * 4), None if before is None else pack(before),
                None if after is None else pack(after), state_before, state,
            ),
        )  # fmt: skip
    return store.frame(frame)


def _forget_undone(db: sqlite3.Connection) -> None:
    """Delete what could be redone, as a new edit follows."""
    db.execute("DELETE FROM edits WHERE is_undone")


def _step(store: Store, is_undo: bool) -> tuple[int | None, int]:
    with store.reading() as db:
        order = "max" if is_undo else "min"
        row = db.execute(
            "SELECT id, frame, label, x, y, width, height, before, after, state_before, "
            "state_after FROM edits "
            f"WHERE id = (SELECT {order}(id) FROM edits WHERE is_undone = ?)",
            (not is_undo,),
        ).fetchone()
        if row is None:
            raise SessionError(f"There is nothing to {'undo' if is_undo else 'redo'}.")
        number, frame, label, x, y, width, height, before, after, state_before, state_after = row
        with store.writing():
            db.execute("UPDATE edits SET is_undone = ? WHERE id = ?", (is_undo, number))
            if frame is None:
                db.execute(
                    "UPDATE objects SET is_removed = ? WHERE label = ?", (not is_undo, label)
                )
                return None, label
            labels = store.stored_labels(frame)
            if before is not None:
                box = Box(x, y, width, height)
                old, new = unpack(before, (height, width)), unpack(after, (height, width))
                if not is_undo:
                    old, new = new, old
                current = box.of(labels)
                current[:] = np.where((old != new) & (current == new), old, current)
            put_frame(db, frame, labels)
            put_state(db, frame, label, state_before if is_undo else state_after)
        return frame, label


def timeline(store: Store) -> dict[str, list[tuple[int, int, str]]]:
    """Summarise the states of all frames: label -> runs (first frame, last frame, state)."""
    rows: dict[str, list[tuple[int, int, str]]] = {str(k.label): [] for k in store.objects()}
    for label, frame, state in store.states():
        runs = rows[str(label)]
        if runs and runs[-1][1] == frame - 1 and runs[-1][2] == state:
            runs[-1] = (runs[-1][0], frame, state)
        else:
            runs.append((frame, frame, state))
    return rows
