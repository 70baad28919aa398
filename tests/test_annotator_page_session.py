"""The annotator's page in a real browser: nothing is lost, and nothing is overwritten silently."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.shared.annotator_page import AnnotatorPage, missing_software, new_context

pytest.importorskip(
    "uvicorn", reason="uvicorn is missing: pip install -r requirements-annotator.txt"
)
if missing_software():
    pytest.skip(f"No browser: {missing_software()}", allow_module_level=True)

from playwright.sync_api import Browser

from scripts.shared.annotator_process import AnnotatorProcess
from tests import annotator_desk
from tests.annotator_desk import (
    NUM_FRAMES,
    WIDTH,
    Desk,
    Held,
    box,
    iou,
    open_desk,
    rectangle,
)

browser, frames, desk = annotator_desk.browser, annotator_desk.frames, annotator_desk.desk


def test_reloading_the_page_changes_nothing(desk: Desk) -> None:
    page = desk.page
    page.draw_polygon(rectangle(10, 10, 40, 40))
    page.press("F2")
    page.page.keyboard.type("dog <i>")
    page.press("Enter")
    page.wait('annotator.session.objects[0].name === "dog <i>"')
    page.propagate("t")
    before = desk.client.get("/api/timeline")
    page.page.reload()
    page.wait_ready()
    np.testing.assert_array_equal(page.labels(), box(10, 10, 40, 40))
    assert page.value("annotator.session.objects[0].name") == "dog <i>"
    assert page.state(NUM_FRAMES - 1, 1) == "propagated"
    assert desk.client.get("/api/timeline") == before
    page.press("Control+z")
    page.wait_saved()
    page.wait("!annotator.labels.includes(1)")


def test_a_session_continues_at_the_next_start(
    browser: Browser, frames: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    with open_desk(browser, frames, tmp_path / "session", tiny_weights) as desk:
        desk.page.go_to(4)
        desk.page.draw_polygon(rectangle(10, 10, 40, 40))
    with open_desk(browser, frames, tmp_path / "session", tiny_weights) as desk:
        desk.page.press(".")
        desk.page.wait("annotator.frame === 4")
        assert iou(desk.page.labels() == 1, box(10, 10, 40, 40)) == 1
        desk.page.press("Control+z")
        desk.page.wait_saved()
        assert not desk.client.labels(4).any()


def test_two_pages_do_not_overwrite_each_other(desk: Desk) -> None:
    first, second = desk.page, desk.open_page()
    first.draw_polygon(rectangle(10, 10, 40, 40))
    second.wait("annotator.labels.includes(1)")
    second.draw_polygon(rectangle(60, 60, 80, 80))
    first.wait(f"annotator.labels[{70 * WIDTH + 70}] === 1")
    expected = box(10, 10, 40, 40) | box(60, 60, 80, 80)
    np.testing.assert_array_equal(desk.client.labels(0), expected)

    # The second page sends a stroke that was drawn before the first page's.
    request = Held(second, "/paint?", is_answer=False)
    second.press("l")
    second.click(*rectangle(100, 10, 120, 30))
    second.press("Enter")
    second.wait("annotator.pending === 1")
    request.wait()
    first.draw_polygon(rectangle(90, 70, 100, 80))
    request.release()
    second.wait("annotator.pending === 0")
    second.wait('document.querySelector("#messages").innerText.includes("another window")')
    assert "Draw it again" in second.messages()
    expected |= box(90, 70, 100, 80)
    for labels in (desk.client.labels(0), second.labels(), first.labels()):
        np.testing.assert_array_equal(labels, expected)
    assert [*filter(lambda text: "409" not in text, desk.problems)] == []
    desk.problems.clear()  # chromium reports the refused request


def test_the_server_is_killed_and_comes_back(
    browser: Browser, frames: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    flags = ["--model", str(tiny_weights), "--size", "0", "--device", "cpu"]
    context, problems = new_context(browser), list[str]()
    with AnnotatorProcess(frames, tmp_path / "session", flags=flags) as server:
        page = AnnotatorPage(context, server.client.page_address, problems)
        page.draw_polygon(rectangle(10, 10, 40, 40))
        page.press("t")
        page.wait("annotator.session.state(1, 1) === 'propagated'", 60)
        port = server.port
        server.kill()
    assert problems == []
    page.wait('!document.querySelector("#connection").hidden')
    assert "connection lost" in page.value('document.querySelector("#connection").textContent')
    page.press("l")
    page.click(*rectangle(60, 60, 80, 80))
    page.press("Enter")
    page.wait('annotator.queue.state === "failed" && annotator.pending === 1')
    assert "not saved" in page.value('document.querySelector("#save-state").textContent')
    with AnnotatorProcess(frames, tmp_path / "session", port, flags) as server:
        np.testing.assert_array_equal(server.client.labels(0), box(10, 10, 40, 40))
        assert server.client.states(1) == {"1": "propagated"}
        # The token is another one: opening the new address lets the old page continue.
        other = AnnotatorPage(context, server.client.page_address, problems)
        page.press("Control+s")
        page.wait("annotator.events.isConnected && annotator.pending === 0", 30)
        page.wait_saved()
        expected = box(10, 10, 40, 40) | box(60, 60, 80, 80)
        for labels in (server.client.labels(0), page.labels()):
            np.testing.assert_array_equal(labels, expected)
        other.wait(f"annotator.labels[{70 * WIDTH + 70}] === 1")
        assert page.value('document.querySelector("#connection").hidden')
        context.close()
    assert all("Failed to load" in text or "WebSocket" in text for text in problems)


def test_wrong_masks_are_refused_with_a_sentence(desk: Desk) -> None:
    page = desk.page
    image = io.BytesIO()
    Image.new("P", (7, 5)).save(image, "PNG")
    for content, sentence in ((image.getvalue(), "7x5"), (b"no image", "not an image")):
        file = {"name": "mask.png", "mimeType": "image/png", "buffer": content}
        page.page.set_input_files("#import-file", file)  # type: ignore[arg-type]
        page.wait(f'document.querySelector("#messages").innerText.includes("{sentence}")')
    assert desk.client.revision(0) == 0
    desk.problems.clear()  # chromium reports the refused requests
