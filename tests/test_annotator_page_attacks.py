"""The annotator's page in a real browser: hostile names, closed pages and lost answers."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.shared.annotator_page import missing_software

pytest.importorskip(
    "uvicorn", reason="uvicorn is missing: pip install -r requirements-annotator.txt"
)
if missing_software():
    pytest.skip(f"No browser: {missing_software()}", allow_module_level=True)

from playwright.sync_api import Route

from tests import annotator_desk
from tests.annotator_desk import Desk, box, rectangle

browser, frames, desk = annotator_desk.browser, annotator_desk.frames, annotator_desk.desk


def test_html_in_names_is_text(desk: Desk) -> None:
    name = "<img src=x onerror=\"document.title='hacked'\"><b>dog</b>"
    desk.client.post("/api/objects/1", {"name": name})
    desk.page.wait(f"annotator.session.objects[0].name.length === {len(name)}")
    shown = "document.querySelector('#objects .object-name')?.innerText ?? ''"
    desk.page.wait(f"({shown}).includes('<b>dog</b>')")
    desk.page.button(f"Remove {name}")
    desk.page.wait("document.querySelectorAll('.message').length > 0")
    assert name in desk.page.messages()
    assert desk.page.value("document.querySelectorAll('#objects img, .message img').length") == 0
    assert desk.page.value("document.title") != "hacked"


def test_a_page_that_closes_in_the_middle_of_a_stroke(desk: Desk) -> None:
    page = desk.page
    page.draw_polygon(rectangle(10, 10, 40, 40))
    saved = desk.client.labels(0)
    page.press("b")
    mouse = page.page.mouse
    mouse.move(*page.on_screen((60, 60)))
    mouse.down()
    mouse.move(*page.on_screen((90, 70)), steps=5)
    page.page.close()
    assert (desk.client.labels(0) == saved).all()
    again = desk.open_page()
    assert (again.labels() == saved).all()
    again.draw_polygon(rectangle(60, 60, 80, 80))
    assert desk.client.labels(0)[70, 70] == 1


def lose_answer(desk: Desk, pattern: str) -> None:
    """Cut the connection of the next request after the server has handled it."""

    def handle(route: Route) -> None:
        assert route.fetch().status == 200
        route.abort("connectionreset")
        desk.page.page.unroute(pattern, handle)

    desk.page.page.route(pattern, handle)


def check_lost(desk: Desk) -> None:
    """Check that the console has nothing but the cut connection and the stroke sent again."""
    expected = ("ERR_CONNECTION_RESET", "409")
    assert all(any(word in text for word in expected) for text in desk.problems), desk.problems
    desk.problems.clear()


def test_a_stroke_whose_answer_was_lost_is_applied_once(desk: Desk) -> None:
    page = desk.page
    lose_answer(desk, "**/paint?*")
    page.press("l")
    page.click(*rectangle(10, 10, 40, 40))
    page.press("Enter")
    page.wait('annotator.queue.state === "failed"')
    assert "not saved" in page.value('document.querySelector("#save-state").textContent')
    assert desk.client.revision(0) == 1, "the server has applied it"
    page.click(*rectangle(60, 60, 80, 80))  # a second stroke waits behind the first
    page.press("Enter")
    page.wait("annotator.pending === 2")
    page.wait_saved()
    expected = box(10, 10, 40, 40) | box(60, 60, 80, 80)
    for labels in (desk.client.labels(0), page.labels()):
        np.testing.assert_array_equal(labels, expected)
    assert desk.client.revision(0) == 2
    assert page.messages() == ""
    page.press("Control+z", "Control+z")
    page.wait_saved()
    assert not page.labels().any()
    assert desk.client.get("/api/session")["history"] == {"undo": False, "redo": True}
    check_lost(desk)


@pytest.mark.parametrize(("key", "pattern"), [("g", "**/operation"), ("Control+z", "**/api/undo")])
def test_the_page_shows_what_an_operation_with_a_lost_answer_did(
    key: str, pattern: str, desk: Desk
) -> None:
    page = desk.page
    page.draw_polygon(rectangle(10, 10, 40, 40))
    lose_answer(desk, pattern)
    page.press(key)
    page.wait('document.querySelector("#messages").innerText.includes("does not answer")')
    assert desk.client.revision(0) == 2
    expected = desk.client.labels(0)
    page.wait("annotator.frames.masks.get(0).revision === 2")
    np.testing.assert_array_equal(page.labels(), expected)
    assert page.value('document.querySelector("[data-action=redo]").disabled') is (key == "g")
    check_lost(desk)
