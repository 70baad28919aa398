"""What the benchmark of the annotator measures, on an open page; times are in milliseconds."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from inference.predictor import Predictor
from inference.tracker import Tracker
from scripts.shared.annotator_page import AnnotatorPage, Point
from scripts.shared.annotator_process import AnnotatorProcess
from util.images import list_frames, read_image

_OUTLINE_POINTS = 24
_SECONDS = 600  # longest wait for a propagation
# Empties the page's caches, apart from the shown frame.
_FORGET = """[annotator.frames.images, annotator.frames.masks].forEach(({entries}) =>
    [...entries.keys()].filter((i) => i !== annotator.frame).forEach((i) => entries.delete(i)))"""
_START = 2  # frames at the start of a propagation that are not timed


def take_times(page: AnnotatorPage, kind: str) -> list[float]:
    """Return the times that the page has measured, and forget them."""
    times: list[float] = page.value(f"annotator.timings.{kind}.splice(0)")
    return times


def draw_object(page: AnnotatorPage, mask: np.ndarray) -> None:
    """Outline an object on the first frame."""
    page.go_to(0)
    page.draw_polygon(_outline(mask))


def measure_strokes(page: AnnotatorPage, mask: np.ndarray, repeats: int) -> list[float]:
    """Time from the events of a brush to the painted pixels."""
    page.press("b")
    left, top, right, bottom = _box(mask)
    page.drag([(left, top), (right, bottom)], steps=4)  # the first one compiles the code
    take_times(page, "stroke")
    times: list[float] = []
    for number in range(repeats):
        y = top + (bottom - top) * (number + 0.5) / repeats
        page.drag([(left, y), (right, y), (left, y)], steps=20)
        times += take_times(page, "stroke")  # the page keeps the newest 200
    page.wait_saved()
    return times


def measure_hints(page: AnnotatorPage, mask: np.ndarray, repeats: int) -> list[float]:
    """Time from the events of a hint to the painted preview."""
    x, y = np.argwhere(mask).mean(0)[::-1]
    height, width = mask.shape
    page.press("h")
    times: list[float] = []
    for _ in range(repeats):
        page.drag([(x - 4, y), (x + 4, y)])
        outside = [(2, 2), (width - 2, 2), (width - 2, height - 2), (2, height - 2), (2, 4)]
        page.drag([(float(a), float(b)) for a, b in outside], steps=6, button="right")
        page.wait("annotator.toolbox.active.preview !== null && !annotator.toolbox.active.isAsking")
        page.press("Escape")
        times += take_times(page, "hint")
    return times


def measure_refinements(page: AnnotatorPage, repeats: int) -> list[float]:
    """Time from the key to the painted preview of GrabCut; the object must have a mask."""
    page.press("l")
    for number in range(repeats):
        page.press("r")
        page.wait(f"annotator.timings.refine.length > {number}")
        page.press("Escape")
    return take_times(page, "refine")


def measure_first_masks(page: AnnotatorPage, repeats: int) -> list[float]:
    """Time from the key to the first propagated mask, painted if its frame is shown."""
    for number in range(repeats):
        page.press("t")
        page.wait(f"annotator.timings.propagate.length > {number}", _SECONDS)
        page.press("Escape")
        page.wait_propagated()
    return take_times(page, "propagate")


def measure_fps(
    page: AnnotatorPage, frames: Path, mask: np.ndarray, predictor: Predictor, repeats: int
) -> tuple[list[float], list[float]]:
    """Frames per second of propagations in the annotator, and of the tracker alone.

    The two alternate, so that a busy machine slows both. The tracker has its frames in memory.
    """
    images = [read_image(path) for path in list_frames(frames)]
    page.value(
        "{ annotator.masksAt = []; annotator.events.addEventListener('message', ({detail}) => {"
        "if (detail.source === 'propagation') annotator.masksAt.push(performance.now()); }); }"
    )
    ours, alone = [], []
    for _ in range(repeats):
        page.press("t")
        page.wait(f"annotator.masksAt.length === {len(images) - 1}", _SECONDS)
        page.wait_propagated(_SECONDS)
        # The page now asks for suggestions, which must not slow the tracker.
        page.wait('document.querySelector("#suggestions-text").textContent[0] !== "L"', _SECONDS)
        times = page.value("annotator.masksAt.splice(0)")[_START - 1 :]  # frame 0 has no event
        ours.append(1e3 * (len(times) - 1) / (times[-1] - times[0]))
        alone.append(_track(predictor, images, mask.astype(np.uint8)))
    return ours, alone


def _track(predictor: Predictor, images: Sequence[np.ndarray], mask: np.ndarray) -> float:
    """Frames per second of the tracker alone."""
    tracker = Tracker(predictor, len(images), 1)
    tracker.segment(images[0], mask)
    start = 0.0
    for index, image in enumerate(images[1:], start=1):
        tracker.segment(image)
        if index == _START:
            start = time.perf_counter()
    return (len(images) - 1 - _START) / (time.perf_counter() - start)


def measure_seeks(page: AnnotatorPage, repeats: int, seed: int = 0) -> list[float]:
    """Time from a request for a random frame to its painted image and masks."""
    num_frames = page.value("annotator.session.numFrames")
    rng = np.random.default_rng(seed)
    network = page.page.context.new_cdp_session(page.page)
    network.send("Network.setCacheDisabled", {"cacheDisabled": True})
    times: list[float] = []
    while len(times) < repeats:
        # A person looks at a frame while its neighbours are fetched.
        page.wait("annotator.frames.running.size === 0", _SECONDS)
        page.value(_FORGET)
        frame = int(rng.integers(num_frames))
        if frame == page.value("annotator.frame"):
            continue
        page.go_to(frame)
        page.wait("annotator.timings.seek.length > 0")
        times += take_times(page, "seek")
    return times


def walk(server: AnnotatorProcess, step: int) -> float | None:
    """Fetch every `step`-th frame of a clip.

    Returns:
        Memory of the server at its end in bytes (resident set); None on other systems than Linux.
    """
    for frame in range(0, server.client.get("/api/session")["num_frames"], step):
        server.client.image(frame)
        server.client.labels(frame)
    status = Path(f"/proc/{server.pid}/status")
    if not status.exists():
        return None
    found = re.search(r"^VmRSS:\s*(\d+) kB$", status.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Bounding box: left, top, right, bottom."""
    y, x = np.nonzero(mask)
    return float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)


def _outline(mask: np.ndarray) -> list[Point]:
    """Points along the outline of a mask without parts or holes."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(found, key=cv2.contourArea)[:, 0]
    chosen = np.linspace(0, len(contour), _OUTLINE_POINTS, endpoint=False).astype(int)
    return [(x + 0.5, y + 0.5) for x, y in contour[chosen].tolist()]
