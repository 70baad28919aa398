"""The annotator's page in a real browser: propagation, suggestions, import and export."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from scripts.shared.annotator_page import missing_software

pytest.importorskip(
    "uvicorn", reason="uvicorn is missing: pip install -r requirements-annotator.txt"
)
if missing_software():
    pytest.skip(f"No browser: {missing_software()}", allow_module_level=True)


import eval_generic
from annotator import routes_session
from tests import annotator_desk
from tests.annotator_desk import (
    HEIGHT,
    NUM_FRAMES,
    WIDTH,
    Desk,
    Held,
    outline,
    rectangle,
    true_mask,
)
from util.masks import DAVIS_PALETTE, read_mask, write_mask

browser, frames, desk = annotator_desk.browser, annotator_desk.frames, annotator_desk.desk


def rows(desk: Desk) -> dict[str, list[list[Any]]]:
    """Runs of states on the timeline, by label."""
    found: dict[str, list[list[Any]]] = desk.client.get("/api/timeline")["rows"]
    return found


def test_propagate_correct_and_propagate_again(desk: Desk) -> None:
    page = desk.page
    page.draw_polygon(outline(true_mask(0)))
    drawn = desk.client.labels(0)
    page.propagate("t")
    page.wait("annotator.timings.propagate.length === 1")
    last = NUM_FRAMES - 1
    assert rows(desk) == {"1": [[0, 0, "drawn"], [1, last, "propagated"]]}
    assert page.state(last, 1) == "propagated"
    page.go_to(6)
    np.testing.assert_array_equal(page.labels(), desk.client.labels(6))

    page.draw_polygon(rectangle(100, 5, 120, 25))  # a correction
    corrected = desk.client.labels(6)
    assert corrected[5:25, 100:120].all()
    page.go_to(8)
    page.press("a")
    page.wait_saved()
    accepted = desk.client.labels(8)
    before = [desk.client.revision(frame) for frame in range(NUM_FRAMES)]
    page.propagate("Shift+Y")
    for frame, labels in ((0, drawn), (6, corrected), (8, accepted)):
        np.testing.assert_array_equal(desk.client.labels(frame), labels)
    after = [desk.client.revision(frame) for frame in range(NUM_FRAMES)]
    changed = [i for i in range(NUM_FRAMES) if after[i] != before[i]]
    assert changed == [i for i in range(NUM_FRAMES) if i not in (0, 6, 8)]
    assert [run[2] for run in rows(desk)["1"]] == [
        "drawn", "propagated", "drawn", "propagated", "accepted", "propagated",
    ]  # fmt: skip
    page.press("a")  # takes the acceptance back
    page.wait_saved()
    assert desk.client.states(8) == {"1": "propagated"}


def test_a_stopped_propagation_keeps_its_masks(desk: Desk) -> None:
    page = desk.page
    page.draw_polygon(outline(true_mask(0)))
    page.press("t")
    page.wait("annotator.session.state(1, 1) === 'propagated'", 60)
    page.press("Escape")
    page.wait_propagated()
    assert desk.client.get("/api/session")["job"] is None
    runs = rows(desk)["1"]
    assert runs[0] == [0, 0, "drawn"]
    assert runs[1][0] == 1
    page.wait(f"annotator.session.state({runs[1][1]}, 1) === 'propagated'")  # the last event
    assert [page.state(frame, 1) for frame in range(runs[1][1] + 1)] == [
        "drawn", *["propagated"] * runs[1][1],
    ]  # fmt: skip
    assert page.page.get_by_role("button", name="Propagate forwards", exact=True).is_enabled()


def test_a_late_answer_does_not_revive_an_ended_propagation(desk: Desk) -> None:
    page = desk.page
    page.draw_polygon(outline(true_mask(0)))
    answer = Held(page, "/api/propagate", is_answer=True)
    page.press("t")
    answer.wait()
    page.wait(f"annotator.session.state({NUM_FRAMES - 1}, 1) === 'propagated'", 60)
    page.wait_propagated()
    answer.release()
    page.page.wait_for_timeout(200)
    assert page.value("annotator.session.job") is None


class Suggested(NamedTuple):
    """A suggestion of the server."""

    frame: int
    reason: str
    label: int
    score: float


def test_suggestions_lead_to_their_frames(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    page = desk.page
    found = [Suggested(7, "low confidence", 1, 0.4), Suggested(3, "two <b> & more", 0, 0.2)]
    monkeypatch.setattr(routes_session, "next_frames", lambda store, num: found)
    page.press("Shift+N")
    page.wait('document.querySelectorAll("#suggestions li").length === 2')
    texts = page.page.locator("#suggestions li").all_inner_texts()
    assert ["low confidence" in texts[0], "two <b> & more" in texts[1]] == [True, True]
    page.press("n")
    page.wait("annotator.frame === 7")
    page.press("n")
    page.wait("annotator.frame === 3")
    page.button("Go to frame 7: low confidence · object 1")
    page.wait("annotator.frame === 7")
    monkeypatch.undo()
    page.draw_polygon(rectangle(10, 10, 40, 40))
    page.propagate("Shift+Y")
    page.wait('document.querySelector("#suggestions-text").textContent !== "Looking for frames…"')
    num_shown = page.page.locator("#suggestions li").count()
    assert num_shown == len(desk.client.get("/api/suggestions?num=5")["suggestions"])


def test_export_goes_through_eval_generic_again(
    desk: Desk, frames: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    page = desk.page
    page.draw_polygon(outline(true_mask(0)))
    page.press("d")
    page.wait("annotator.session.current === 2")
    page.draw_polygon(outline(true_mask(0, 2)))
    page.propagate("t")
    page.go_to(3)
    page.press("o")  # absent
    page.wait_saved()
    page.press("1", "o")
    page.wait_saved()
    page.press("Shift+E")
    with page.page.expect_download() as download:
        page.press("Enter")  # the first entry: everything
    archive = zipfile.ZipFile(download.value.path())
    assert archive.testzip() is None
    archive.extractall(tmp_path)
    exported = sorted((tmp_path / "Annotations" / "clip").iterdir())
    assert [path.stem for path in exported] == [f"{i:05d}" for i in range(NUM_FRAMES)]
    annotated = {}
    for index, path in enumerate(exported):
        labels = read_mask(path, (HEIGHT, WIDTH), allow_empty=True).labels
        np.testing.assert_array_equal(labels, desk.client.labels(index))
        annotated[path.name] = labels
    assert not annotated["00003.png"].any()
    assert json.loads((tmp_path / "clip.coco.json").read_text())["annotations"]
    assert (tmp_path / "clip.mp4").stat().st_size > 1000

    def segment(output: Path) -> None:
        flags = ["--video", frames, "--mask", tmp_path / "Annotations" / "clip", "--size", 0]
        flags += ["--model", tiny_weights, "--device", "cpu", "--output", output]
        assert eval_generic.main([*map(str, flags)]) == 0

    segment(tmp_path / "again")
    for name, labels in annotated.items():
        result = read_mask(tmp_path / "again" / "clip" / name, (HEIGHT, WIDTH), True).labels
        present = np.unique(labels[labels > 0])  # other objects are segmented on this frame
        for label in present:
            np.testing.assert_array_equal(result == label, labels == label)


def test_keyboard_only(desk: Desk, tmp_path: Path) -> None:
    """From an imported mask to an export without the pointer."""
    page = desk.page
    given = np.where(true_mask(0), 3, 0).astype(np.uint8)
    write_mask(tmp_path / "mask.png", given, DAVIS_PALETTE)
    with page.page.expect_file_chooser() as chooser:
        page.press("i")
    chooser.value.set_files(tmp_path / "mask.png")
    page.wait("annotator.session.objects.length === 2 && annotator.labels.includes(3)")
    page.wait_saved()
    np.testing.assert_array_equal(desk.client.labels(0), given)
    page.press("2")
    page.wait("annotator.session.current === 3")
    page.press("r")
    page.wait("annotator.toolbox.active.preview !== null")
    page.propagate("Escape", "g", "Shift+G", "t")
    page.press("End")
    page.wait(f"annotator.frame === {NUM_FRAMES - 1}")
    page.press("a")
    page.wait_saved()
    assert desk.client.states(NUM_FRAMES - 1) == {"3": "accepted"}
    page.press(",")
    page.wait("annotator.frame === 0")
    page.press("?")
    assert page.value('document.querySelector("#help").open') is True
    assert "Propagate forwards" in page.value('document.querySelector("#help").innerText')
    page.press("Escape")
    assert page.value('document.querySelector("#help").open') is False
    page.press("p")
    page.wait("annotator.frame > 2")
    page.press("Escape")
    assert page.value("annotator.player.isPlaying") is False
    page.press("Shift+E", "Tab")
    with page.page.expect_download() as download:
        page.press("Enter")  # the second entry: masks
    names = zipfile.ZipFile(download.value.path()).namelist()
    assert len(names) == NUM_FRAMES
    assert all(name.startswith("Annotations/clip/") for name in names)
