"""What a person does on the annotator's page: outline objects, propagate, follow suggestions."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from scripts.shared.annotator_page import AnnotatorPage

# Share of the picture's window that an outlined object fills, and the largest zoom.
_FILLED, _MAX_SCALE = 0.7, 12.0
# The polygon tool takes a click within 9 CSS pixels of a point as a grip on that point.
_MIN_CLICK_DISTANCE = 11.0
_WHEEL = 0.0022  # the page zooms by exp(-_WHEEL * distance)


class RobotPage(AnnotatorPage):
    """The annotator in one tab, in larger steps; arguments as in AnnotatorPage."""

    def wait_ready(self) -> None:
        """Wait until the session is loaded, and close the card over the picture."""
        super().wait_ready()
        if self.value("Boolean(document.querySelector('#first-steps:not([hidden])'))"):
            self.page.click("#first-steps-close")
        self.value(
            "(window.numEnded = 0, annotator.propagation.addEventListener('ended', "
            "() => { window.numEnded += 1; }), 0)"
        )

    def choose(self, label: int) -> None:
        """Choose an object; add objects until it exists."""
        while self.value(f"annotator.session.object({label}) === null"):
            num_objects = self.value("annotator.session.objects.length")
            self.press("d")
            self.wait(f"annotator.session.objects.length > {num_objects}")
        self.page.click(f"#objects [data-label='{label}'] .object-name")
        self.wait(f"annotator.session.current === {label}")

    def look_at(self, mask: np.ndarray) -> float:
        """Centre and zoom so that a mask (H, W) bool fills the picture's window.

        Returns:
            The smallest distance of two clicks that the page tells apart, in pixels of the frame.
        """
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        height, width = float(rows[-1] + 1 - rows[0]), float(columns[-1] + 1 - columns[0])
        self.press("0")  # the whole frame
        view_width, view_height = self.value("[annotator.view.width, annotator.view.height]")
        middle = self.value(f"annotator.view.toImage({view_width / 2}, {view_height / 2})")
        start = self.on_screen((float(columns[0]) + width / 2, float(rows[0]) + height / 2))
        end = self.on_screen((middle[0], middle[1]))
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down(button="middle")
        mouse.move(*end, steps=2)
        mouse.up(button="middle")
        wanted = min(view_width * _FILLED / width, view_height * _FILLED / height, _MAX_SCALE)
        mouse.wheel(0, -math.log(wanted / self.value("annotator.view.scale")) / _WHEEL)
        self.wait(f"Math.abs(annotator.view.scale / {wanted} - 1) < 0.05")
        return _MIN_CLICK_DISTANCE / wanted

    def draw_polygons(self, polygons: Sequence[np.ndarray]) -> None:
        """Draw polygons (k, 2) of the chosen object, in pixels of the frame.

        Raises:
            ValueError: the page has refused them; with its messages.
        """
        for close in self.page.query_selector_all("#messages .message button"):
            close.click()
        for polygon in polygons:
            self.draw_polygon([(x, y) for x, y in polygon.tolist()])
            if self.value("annotator.toolbox.active.isBusy"):
                raise ValueError(f"The page did not take the outline: {self.messages()}")

    def fill_gaps(self, seconds: float) -> float:
        """Propagate into all gaps; return how many seconds it took.

        Raises:
            ValueError: it failed; with the page's messages.
            TimeoutError: it took more than `seconds`.
        """
        num_ended, start = self.value("window.numEnded"), time.monotonic()
        self.press("Shift+Y")
        error = "document.querySelector('.message.error') !== null"
        self.wait(f"window.numEnded > {num_ended} || {error}", seconds)
        if self.value(error):
            raise ValueError(f"The propagation failed: {self.messages()}")
        return time.monotonic() - start

    def go_to_suggestion(self) -> dict[str, Any] | None:
        """Go to the first frame that the page suggests; return the suggestion."""
        self.wait(
            "!document.querySelector('#suggestions-text').textContent.startsWith('Looking')", 60
        )
        if not self.value("annotator.suggestions.list.length"):
            return None
        suggestion: dict[str, Any] = self.value("annotator.suggestions.list[0]")
        self.page.click("#suggestions button")
        self.wait(f"annotator.frame === {suggestion['frame']}")
        return suggestion
