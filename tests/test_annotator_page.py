"""The annotator's page in a real browser: every tool draws the right pixels, and saves them."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.shared.annotator_page import AnnotatorPage, missing_software

pytest.importorskip(
    "uvicorn", reason="uvicorn is missing: pip install -r requirements-annotator.txt"
)
if missing_software():
    pytest.skip(f"No browser: {missing_software()}", allow_module_level=True)

from tests import annotator_desk
from tests.annotator_desk import (
    HEIGHT,
    WIDTH,
    Desk,
    box,
    iou,
    outline,
    rectangle,
    true_mask,
)

browser, frames, desk = annotator_desk.browser, annotator_desk.frames, annotator_desk.desk


def check_labels(desk: Desk, frame: int, expected: np.ndarray) -> None:
    """Compare the server's and the page's label map of the shown frame with the expected one."""
    np.testing.assert_array_equal(desk.client.labels(frame), expected)
    np.testing.assert_array_equal(desk.page.labels(), expected)


def inside_of(mask: np.ndarray) -> tuple[float, float]:
    """Pixel in the middle of a convex mask, (x, y)."""
    y, x = np.argwhere(mask).mean(0)
    return float(x), float(y)


def test_polygon_brush_and_eraser(desk: Desk) -> None:
    page = desk.page
    page.draw_polygon(rectangle(10, 20, 50, 60))
    expected = box(10, 20, 50, 60).astype(np.uint8)
    check_labels(desk, 0, expected)
    assert desk.client.states(0) == {"1": "drawn"}
    assert page.state(0, 1) == "drawn"

    page.press("x")  # cut out
    page.draw_polygon(rectangle(20, 30, 30, 40))
    expected[30:40, 20:30] = 0
    check_labels(desk, 0, expected)

    page.press("b")
    page.set_size(5)
    page.drag([(70, 80), (100, 80)])
    page.wait_saved()
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    distance = np.hypot(x - np.clip(x, 70, 100), y - 80)
    clear = np.abs(distance - 2.5) > 0.1  # the position of the pointer is rounded
    expected[distance <= 2.5] = 1
    np.testing.assert_array_equal(desk.client.labels(0)[clear], expected[clear])

    page.press("e")
    page.drag([(90, 70), (90, 90)])
    page.wait_saved()
    labels = desk.client.labels(0)
    assert not labels[75:85, 90].any()
    assert labels[80, 75] == 1
    assert labels[80, 97] == 1
    np.testing.assert_array_equal(page.labels(), labels)

    page.press("b")
    page.drag([(72, 75), (72, 85)], button="right")  # the right button erases
    page.wait_saved()
    assert not desk.client.labels(0)[78:82, 72].any()


def test_lasso_zoom_and_pan(desk: Desk) -> None:
    page = desk.page
    page.press("+", "+", "+")
    page.page.keyboard.down("Space")
    page.drag([(60, 50), (50, 45)])
    page.page.keyboard.up("Space")
    assert page.value("annotator.view.isFitted") is False
    corners = [(40.0, 30.0), (70.0, 30.0), (70.0, 60.0), (40.0, 60.0), (40.0, 31.0)]
    page.press("l")
    page.drag(corners, steps=12)
    page.press("Enter")
    page.wait_saved()
    assert iou(desk.client.labels(0) == 1, box(40, 30, 70, 60)) > 0.95
    page.press("0")
    assert page.value("annotator.view.isFitted") is True


def test_the_picture_is_brightened_and_masks_are_not(desk: Desk) -> None:
    page = desk.page
    page.draw_polygon(rectangle(10, 10, 40, 40))

    def pixels(x: int, y: int) -> np.ndarray:
        page.wait("!annotator.view.isScheduled")
        place = f"...annotator.view.toScreen({x}.5, {y}.5).map((v) => v * annotator.view.ratio)"
        data = f"annotator.view.context.getImageData({place}, 1, 1).data"
        return np.array(page.value(f"Array.from({data})"))[:3]

    plain = pixels(70, 70)
    assert plain.any()
    saved = desk.client.labels(0)
    for times in (2, 4, 8, 1):
        page.press("q")
        assert np.abs(pixels(70, 70) - np.minimum(times * plain, 255)).max() <= times
    np.testing.assert_array_equal(page.labels(), saved)


def preview(page: AnnotatorPage) -> np.ndarray:
    """Preview of the active tool as a mask (H, W) bool."""
    page.wait("annotator.toolbox.active.preview !== null")
    shape = page.value(
        "(({x, y, width, height, mask}) => ({x, y, width, height, mask: Array.from(mask)}))"
        "(annotator.toolbox.active.preview.shape)"
    )
    full = np.zeros((HEIGHT, WIDTH), bool)
    x, y, width, height = (shape[name] for name in ("x", "y", "width", "height"))
    full[y : y + height, x : x + width] = np.reshape(shape["mask"], (height, width))
    return full


def test_hints_have_a_live_preview(desk: Desk) -> None:
    page, truth = desk.page, true_mask(0)
    x, y = inside_of(truth)
    page.press("h")
    page.drag([(x - 4, y), (x + 4, y)])
    first = preview(page)
    assert first[int(y), int(x)]
    count = page.value("annotator.timings.hint.length")
    page.drag([(2, 2), (126, 2), (126, 94), (2, 94), (2, 4)], button="right")
    page.wait(f"annotator.timings.hint.length > {count} && !annotator.toolbox.active.isAsking")
    second = preview(page)
    assert second[int(y), int(x)]
    assert not second[2, 2:100].any(), "the stroke outside is outside"
    assert desk.client.revision(0) == 0, "a preview is not stored"
    assert iou(second, truth) > 0.5
    page.press("Enter")
    page.wait_saved()
    check_labels(desk, 0, second.astype(np.uint8))

    page.drag([(10, 80), (20, 80)])
    page.wait("annotator.toolbox.active.preview !== null")
    page.press("Escape")
    assert page.value("annotator.toolbox.active.isBusy") is False
    check_labels(desk, 0, second.astype(np.uint8))


def test_refinement_is_dropped_or_accepted(desk: Desk) -> None:
    page, truth = desk.page, true_mask(0)
    page.draw_polygon(outline(truth, 8))
    before = desk.client.labels(0)
    page.press("r")
    refined = preview(page)
    page.button("Drop the preview")
    assert page.value("annotator.toolbox.name") == "polygon"
    check_labels(desk, 0, before)
    page.press("r")
    np.testing.assert_array_equal(preview(page), refined)
    page.press("Enter")
    page.wait_saved()
    check_labels(desk, 0, refined.astype(np.uint8))
    page.press("Control+z")
    page.wait_saved()
    page.wait('document.querySelector("[data-action=redo]").disabled === false')
    np.testing.assert_array_equal(desk.client.labels(0), before)


def test_scissors_follow_edges(desk: Desk) -> None:
    page, truth = desk.page, true_mask(0)
    page.press("s")
    for number, point in enumerate(outline(truth, 8)):
        page.click(point)
        if number:
            page.wait("annotator.toolbox.active.anchors.at(-1).path.length > 2")
    page.press("Enter")
    page.wait("annotator.toolbox.active.isBusy === false")
    page.wait_saved()
    labels = desk.client.labels(0)
    np.testing.assert_array_equal(page.labels(), labels)
    assert iou(labels == 1, truth) > 0.85


def test_scissors_close_on_their_own_frame(desk: Desk) -> None:
    page = desk.page
    page.press("s")
    page.click((20, 20), (60, 20), (60, 60))
    page.page.route("**/scissors", lambda route: None)  # the closing line has no answer in time
    page.press("Enter", "ArrowRight")
    page.wait('document.querySelector("#messages").innerText.includes("was not closed")')
    assert desk.client.revision(0) == desk.client.revision(1) == 0
    page.go_to(0)
    page.press("Enter")
    page.wait("annotator.toolbox.active.isBusy === false")
    page.wait_saved()
    assert desk.client.labels(0)[25, 50] == 1
    assert page.value('document.querySelector("#accept-preview").disabled'), "nothing to accept"
    assert page.value('document.querySelector("#drop-preview").disabled'), "nothing to drop"


def test_undo_and_redo_across_frames(desk: Desk) -> None:
    page = desk.page
    page.draw_polygon(rectangle(10, 10, 30, 30))
    page.go_to(5)
    page.draw_polygon(rectangle(50, 50, 80, 80))
    page.go_to(9)
    page.press("Control+z")
    page.wait("annotator.frame === 5 && annotator.queue.state === 'saved'")
    assert not desk.client.labels(5).any()
    assert desk.client.states(5) == {}
    page.press("Control+z")
    page.wait("annotator.frame === 0 && annotator.queue.state === 'saved'")
    check_labels(desk, 0, np.zeros((HEIGHT, WIDTH), np.uint8))
    assert page.page.get_by_role("button", name="Undo", exact=True).is_disabled()
    page.press("Control+Shift+z", "Control+y")
    page.wait("annotator.frame === 5 && annotator.queue.state === 'saved'")
    np.testing.assert_array_equal(desk.client.labels(0), box(10, 10, 30, 30))
    check_labels(desk, 5, box(50, 50, 80, 80).astype(np.uint8))
    page.click((20, 20), (40, 20))
    page.press("Control+z")  # removes the point only
    assert page.value("annotator.toolbox.active.points.length") == 1
    assert desk.client.states(5) == {"1": "drawn"}


def test_second_object_and_lock(desk: Desk) -> None:
    page = desk.page
    page.draw_polygon(rectangle(10, 10, 40, 40))
    page.press("d")
    page.wait("annotator.session.current === 2")
    page.draw_polygon(rectangle(30, 10, 60, 40))
    expected = box(10, 10, 40, 40).astype(np.uint8)
    expected[box(30, 10, 60, 40)] = 2
    check_labels(desk, 0, expected)
    page.button("Lock object 2")
    page.wait("annotator.session.object(2).is_locked")
    page.press("1")
    page.draw_polygon(rectangle(20, 20, 70, 60))
    expected[box(20, 20, 70, 60) & (expected != 2)] = 1
    check_labels(desk, 0, expected)
    page.press("2")
    page.draw_polygon(rectangle(80, 80, 90, 90))
    assert "object 2 is locked" in page.messages()
    check_labels(desk, 0, expected)
    page.press("Escape")
    page.button("Hide object 1")
    page.wait("!annotator.session.object(1).is_visible")
    page.button("Unlock object 2")
    page.wait("!annotator.session.object(2).is_locked")
    page.button("Remove object 2")
    page.wait("annotator.session.objects.length === 1")
    page.wait_saved()
    assert set(np.unique(desk.client.labels(0)).tolist()) == {0, 1}
    page.press("Control+z")
    page.wait("annotator.session.objects.length === 2")
    page.wait_saved()
    page.wait("annotator.labels.includes(2)")
    check_labels(desk, 0, expected)


def test_operations(desk: Desk) -> None:
    page = desk.page
    page.draw_polygon(rectangle(10, 10, 40, 40))
    page.press("x")
    page.draw_polygon(rectangle(20, 20, 30, 30))
    page.press("f")  # fill holes
    page.wait_saved()
    check_labels(desk, 0, box(10, 10, 40, 40).astype(np.uint8))
    page.press("x")
    page.draw_polygon(rectangle(90, 10, 95, 15))
    page.press("m")  # largest part
    page.wait_saved()
    check_labels(desk, 0, box(10, 10, 40, 40).astype(np.uint8))
    page.press("Shift+G")
    page.wait_saved()
    check_labels(desk, 0, box(11, 11, 39, 39).astype(np.uint8))
    page.press("ArrowRight")
    page.wait("annotator.frame === 1")
    page.press("c")  # copy from the previous frame
    page.wait_saved()
    check_labels(desk, 1, box(11, 11, 39, 39).astype(np.uint8))
    assert desk.client.states(1) == {"1": "drawn"}
    page.press("o")  # absent
    page.wait_saved()
    assert desk.client.states(1) == {"1": "empty"}
    assert page.state(1, 1) == "empty"
    check_labels(desk, 1, np.zeros((HEIGHT, WIDTH), np.uint8))
    page.press("o")
    page.wait_saved()
    assert desk.client.states(1) == {}
    page.press("ArrowLeft")
    page.wait("annotator.frame === 0")
    page.press("Delete")
    page.wait_saved()
    check_labels(desk, 0, np.zeros((HEIGHT, WIDTH), np.uint8))
