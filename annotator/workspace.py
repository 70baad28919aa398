"""One clip that is being annotated: its frames, session, propagation and pages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from annotator.clip import Clip
from annotator.edits import history
from annotator.propagation import Propagator, frame_event
from annotator.store import FrameState, Store
from inference.predictor import Predictor

# Events that wait for a slow page; with more, its connection is closed, and it loads all anew.
_MAX_WAITING = 1000
_STOP_SECONDS = 1.5  # longest wait for a propagation when the server ends


class Workspace:
    """What the routes work on.

    Args:
        clip, store: frames, and the session on disk.
        load: makes the predictor when it is needed; None if there are no weights.
        scratch: folder for temporary files of propagations.
        model: {"name", "method", "device"} of the weights, for the page.
        is_demo: the clip was drawn by the program.
    """

    def __init__(
        self,
        clip: Clip,
        store: Store,
        load: Callable[[], Predictor] | None,
        scratch: Path,
        model: dict[str, str] | None = None,
        is_demo: bool = False,
    ) -> None:
        self.clip, self.store, self.model, self.is_demo = clip, store, model, is_demo
        self.propagator: Propagator | None = None
        if load is not None:
            self.propagator = Propagator(store, clip, load, self.announce, scratch)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pages: set[asyncio.Queue[dict[str, Any] | None]] = set()

    def start(self) -> None:
        """Begin to serve; called in the event loop."""
        self._loop = asyncio.get_running_loop()
        if self.propagator is not None:
            self.propagator.warm_up()

    def close(self) -> None:
        """Stop the propagation and close the files.

        A propagation that is still in a frame cannot write any more.
        """
        if self.propagator is not None:
            self.propagator.stop(_STOP_SECONDS)
        self.store.close()
        self.clip.close()

    def announce(self, event: dict[str, Any]) -> None:
        """Send an event to all pages; from any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the server has ended
                self._loop.call_soon_threadsafe(self._publish, event)

    def _publish(self, event: dict[str, Any]) -> None:
        for queue in [*self._pages]:
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._pages.discard(queue)
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)

    @contextlib.contextmanager
    def listening(self) -> Any:
        """Yield a queue of the events from now on; None in it ends the connection."""
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(_MAX_WAITING)
        self._pages.add(queue)
        try:
            yield queue
        finally:
            self._pages.discard(queue)

    def frame_reply(self, state: FrameState, source: str = "edit") -> dict[str, Any]:
        """Announce a changed frame, and return the reply to the page that changed it."""
        self.announce(frame_event(state, source))
        self.announce({"type": "history", "history": history(self.store)._asdict()})
        return {**state._asdict(), "history": history(self.store)._asdict()}

    def objects_reply(self) -> dict[str, Any]:
        """Announce the list of objects, and return it."""
        objects = [known._asdict() for known in self.store.objects()]
        self.announce({"type": "objects", "objects": objects})
        return {"objects": objects, "history": history(self.store)._asdict()}

    def describe(self) -> dict[str, Any]:
        """Describe the session for a page that starts."""
        height, width = self.clip.size
        job = None if self.propagator is None else self.propagator.job
        return {
            "name": self.clip.name,
            "num_frames": len(self.clip),
            "height": height,
            "width": width,
            "fps": self.clip.fps,
            "model": self.model,
            "objects": [known._asdict() for known in self.store.objects()],
            "history": history(self.store)._asdict(),
            "job": None if job is None else job._asdict(),
            "demo": self.is_demo,
        }
