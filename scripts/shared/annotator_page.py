"""The annotator's page in headless chromium, driven through mouse and keyboard."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

Point = tuple[float, float]  # x and y in pixels of the frame
WINDOW = (1280, 800)  # width and height
_PAUSE = 0.01  # seconds between two looks at the page


def find_chromium() -> str | None:
    """Path of Debian's chromium; None if it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def missing_software() -> str:
    """A sentence that names what a browser needs and what is not installed; empty if nothing is."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed: pip install 'playwright>=1.45'."
    if find_chromium() is None:
        return "chromium is not installed: apt-get install chromium."
    return ""


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Start headless chromium; `missing_software` tells whether it can start."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root, as in containers, needs --no-sandbox.
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            browser.close()


def new_context(browser: Browser) -> BrowserContext:
    """Open a window of its own cookies, of the size WINDOW."""
    width, height = WINDOW
    return browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)


class AnnotatorPage:
    """The annotator in one tab.

    The page forbids eval, which playwright's wait_for_function needs, so this class polls.

    Args:
        address: of the server, with token or, if the context has its cookie, without.
        problems: gets a sentence for each error in the console and each uncaught exception.
    """

    def __init__(self, context: BrowserContext, address: str, problems: list[str]) -> None:
        self.page: Page = context.new_page()
        self.page.on("pageerror", lambda error: problems.append(f"exception: {error}"))
        self.page.on(
            "console",
            lambda message: problems.append(message.text) if message.type == "error" else None,
        )
        self.page.goto(address)
        self.wait_ready()

    def value(self, expression: str) -> Any:
        """Value of a JavaScript expression; `annotator` is the page's application."""
        return self.page.evaluate(f"() => {expression}")

    def wait(self, expression: str, seconds: float = 20) -> Any:
        """Wait until an expression is true, and return its value.

        Raises:
            TimeoutError: it is false after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not (found := self.value(expression)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"After {seconds:g} s, the page does not have: {expression}")
            time.sleep(_PAUSE)
        return found

    def wait_ready(self) -> None:
        """Wait until the session is loaded."""
        self.wait('document.body.dataset.ready === "true"', 30)

    def wait_saved(self) -> None:
        """Wait until the server has acknowledged all changes."""
        self.wait('annotator.queue.state === "saved" && annotator.pending === 0')

    def wait_propagated(self, seconds: float = 60) -> None:
        """Wait until no propagation runs."""
        self.wait("annotator.session.job === null", seconds)

    def propagate(self, *keys: str, seconds: float = 60) -> None:
        """Press keys of which the last one starts a propagation, and wait until it has ended."""
        last = self.value("annotator.propagation.lastId")
        self.press(*keys)
        ended = f"annotator.propagation.lastId > {last} && annotator.session.job === null"
        self.wait(ended, seconds)

    def labels(self) -> np.ndarray:
        """Label map on the screen, (H, W) uint8."""
        height, width = self.value("[annotator.session.height, annotator.session.width]")
        values = self.value("Array.from(annotator.labels)")
        return np.array(values, np.uint8).reshape(height, width)

    def state(self, frame: int, label: int) -> str:
        """State of an object on a frame, as the timeline shows it."""
        return str(self.value(f"annotator.session.state({frame}, {label})"))

    def messages(self) -> str:
        """Text of all messages on the screen."""
        return str(self.value('document.querySelector("#messages").innerText'))

    def press(self, *keys: str) -> None:
        """Press keys one after another, as playwright names them."""
        for key in keys:
            self.page.keyboard.press(key)

    def button(self, name: str) -> None:
        """Click the button with an accessible name."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def go_to(self, frame: int) -> None:
        """Show a frame."""
        self.value(f"annotator.seeker.goTo({frame})")
        self.wait(f"annotator.frame === {frame}")

    def set_size(self, size: int) -> None:
        """Set the diameter of the brush in pixels of the frame."""
        self.value(f"annotator.toolbox.setSize({size})")

    def on_screen(self, point: Point) -> Point:
        """Position of a point of the frame in the window, in CSS pixels."""
        x, y = self.value(
            f"annotator.view.toScreen({point[0]}, {point[1]}).map((v, i) => v + "
            'Object.values((({left, top}) => [left, top])(document.querySelector("#overlay")'
            ".getBoundingClientRect()))[i])"
        )
        return float(x), float(y)

    def click(self, *points: Point) -> None:
        """Click points of the frame one after another."""
        for point in points:
            self.page.mouse.click(*self.on_screen(point))

    def drag(
        self,
        points: Sequence[Point],
        steps: int = 4,
        button: Literal["left", "right"] = "left",
    ) -> None:
        """Drag the pointer along points of the frame, with several events for each piece."""
        mouse = self.page.mouse
        mouse.move(*self.on_screen(points[0]))
        mouse.down(button=button)
        for point in points[1:]:
            mouse.move(*self.on_screen(point), steps=steps)
        mouse.up(button=button)

    def draw_polygon(self, points: Sequence[Point]) -> None:
        """Outline an object with the polygon tool, and wait until it is saved."""
        self.press("l")
        self.click(*points)
        self.press("Enter")
        self.wait_saved()
