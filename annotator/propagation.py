"""Propagation in a background thread, written to the session frame by frame."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from annotator.clip import Clip
from annotator.edits import put_propagated
from annotator.errors import SessionError
from annotator.gaps import Direction, Gap, Scope, annotated_frames, frames_of, plan
from annotator.results import put_result
from annotator.store import FrameState, Store
from inference.clip_session import ClipSession
from inference.frame_results import FrameResult
from inference.predictor import Predictor
from inference.tracker import Tracker

# Announces {"type": ..., ...} to the pages; called from any thread.
Announce = Callable[[dict[str, Any]], None]


class Job(NamedTuple):
    """Progress of a propagation."""

    id: int
    direction: Direction
    scope: Scope
    phase: str  # "loading", "backwards" or "forwards"
    done: int  # frames segmented; "both" segments a frame twice
    total: int
    frame: int  # segmented last
    fps: float  # frames per second so far, without the loading


class Propagator:
    """Runs one propagation at a time, in a thread.

    Args:
        load: makes the predictor; called once, in the thread.
        announce: gets events of type "job" and "frame" (see docs/annotator.md).
        scratch: folder for temporary files.
    """

    def __init__(
        self,
        store: Store,
        clip: Clip,
        load: Callable[[], Predictor],
        announce: Announce,
        scratch: Path,
    ) -> None:
        self._store, self._clip, self._load = store, clip, load
        self._announce, self._scratch = announce, scratch
        self._predictor: Predictor | None = None
        self._load_lock = threading.Lock()
        self._lock = threading.Lock()  # of the attributes below
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._number = 0
        self.job: Job | None = None

    def warm_up(self) -> threading.Thread:
        """Load the weights and segment black frames in a thread, so that propagations start soon.

        The first frames of a process are slower: libraries allocate memory and choose algorithms.
        """

        def run() -> None:
            with contextlib.suppress(Exception):  # the first propagation raises it again
                tracker = Tracker(self.predictor())
                black = np.zeros((*self._clip.size, 3), np.uint8)
                for mask in (np.ones(self._clip.size, np.uint8), None):
                    if self.job is None and not self._stop.is_set():
                        tracker.segment(black, mask)

        thread = threading.Thread(target=run, name="load", daemon=True)
        thread.start()
        return thread

    def predictor(self) -> Predictor:
        """Return the predictor; load it first if needed."""
        with self._load_lock:
            if self._predictor is None:
                self._predictor = self._load()
            return self._predictor

    def start(self, direction: Direction, scope: Scope, frame: int) -> Job:
        """Start a propagation from the masks that are stored now.

        Raises:
            SessionError: one is running, or there is no mask to start from.
        """
        with self._lock:
            if self.job is not None:
                raise SessionError("A propagation is running: stop it first, or wait for it.")
            annotated = annotated_frames(self._store.protected_frames())
            gaps = plan(annotated, len(self._clip), frame, direction, scope)
            self._number += 1
            total = sum(gap.num_steps for gap in gaps)
            self.job = Job(self._number, direction, scope, "loading", 0, total, frame, 0.0)
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, args=(gaps,), name="propagation")
            self._thread.start()
            return self.job

    def stop(self, timeout: float | None = None) -> None:
        """Stop the propagation and wait until it has ended; the masks so far are kept.

        Args:
            timeout: longest wait in seconds. The thread ends after the frame that it segments now,
                or after the weights are loaded.
        """
        thread = self._thread
        self._stop.set()
        if thread is not None:
            thread.join(timeout)

    def _run(self, gaps: Sequence[Gap]) -> None:
        error = ""
        try:
            clip = self._clip.reopen()
            self._tell(phase="forwards" if gaps[0].direction == "forwards" else "backwards")
            predictor = self.predictor()
            start = time.perf_counter()
            for gap in gaps:
                if not self._fill(gap, clip, predictor, start):
                    break
        except Exception as problem:  # the page shows it; the server goes on
            error = f"The propagation ended: {problem}"
        finally:
            self.job = None
            self._announce({"type": "job", "job": None, "error": error})

    def _fill(self, gap: Gap, clip: Clip, predictor: Predictor, start: float) -> bool:
        """Segment one gap; return False if a stop was requested."""
        frames, offset = frames_of(gap, annotated_frames(self._store.protected_frames()))
        session = ClipSession(predictor, _Frames(clip, frames), self._scratch)
        self._add_masks(session, gap, frames)
        objects = session.labels
        num_inside = gap.last + 1 - gap.first
        for result in session.propagate_results(gap.direction):
            if self._stop.is_set():
                return False
            if result is None:  # the backward pass of "both"
                self._step("backwards", gap.first, start)
                continue
            if not offset <= result.index < offset + num_inside:
                continue
            frame = frames[result.index]
            self._write(frame, result, objects)
            self._step("backwards" if gap.direction == "backwards" else "forwards", frame, start)
            if gap.direction == "both" and frame == gap.last:
                break
        return True

    def _add_masks(self, session: ClipSession, gap: Gap, frames: Sequence[int]) -> None:
        """Give a session the masks of annotated frames.

        The frame from which a gap is filled gives all its objects, as the page shows them. Other
        frames give only what persons drew or accepted.
        """
        starts = {
            "forwards": {gap.first},
            "backwards": {gap.last},
            "both": {gap.first},
        }[gap.direction]
        protected = self._store.protected_frames()
        absent = []
        for position, frame in enumerate(frames):
            states = protected.get(frame, {})
            labels = self._store.labels(frame) if states or frame in starts else None
            if labels is None:
                continue
            if frame not in starts:
                given = [k for k, state in states.items() if state in ("drawn", "accepted")]
                labels = np.where(np.isin(labels, given), labels, 0).astype(np.uint8)
            if labels.any():
                session.add_mask(position, labels)
            absent += [(position, k) for k, state in states.items() if state == "empty"]
        for position, label in absent:
            if label in session.labels:
                session.remove_object(label, position)
        if not session.labels:
            raise SessionError("The annotated frames have no object any more: draw one.")

    def _write(self, frame: int, result: FrameResult, objects: Sequence[int]) -> None:
        state = put_propagated(self._store, frame, result.labels, objects)
        put_result(self._store, frame, result)
        if state is not None:
            self._announce(frame_event(state, "propagation"))

    def _step(self, phase: str, frame: int, start: float) -> None:
        assert self.job is not None
        done = min(self.job.done + 1, self.job.total)  # masks next to a gap take steps too
        seconds = time.perf_counter() - start
        self._tell(phase=phase, frame=frame, done=done, fps=done / max(seconds, 1e-9))

    def _tell(self, **values: Any) -> None:
        assert self.job is not None
        self.job = self.job._replace(**values)
        self._announce({"type": "job", "job": self.job._asdict(), "error": ""})


class _Frames:
    """Some frames of a clip, as a clip of their own."""

    def __init__(self, clip: Clip, frames: Sequence[int]) -> None:
        self._clip, self._frames = clip, frames

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, position: int) -> np.ndarray:
        return self._clip[self._frames[position]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[position] for position in range(len(self)))


def frame_event(state: FrameState, source: str) -> dict[str, Any]:
    """The event of a frame that has changed.

    Args:
        source: "propagation", "edit" or "undo".
    """
    return {"type": "frame", "source": source, **state._asdict()}
