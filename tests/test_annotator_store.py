"""The annotator's session on disk: edits, states, undo, conflicts, locks, and what survives."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from annotator import edits
from annotator.errors import ConflictError, FullDiskError, SessionError
from annotator.label_maps import Box, pack, unpack
from annotator.store import Store

ROOT = Path(__file__).resolve().parents[1]
SIZE = (12, 16)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store(tmp_path / "session", 10, SIZE, tmp_path / "clip.mp4")
    opened.add_object()
    opened.add_object("dog")
    return opened


def paint(store: Store, frame: int, label: int, box: tuple[int, int, int, int]) -> int:
    """Fill a rectangle with a label; return the revision."""
    patch = np.full((box[3], box[2]), label, np.uint8)
    revision = store.frame(frame).revision
    return edits.paint(store, frame, revision, label, Box(*box), patch).revision


def propagated(*boxes: tuple[int, slice, slice]) -> np.ndarray:
    labels = np.zeros(SIZE, np.uint8)
    for label, rows, columns in boxes:
        labels[rows, columns] = label
    return labels


def test_painting_is_stored_and_survives_reopening(store: Store, tmp_path: Path) -> None:
    assert paint(store, 3, 1, (2, 1, 5, 4)) == 1
    assert paint(store, 3, 2, (4, 2, 6, 2)) == 2  # takes pixels of object 1
    store.close()
    again = Store(tmp_path / "session", 10, SIZE, tmp_path / "clip.mp4")
    labels = again.labels(3)
    assert np.count_nonzero(labels == 1) == 20 - 6
    assert np.count_nonzero(labels == 2) == 12
    assert again.frame(3).states == {1: "drawn", 2: "drawn"}
    assert [known.name for known in again.objects()] == ["object 1", "dog"]
    assert not again.labels(4).any()
    assert again.frame(4).revision == 0


def test_undo_and_redo_go_across_frames_and_survive_reopening(store: Store, tmp_path: Path) -> None:
    paint(store, 0, 1, (0, 0, 4, 4))
    paint(store, 7, 1, (0, 0, 2, 2))
    paint(store, 7, 2, (1, 1, 2, 2))
    assert edits.undo(store) == (7, 2)
    store.close()
    store = Store(tmp_path / "session", 10, SIZE, tmp_path / "clip.mp4")
    assert np.unique(store.labels(7)).tolist() == [0, 1]
    assert np.count_nonzero(store.labels(7)) == 4, "object 1 has its pixels back"
    assert store.frame(7).states == {1: "drawn"}
    assert edits.undo(store) == (7, 1)
    assert edits.undo(store) == (0, 1)
    assert edits.history(store) == (False, True)
    with pytest.raises(SessionError, match="nothing to undo"):
        edits.undo(store)
    for _ in range(3):
        edits.redo(store)
    assert store.labels(7)[1, 1] == 2
    assert edits.history(store) == (True, False)
    edits.undo(store)
    paint(store, 1, 1, (0, 0, 1, 1))
    assert edits.history(store) == (True, False), "a new edit ends what could be redone"


def test_undo_keeps_what_came_later(store: Store) -> None:
    """A propagation after the edit is not undone with it."""
    paint(store, 5, 1, (0, 0, 3, 3))
    edits.put_propagated(store, 5, propagated((2, slice(6, 9), slice(6, 9))), [1, 2])
    edits.undo(store)
    labels = store.labels(5)
    assert not (labels == 1).any()
    assert np.count_nonzero(labels == 2) == 9


def test_an_edit_of_an_older_revision_is_refused(store: Store) -> None:
    paint(store, 2, 1, (0, 0, 3, 3))
    before = store.labels(2)
    with pytest.raises(ConflictError, match="Frame 2 has changed since it was loaded"):
        edits.paint(store, 2, 0, 1, Box(0, 0, 2, 2), np.zeros((2, 2), np.uint8))
    np.testing.assert_array_equal(store.labels(2), before)


def test_propagation_does_not_change_what_persons_gave(store: Store) -> None:
    third = store.add_object().label
    paint(store, 4, 1, (0, 0, 4, 4))
    state = store.frame(4)
    edits.change_state(store, 4, state.revision, third, "empty")
    everything = propagated((2, slice(0, 12), slice(0, 10)), (3, slice(0, 12), slice(10, 16)))
    result = edits.put_propagated(store, 4, everything, [1, 2, 3])
    assert result is not None
    assert result.states == {1: "drawn", 2: "propagated", 3: "empty"}
    labels = store.labels(4)
    assert np.count_nonzero(labels == 1) == 16, "drawn pixels stay"
    assert np.count_nonzero(labels == 2) == 120 - 16
    assert not (labels == 3).any(), "an object that is absent stays absent"
    # A later propagation replaces the propagated mask, and never the drawn one.
    edits.put_propagated(store, 4, propagated((2, slice(11, 12), slice(0, 1))), [1, 2, 3])
    labels = store.labels(4)
    assert np.count_nonzero(labels == 1) == 16
    assert np.count_nonzero(labels == 2) == 1


def test_locked_objects_keep_their_pixels(store: Store) -> None:
    paint(store, 0, 1, (0, 0, 4, 4))
    store.change_object(1, is_locked=True)
    paint(store, 0, 2, (0, 0, 8, 4))
    assert np.count_nonzero(store.labels(0) == 1) == 16
    assert np.count_nonzero(store.labels(0) == 2) == 16
    with pytest.raises(SessionError, match="object 1 is locked: unlock it first"):
        paint(store, 0, 1, (5, 5, 1, 1))
    edits.put_propagated(store, 1, propagated((1, slice(0, 2), slice(0, 2))), [1])
    assert not store.labels(1).any()


def test_removed_objects_come_back(store: Store) -> None:
    paint(store, 0, 1, (0, 0, 4, 4))
    paint(store, 0, 2, (8, 0, 4, 4))
    edits.remove_object(store, 2)
    assert [known.label for known in store.objects()] == [1]
    assert not (store.labels(0) == 2).any()
    assert store.frame(0).states == {1: "drawn"}
    # The page sees background there and paints beside it.
    patch = store.labels(0)
    patch[10:] = 1
    edits.paint(store, 0, store.frame(0).revision, 1, Box(0, 0, 16, 12), patch)
    assert store.add_object().label == 3, "labels are not used again"
    edits.undo(store)
    assert edits.undo(store) == (None, 2)
    assert np.count_nonzero(store.labels(0) == 2) == 16


def test_timeline(store: Store) -> None:
    for frame in (1, 2, 3, 6):
        edits.put_propagated(store, frame, propagated((1, slice(0, 2), slice(0, 2))), [1])
    paint(store, 2, 1, (0, 0, 1, 1))
    assert edits.timeline(store) == {
        "1": [(1, 1, "propagated"), (2, 2, "drawn"), (3, 3, "propagated"), (6, 6, "propagated")],
        "2": [],
    }


@pytest.mark.parametrize(
    ("box", "patch", "label", "sentence"),
    [
        (Box(10, 0, 10, 2), np.zeros((2, 10), np.uint8), 1, "is not inside of a frame of 16x12"),
        (Box(-1, 0, 2, 2), np.zeros((2, 2), np.uint8), 1, "is not inside"),
        (Box(0, 0, 0, 2), np.zeros((2, 0), np.uint8), 1, "is not inside"),
        (Box(0, 0, 2, 2), np.full((2, 2), 9, np.uint8), 1, "There is no object 9"),
        (Box(0, 0, 2, 2), np.zeros((2, 2), np.uint8), 7, "There is no object 7"),
    ],
)
def test_invalid_edits_are_refused(
    box: Box, patch: np.ndarray, label: int, sentence: str, store: Store
) -> None:
    with pytest.raises(SessionError, match=sentence):
        edits.paint(store, 0, 0, label, box, patch)
    assert store.frame(0).revision == 0


def test_pixels_are_decompressed_within_their_size() -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(unpack(pack(labels), (3, 4)), labels)
    bomb = pack(np.zeros((4000, 4000), np.uint8))
    with pytest.raises(SessionError, match="more than 12 bytes"):
        unpack(bomb, (3, 4))
    with pytest.raises(SessionError, match="have 12 bytes"):
        unpack(pack(labels), (5, 5))
    with pytest.raises(SessionError, match="not gzip data"):
        unpack(b"nonsense", (3, 4))


def test_other_clips_and_versions_are_refused(store: Store, tmp_path: Path) -> None:
    store.close()
    with pytest.raises(SessionError, match="10 frames of 16x12 pixels"):
        Store(tmp_path / "session", 11, SIZE, tmp_path / "clip.mp4")
    Store(tmp_path / "session", 10, SIZE, tmp_path / "moved.mp4").close()
    (tmp_path / "moved.mp4").touch()
    with pytest.raises(SessionError, match="choose another --session folder"):
        Store(tmp_path / "session", 10, SIZE, tmp_path / "other.mp4")
    with sqlite3.connect(tmp_path / "session" / "session.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(SessionError, match="newer version"):
        Store(tmp_path / "session", 10, SIZE, tmp_path / "moved.mp4")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "session.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(SessionError, match="cannot be read"):
        Store(tmp_path / "bad", 10, SIZE, tmp_path / "clip.mp4")


def test_a_full_disk_is_said_and_loses_nothing(store: Store) -> None:
    paint(store, 0, 1, (0, 0, 4, 4))
    with store.reading() as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
    noise = np.random.default_rng(0).integers(1, 3, SIZE).astype(np.uint8)

    def fill_the_disk() -> None:
        for number in range(200):
            revision = store.frame(number % 8 + 1).revision
            edits.paint(store, number % 8 + 1, revision, 1, Box(0, 0, 16, 12), noise)

    with pytest.raises(FullDiskError, match="Nothing was saved"):
        fill_the_disk()
    with store.reading() as db:
        db.execute(f"PRAGMA max_page_count = {pages + 10_000}")
    assert np.count_nonzero(store.labels(0)) == 16
    paint(store, 9, 1, (0, 0, 1, 1))


PAINTER = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, {root!r})
from annotator import edits
from annotator.label_maps import Box
from annotator.store import Store
store = Store(Path({folder!r}), 1000, (40, 60), Path("clip.mp4"))
if not store.objects():
    store.add_object()
for frame in range(1000):
    revision = store.frame(frame).revision
    patch = np.full((40, 60), 1, np.uint8)
    edits.paint(store, frame, revision, 1, Box(0, 0, 60, 40), patch)
    print(frame, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """A process that prints the frame after each edit is killed; each printed frame is there."""
    code = PAINTER.format(root=str(ROOT), folder=str(tmp_path / "session"))
    for lines in (3, 11):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(lines)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().split()]
        process.wait()
        store = Store(tmp_path / "session", 1000, (40, 60), Path("clip.mp4"))
        for frame in acknowledged:
            assert store.labels(frame).all()
            assert store.frame(frame).states == {1: "drawn"}
        store.close()
