"""The annotator's page in a real browser: hostile names, and a page that closes in a stroke."""

from __future__ import annotations

import pytest

from scripts.shared.annotator_page import missing_software

pytest.importorskip(
    "uvicorn", reason="uvicorn is missing: pip install -r requirements-annotator.txt"
)
if missing_software():
    pytest.skip(f"No browser: {missing_software()}", allow_module_level=True)

from tests import annotator_desk
from tests.annotator_desk import Desk, rectangle

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
