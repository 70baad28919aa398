"""A small clip, and a running annotator with a page in chromium, for the tests of the page."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext

from annotator.server import make_app
from annotator.store import Store
from annotator.video_clip import open_clip
from annotator.workspace import Workspace
from datasets.synthetic import make_clip
from inference.predictor import Predictor
from scripts.shared.annotator_page import AnnotatorPage, new_context, open_browser
from scripts.shared.annotator_process import Client
from util.hyper_para import EvalSettings

NUM_FRAMES, HEIGHT, WIDTH = 12, 96, 128
TOKEN = "secret"


def write_clip(folder: Path) -> Path:
    """Write the frames of a drawn clip with two objects."""
    folder.mkdir(parents=True)
    for index, (image, _) in enumerate(make_clip(NUM_FRAMES, HEIGHT, WIDTH, 2, seed=0)):
        cv2.imwrite(str(folder / f"{index:05d}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return folder


def true_mask(frame: int, label: int = 1) -> np.ndarray:
    """Mask of an object of the clip, (H, W) bool."""
    mask: np.ndarray = make_clip(NUM_FRAMES, HEIGHT, WIDTH, 2, seed=0).frame(frame)[1] == label
    return mask


def outline(mask: np.ndarray, num_points: int = 24) -> list[tuple[float, float]]:
    """Points (x, y) along the outline of a mask's largest part."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(found, key=cv2.contourArea)[:, 0]
    chosen = np.linspace(0, len(contour), num_points, endpoint=False).astype(int)
    return [(x + 0.5, y + 0.5) for x, y in contour[chosen].tolist()]


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return np.count_nonzero(first & second) / max(int(np.count_nonzero(first | second)), 1)


def rectangle(left: int, top: int, right: int, bottom: int) -> list[tuple[float, float]]:
    """Corners of a rectangle; its polygon has exactly the pixels of `box`."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """Mask (H, W) bool of a rectangle."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


@dataclass
class Desk:
    """A server and one page of it.

    problems: errors of the page's console; a test that causes some removes them.
    """

    client: Client
    context: BrowserContext
    page: AnnotatorPage
    problems: list[str] = field(default_factory=list)

    def open_page(self) -> AnnotatorPage:
        """Open the session in another tab."""
        return AnnotatorPage(self.context, self.client.page_address, self.problems)


@contextlib.contextmanager
def open_desk(browser: Browser, frames: Path, session: Path, weights: Path) -> Iterator[Desk]:
    """Serve a session in a thread and open its page; fails if the console has errors at the end.

    A picture of the page at the end is stored beside the session, as page.png.
    """
    with serving(frames, session, weights) as client, contextlib.closing(new_context(browser)) as c:
        problems: list[str] = []
        page = AnnotatorPage(c, client.page_address, problems)
        yield Desk(client, c, page, problems)
        if not page.page.is_closed():
            page.page.screenshot(path=session.parent / "page.png")
        assert problems == []


@contextlib.contextmanager
def serving(frames: Path, session: Path, weights: Path) -> Iterator[Client]:
    """Serve a session in a thread."""
    clip = open_clip(frames)
    store = Store(session, len(clip), clip.size, clip.path)
    settings = EvalSettings(model=str(weights), device="cpu", size=0)
    model = {"name": weights.name, "method": "stcn", "device": "cpu"}
    with serving_workspace(
        Workspace(clip, store, lambda: Predictor(settings), session, model)
    ) as client:
        yield client


@contextlib.contextmanager
def serving_workspace(workspace: Workspace) -> Iterator[Client]:
    """Serve a workspace in a thread, and close it at the end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        app = make_app(workspace, TOKEN, {"127.0.0.1"}, f"annotator-{port}")
        config = uvicorn.Config(
            app, log_level="warning", ws="websockets-sansio", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield Client(f"http://127.0.0.1:{port}", TOKEN)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless chromium for the tests of one file."""
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the frames of a drawn clip, named clip."""
    return write_clip(tmp_path_factory.mktemp("frames") / "clip")


@pytest.fixture
def desk(browser: Browser, frames: Path, tiny_weights: Path, tmp_path: Path) -> Iterator[Desk]:
    """A server of a new session with its page; its console must stay without errors."""
    with open_desk(browser, frames, tmp_path / "session", tiny_weights) as opened:
        yield opened


# Requests that playwright's routes hold sometimes pass unnoticed.
_HOLD = """([path, isAnswer]) => {
    const send = window.fetch;
    window.fetch = async (address, options) => {
        if (!address.includes(path)) return send(address, options);
        window.fetch = send;
        const answer = isAnswer ? await send(address, options) : null;
        await new Promise((resolve) => { window.release = resolve; });
        return answer ?? send(address, options);
    };
}"""


class Held:
    """The next request to a path, or its answer, which the page gets at `release`."""

    def __init__(self, page: AnnotatorPage, path: str, is_answer: bool) -> None:
        self._page = page
        page.page.evaluate(_HOLD, [path, is_answer])

    def wait(self) -> None:
        """Wait until it is held."""
        self._page.wait("window.release !== undefined")

    def release(self) -> None:
        """Let it pass."""
        self._page.page.evaluate("release()")
