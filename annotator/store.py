"""One annotation session on disk: label maps, states, objects and edits of a clip, in SQLite.

What a method of `Store` has returned from is on the disk: it survives a killed server and a power
failure. Every frame has one label map, so masks of objects never overlap.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from annotator.errors import FullDiskError, SessionError
from annotator.label_maps import hide, pack, unpack
from util.masks import DAVIS_PALETTE

State = Literal["drawn", "accepted", "propagated", "empty"]
# States that a person gave: propagation never changes these masks.
PROTECTED: frozenset[str] = frozenset(("drawn", "accepted", "empty"))
MAX_OBJECTS = 255
_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS clip (
    path TEXT, num_frames INTEGER, height INTEGER, width INTEGER);
CREATE TABLE IF NOT EXISTS objects (
    label INTEGER PRIMARY KEY, name TEXT NOT NULL, colour TEXT NOT NULL,
    is_visible INTEGER NOT NULL DEFAULT 1, is_locked INTEGER NOT NULL DEFAULT 0,
    is_removed INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS frames (
    frame INTEGER PRIMARY KEY, revision INTEGER NOT NULL, labels BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS states (
    label INTEGER NOT NULL, frame INTEGER NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (label, frame)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS edits (
    id INTEGER PRIMARY KEY AUTOINCREMENT, frame INTEGER, label INTEGER NOT NULL,
    x INTEGER, y INTEGER, width INTEGER, height INTEGER, before BLOB, after BLOB,
    state_before TEXT, state_after TEXT, is_undone INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS results (
    frame INTEGER PRIMARY KEY, scores TEXT NOT NULL, key BLOB, key_shape TEXT);
"""


class Object(NamedTuple):
    """An object of the session."""

    label: int
    name: str
    colour: str  # "#rrggbb"
    is_visible: bool
    is_locked: bool


class FrameState(NamedTuple):
    """What changes on a frame when it is edited."""

    frame: int
    revision: int  # +1 for each change; 0: never changed
    states: dict[int, str]  # by label; unknown ones are missing


class Store:
    """The session of one clip; safe to use from several threads of one process.

    Args:
        folder: holds session.sqlite; made if needed. One process at a time may use it
            (`util.files.lock_folder`).
        num_frames: of the clip.
        size: (H, W) of its frames.
        clip: file or folder of the clip. It may have been moved since the session began.

    Attributes:
        path: session.sqlite.
        scratch: folder for temporary files, emptied at each start.

    Raises:
        SessionError: the folder holds the session of another clip, or of a newer version.
    """

    def __init__(self, folder: Path, num_frames: int, size: tuple[int, int], clip: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "session.sqlite"
        self.num_frames, self.size = num_frames, size
        self._lock = threading.RLock()
        self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._check_version()
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise SessionError(
                f"{self.path} cannot be read ({error}): choose another --session folder, or "
                "restore the file from a backup."
            ) from error
        self._check_clip(clip.resolve())
        self.scratch = folder / "scratch"
        shutil.rmtree(self.scratch, ignore_errors=True)  # of a server that was killed
        self.scratch.mkdir()

    def _check_clip(self, path: Path) -> None:
        """Write the clip into a new session, or compare it with that of an older one."""
        described = (self.num_frames, *self.size)
        with self.writing() as db:
            known = db.execute("SELECT path, num_frames, height, width FROM clip").fetchone()
            if known is None:
                db.execute("INSERT INTO clip VALUES (?, ?, ?, ?)", (str(path), *described))
                return
            is_other = known[0] != str(path) and Path(known[0]).exists()
            if is_other or known[1:] != described:
                raise SessionError(
                    f"{self.path.parent} is the session of {known[0]} ({known[1]} frames of "
                    f"{known[3]}x{known[2]} pixels), not of {path} ({described[0]} frames of "
                    f"{described[2]}x{described[1]}): choose another --session folder."
                )
            db.execute("UPDATE clip SET path = ?", (str(path),))

    def _check_version(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise SessionError(
                f"{self.path} was written by a newer version of this program: update the program."
            )
        self._db.execute(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction, which is on the disk when the block has ended.

        Raises:
            FullDiskError: the disk is full; nothing was changed.
        """
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    raise FullDiskError(
                        f"Nothing was saved: {self.path} cannot be written ({error}). Free some "
                        "space on the disk, then try again."
                    ) from error
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Run the block while no other thread changes the session."""
        with self._lock:
            yield self._db

    def check_frame(self, frame: int) -> int:
        """Return a frame index; raise SessionError if the clip has no such frame."""
        if not 0 <= frame < self.num_frames:
            raise SessionError(
                f"There is no frame {frame}: the clip has frames 0 to {self.num_frames - 1}."
            )
        return frame

    def objects(self) -> list[Object]:
        """List the objects by label, without the removed ones."""
        with self.reading() as db:
            rows = db.execute(
                "SELECT label, name, colour, is_visible, is_locked FROM objects "
                "WHERE NOT is_removed ORDER BY label"
            ).fetchall()
        return [
            Object(label, name, colour, bool(is_visible), bool(is_locked))
            for label, name, colour, is_visible, is_locked in rows
        ]

    def find_object(self, label: int) -> Object:
        """Return an object; raise SessionError if there is none with this label."""
        for known in self.objects():
            if known.label == label:
                return known
        raise SessionError(f"There is no object {label}: add it first, or reload the page.")

    def add_object(self, name: str = "", label: int = 0, colour: str = "") -> Object:
        """Add an object with the next free label. Labels of removed objects are not used again.

        Args:
            label: 0 takes the next free one.
            colour: "#rrggbb"; by default that of the DAVIS palette.

        Raises:
            SessionError: all labels are used, or this one is.
        """
        with self.writing() as db:
            (largest,) = db.execute("SELECT max(label) FROM objects").fetchone()
            label = label or (largest or 0) + 1
            if label > MAX_OBJECTS:
                raise SessionError(
                    f"There are no free labels: a session has at most {MAX_OBJECTS} objects."
                )
            if db.execute("SELECT 1 FROM objects WHERE label = ?", (label,)).fetchone():
                raise SessionError(f"Label {label} is in use, or was that of a removed object.")
            red, green, blue = DAVIS_PALETTE[3 * label : 3 * label + 3]
            colour = colour or f"#{red:02x}{green:02x}{blue:02x}"
            name = name or f"object {label}"
            db.execute(
                "INSERT INTO objects (label, name, colour) VALUES (?, ?, ?)", (label, name, colour)
            )
        return self.find_object(label)

    def change_object(self, label: int, **values: object) -> None:
        """Change name, colour, is_visible or is_locked of an object."""
        self.find_object(label)
        assert {*values} <= {"name", "colour", "is_visible", "is_locked"}
        with self.writing() as db:
            for name, value in values.items():
                db.execute(f"UPDATE objects SET {name} = ? WHERE label = ?", (value, label))

    def frame(self, frame: int) -> FrameState:
        """Return revision and states of a frame."""
        self.check_frame(frame)
        with self.reading() as db:
            row = db.execute("SELECT revision FROM frames WHERE frame = ?", (frame,)).fetchone()
            states = db.execute(
                "SELECT label, state FROM states JOIN objects USING (label) "
                "WHERE frame = ? AND NOT is_removed",
                (frame,),
            ).fetchall()
        return FrameState(frame, row[0] if row else 0, dict(states))

    def labels(self, frame: int) -> np.ndarray:
        """Return the label map of a frame, (H, W) uint8, without removed objects."""
        labels = self.stored_labels(self.check_frame(frame))
        with self.reading() as db:
            removed = [r for (r,) in db.execute("SELECT label FROM objects WHERE is_removed")]
        return hide(labels, removed) if removed else labels

    def stored_labels(self, frame: int) -> np.ndarray:
        """Return the label map of a frame with removed objects, (H, W) uint8; a copy."""
        with self.reading() as db:
            row = db.execute("SELECT labels FROM frames WHERE frame = ?", (frame,)).fetchone()
        if row is None:
            return np.zeros(self.size, np.uint8)
        return unpack(row[0], self.size)

    def states(self) -> Iterator[tuple[int, int, str]]:
        """Yield (label, frame, state) of all objects, ascending."""
        with self.reading() as db:
            rows = db.execute(
                "SELECT label, frame, state FROM states JOIN objects USING (label) "
                "WHERE NOT is_removed ORDER BY label, frame"
            ).fetchall()
        yield from rows

    def protected_frames(self) -> dict[int, dict[int, str]]:
        """Map frame index to {label: state} of what persons drew, accepted or marked empty."""
        found: dict[int, dict[int, str]] = {}
        for label, frame, state in self.states():
            if state in PROTECTED:
                found.setdefault(frame, {})[label] = state
        return dict(sorted(found.items()))


def put_frame(db: sqlite3.Connection, frame: int, labels: np.ndarray) -> None:
    """Store a label map within a transaction; the revision of its frame grows by 1."""
    db.execute(
        "INSERT INTO frames VALUES (?, 1, ?) ON CONFLICT (frame) "
        "DO UPDATE SET labels = excluded.labels, revision = revision + 1",
        (frame, pack(labels)),
    )


def put_state(db: sqlite3.Connection, frame: int, label: int, state: str | None) -> None:
    """Set the state of an object on a frame within a transaction; None: unknown."""
    if state is None:
        db.execute("DELETE FROM states WHERE frame = ? AND label = ?", (frame, label))
        return
    assert state in get_args(State)
    db.execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", (label, frame, state))
