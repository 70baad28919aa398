"""The annotator's server: what its routes do, and what its guard refuses."""

from __future__ import annotations

import gzip
import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from annotator.store import Store
from annotator.video_clip import open_clip
from datasets.synthetic import make_clip
from inference.predictor import Predictor
from util.hyper_para import EvalSettings
from util.masks import DAVIS_PALETTE

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from annotator.server import make_app
from annotator.workspace import Workspace

NUM_FRAMES, HEIGHT, WIDTH = 8, 64, 96
TOKEN, COOKIE = "secret", "annotator-1"
ORIGIN = {"Origin": "http://127.0.0.1:1"}
ADDRESS = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the frames of a drawn clip, named clip."""
    folder = tmp_path_factory.mktemp("frames") / "clip"
    folder.mkdir()
    for index, (image, _) in enumerate(make_clip(NUM_FRAMES, HEIGHT, WIDTH, 2, seed=0)):
        cv2.imwrite(str(folder / f"{index:05d}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return folder


@pytest.fixture
def workspace(frames: Path, tiny_weights: Path, tmp_path: Path) -> Workspace:
    clip = open_clip(frames)
    store = Store(tmp_path / "session", len(clip), clip.size, clip.path)
    settings = EvalSettings(model=str(tiny_weights), device="cpu")
    return Workspace(clip, store, lambda: Predictor(settings), tmp_path, {"name": "tiny.pth"})


@pytest.fixture
def page(workspace: Workspace) -> Iterator[TestClient]:
    """A client with the cookie, that sends the page's own origin."""
    app = make_app(workspace, TOKEN, {"127.0.0.1"}, COOKIE)
    with TestClient(app, base_url=ADDRESS, headers=ORIGIN) as client:
        assert client.get(f"/?token={TOKEN}").status_code == 200
        yield client


def paint(page: TestClient, frame: int, labels: np.ndarray, label: int, revision: int = 0) -> Any:
    query = f"label={label}&revision={revision}&x=0&y=0&width={WIDTH}&height={HEIGHT}"
    return page.post(f"/api/frames/{frame}/paint?{query}", content=gzip.compress(labels.tobytes()))


def masks(page: TestClient, frame: int) -> tuple[np.ndarray, int, dict[str, str]]:
    """Label map, revision and states of a frame."""
    reply = page.get(f"/api/frames/{frame}/masks")
    labels = np.frombuffer(reply.content, np.uint8).reshape(HEIGHT, WIDTH)
    return labels, int(reply.headers["X-Revision"]), json.loads(reply.headers["X-States"])


def box(label: int, rows: slice, columns: slice) -> np.ndarray:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[rows, columns] = label
    return labels


def wait_for_job(page: TestClient) -> None:
    deadline = time.monotonic() + 60
    while page.get("/api/session").json()["job"] is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_session_and_frames(page: TestClient) -> None:
    session = page.get("/api/session").json()
    assert {k: session[k] for k in ("name", "num_frames", "height", "width", "demo", "job")} == {
        "name": "clip", "num_frames": 8, "height": 64, "width": 96, "demo": False, "job": None,
    }  # fmt: skip
    assert session["model"]["name"] == "tiny.pth"
    image = page.get("/api/frames/3/image")
    assert image.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(image.content)).size == (WIDTH, HEIGHT)
    assert page.get("/page/main.js").status_code == 200
    assert "default-src 'self'" in image.headers["content-security-policy"]
    assert page.get("/api/frames/8/image").json() == {
        "error": "There is no frame 8: the clip has frames 0 to 7."
    }


def test_painting_undo_and_conflict(page: TestClient) -> None:
    assert page.post("/api/objects", json={"name": "dog"}).json()["object"]["label"] == 1
    reply = paint(page, 2, box(1, slice(0, 9), slice(0, 9)), 1).json()
    assert reply["revision"] == 1
    assert reply["states"] == {"1": "drawn"}
    assert reply["history"] == {"undo": True, "redo": False}
    labels, revision, states = masks(page, 2)
    assert (np.count_nonzero(labels), revision, states) == (81, 1, {"1": "drawn"})
    refused = paint(page, 2, box(1, slice(0, 1), slice(0, 1)), 1, revision=0)
    assert refused.status_code == 409
    assert "Frame 2 has changed since it was loaded" in refused.json()["error"]
    assert page.post("/api/undo").json()["frame"] == 2
    assert not masks(page, 2)[0].any()
    assert page.post("/api/undo").status_code == 400
    assert page.post("/api/redo").json()["states"] == {"1": "drawn"}


def test_operations(page: TestClient) -> None:
    page.post("/api/objects", json={})
    ring = box(1, slice(10, 40), slice(10, 40)) - box(1, slice(20, 30), slice(20, 30))
    ring[60:, 90:] = 1
    revision = paint(page, 0, ring, 1).json()["revision"]

    def operate(frame: int, operation: str, revision: int, **more: object) -> Any:
        content = {"operation": operation, "label": 1, "revision": revision, **more}
        return page.post(f"/api/frames/{frame}/operation", json=content).json()

    revision = operate(0, "fill", revision)["revision"]
    assert masks(page, 0)[0][25, 25] == 1
    revision = operate(0, "largest", revision)["revision"]
    assert np.count_nonzero(masks(page, 0)[0]) == 900
    revision = operate(0, "grow", revision, pixels=2)["revision"]
    assert np.count_nonzero(masks(page, 0)[0]) > 1000
    reply = operate(1, "copy", 0, source=0)
    assert reply["states"] == {"1": "drawn"}
    assert operate(1, "empty", reply["revision"])["states"] == {"1": "empty"}
    assert not masks(page, 1)[0].any()
    assert "There is no operation 'dance'" in operate(0, "dance", revision)["error"]
    assert "has no mask of object 1 to copy" in operate(2, "copy", 0, source=5)["error"]
    assert "is not propagated" in operate(0, "accept", revision)["error"]


def test_aids_reply_with_boxes(page: TestClient) -> None:
    page.post("/api/objects", json={})
    hints = {"inside": [[[40, 30], [50, 32]]], "outside": [[[2, 2], [90, 2]]], "width": 3}
    reply = page.post("/api/frames/0/watershed", json=hints)
    x, y, width, height = map(int, reply.headers["X-Box"].split(","))
    assert len(reply.content) == width * height > 0
    assert reply.content[(30 - y) * width + 40 - x] == 1, "the hint itself is inside"
    paint(page, 0, box(1, slice(20, 40), slice(30, 60)), 1)
    assert page.post("/api/frames/0/grabcut", json={"label": 1}).headers["X-Box"]
    points = page.post("/api/frames/0/scissors", json={"start": [5, 5], "end": [60, 50]}).json()
    assert points["points"][0] == [5, 5]
    assert points["points"][-1] == [60, 50]
    assert (
        "A point must be [x, y]"
        in page.post("/api/frames/0/scissors", json={"start": "here", "end": [1, 2]}).json()[
            "error"
        ]
    )


def test_propagation_keeps_what_was_drawn(page: TestClient) -> None:
    assert page.post("/api/propagate", json={"direction": "both", "scope": "all"}).json() == {
        "error": "There is no mask yet: draw one object on one frame first."
    }
    page.post("/api/objects", json={})
    first, last = box(1, slice(10, 30), slice(10, 40)), box(1, slice(20, 40), slice(40, 60))
    paint(page, 1, first, 1)
    paint(page, 5, last, 1)
    with page.websocket_connect("ws://127.0.0.1:1/api/events", headers=ORIGIN) as socket:
        job = page.post("/api/propagate", json={"direction": "both", "scope": "all"}).json()["job"]
        assert (job["direction"], job["scope"], job["total"]) == ("both", "all", 2 + 10 + 3)
        events: list[Any] = []
        while not events or events[-1].get("job", 0) is not None:
            events.append(socket.receive_json())
    assert events[-1]["error"] == ""
    changed = [event["frame"] for event in events if event["type"] == "frame"]
    assert sorted({*changed}) == [0, 2, 3, 4, 6, 7]
    np.testing.assert_array_equal(masks(page, 1)[0], first)
    np.testing.assert_array_equal(masks(page, 5)[0], last)
    rows = page.get("/api/timeline").json()["rows"]["1"]
    states = [state for _, _, state in rows]
    assert states == ["propagated", "drawn", "propagated", "drawn", "propagated"]
    revision = masks(page, 3)[1]
    accepted = {"operation": "accept", "label": 0, "revision": revision}
    reply = page.post("/api/frames/3/operation", json=accepted).json()
    assert reply["states"] == {"1": "accepted"}
    kept = masks(page, 3)[0]
    page.post("/api/propagate", json={"direction": "forwards", "frame": 1, "scope": "gap"})
    wait_for_job(page)
    np.testing.assert_array_equal(masks(page, 3)[0], kept)
    suggestions = page.get("/api/suggestions?num=3").json()["suggestions"]
    assert all(entry["frame"] not in (1, 3, 5) for entry in suggestions)
    assert all(entry["reason"] for entry in suggestions)


def test_a_propagation_can_be_stopped(page: TestClient, workspace: Workspace) -> None:
    page.post("/api/objects", json={})
    paint(page, 0, box(1, slice(10, 30), slice(10, 40)), 1)
    page.post("/api/propagate", json={"direction": "forwards", "frame": 0})
    again = page.post("/api/propagate", json={"direction": "forwards", "frame": 0})
    assert again.status_code == 200 or "is running" in again.json()["error"]
    assert page.post("/api/stop").json() == {"job": None}
    assert page.get("/api/session").json()["job"] is None
    assert workspace.store.frame(0).states == {1: "drawn"}


def test_export_and_import(page: TestClient) -> None:
    page.post("/api/objects", json={"name": "dog"})
    drawn = box(1, slice(10, 30), slice(10, 40))
    paint(page, 2, drawn, 1)
    reply = page.get("/api/export?what=masks,overlay,coco")
    archive = zipfile.ZipFile(io.BytesIO(reply.content))
    names = archive.namelist()
    assert [n for n in names if n.endswith(".png")] == ["Annotations/clip/00002.png"]
    mask = Image.open(io.BytesIO(archive.read("Annotations/clip/00002.png")))
    np.testing.assert_array_equal(np.asarray(mask), drawn)
    assert {"clip.mp4", "clip.coco.json"} <= {*names}
    assert json.loads(archive.read("clip.coco.json"))["categories"][0]["name"] == "dog"
    assert "no part 'all'" in page.get("/api/export?what=all").json()["error"]

    image = Image.fromarray(box(3, slice(0, 5), slice(0, 5)))
    image.putpalette(DAVIS_PALETTE)
    data = io.BytesIO()
    image.save(data, "PNG")
    assert page.post("/api/import?frame=6", content=data.getvalue()).json()["states"] == {
        "3": "drawn"
    }
    assert [known["label"] for known in page.get("/api/session").json()["objects"]] == [1, 3]
    wrong = page.post("/api/import?frame=6", content=b"no image").json()["error"]
    assert "mask" in wrong
    small = io.BytesIO()
    image.resize((5, 5)).save(small, "PNG")
    assert f"{WIDTH}x{HEIGHT}" in page.post("/api/import?frame=6", content=small.getvalue()).text


FOREIGN: list[tuple[dict[str, str], int, str]] = [
    ({"Host": "evil.example"}, 403, "unknown to the server"),
    ({"Host": "127.0.0.1:1@evil.example"}, 403, "unknown to the server"),
    ({"Host": "127.0.0.1.evil.example:1"}, 403, "unknown to the server"),
    ({"Origin": "http://evil.example"}, 403, "another web page"),
    ({"Origin": "null"}, 403, "another web page"),
    ({"Origin": "http://127.0.0.1:2"}, 403, "another web page"),
    ({"Cookie": ""}, 401, "token of this start is missing"),
    ({"Cookie": f"{COOKIE}=wrong"}, 401, "token of this start is missing"),
    ({"Cookie": f"other={TOKEN}"}, 401, "token of this start is missing"),
    ({"Content-Length": str(2**30)}, 413, "larger than 64 MiB"),
]


@pytest.mark.parametrize(("headers", "status", "sentence"), FOREIGN)
def test_foreign_requests_are_refused(
    headers: dict[str, str], status: int, sentence: str, page: TestClient, workspace: Workspace
) -> None:
    given = {"Cookie": f"{COOKIE}={TOKEN}", **headers}
    page.cookies.clear()
    reply = page.post("/api/objects", headers=given, content=b"{}")
    assert reply.status_code == status
    assert sentence in reply.json()["error"]
    assert not workspace.store.objects()


def test_reading_needs_the_token_too(page: TestClient) -> None:
    cookie = page.cookies.get(COOKIE)
    assert cookie == TOKEN
    page.cookies.clear()
    for path in ("/", "/?token=wrong", "/api/session", "/api/frames/0/image", "/page/main.js"):
        assert page.get(path).status_code == 401
    reply = page.get(f"/?token={TOKEN}", follow_redirects=False)
    assert reply.headers["location"] == "/"
    assert "httponly; samesite=strict" in reply.headers["set-cookie"].lower().replace(
        "path=/; ", ""
    )


def test_large_bodies_without_a_length_are_refused(page: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(70):
            yield bytes(2**20)

    reply = page.post("/api/import?frame=0", content=pieces())
    assert reply.status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/page/../store.py", "/page/..%2fstore.py", "/page/%2e%2e/store.py",
        "/page/....//store.py", "/page//etc/passwd", "/api/frames/..%2f..%2fetc/image",
        "/api/frames/-1/image", "/api/frames/1e3/masks", "/api/frames/99999999999999999999/masks",
    ],
)  # fmt: skip
def test_no_path_of_a_client_is_opened(path: str, page: TestClient) -> None:
    reply = page.get(path)
    assert reply.status_code in (400, 404)
    assert "import" not in reply.text
    assert "root:" not in reply.text


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe", b"[1]", b'{"name": 5}', b'{"name": "a\\u0000b"}', b"[" * 100_000,
        b'{"name": "' + b"x" * 200 + b'"}',
    ],
)  # fmt: skip
def test_wrong_json_is_refused_with_a_sentence(
    content: bytes, page: TestClient, workspace: Workspace
) -> None:
    reply = page.post("/api/objects", content=content)
    assert reply.status_code == 400
    assert reply.json()["error"].endswith(".")
    assert not workspace.store.objects()


def test_wrong_numbers_are_refused(page: TestClient) -> None:
    page.post("/api/objects", json={})
    body = gzip.compress(bytes(4))
    for query in (
        "", "label=1", "label=1&revision=0&x=a&y=0&width=2&height=2",
        "label=1&revision=0&x=0&y=0&width=100000&height=100000",
        "label=1&revision=0&x=95&y=0&width=2&height=2",
        "label=7&revision=0&x=0&y=0&width=2&height=2",
        "label=1&revision=0&x=0&y=0&width=3&height=3",
    ):  # fmt: skip
        reply = page.post(f"/api/frames/0/paint?{query}", content=body)
        assert reply.status_code == 400, query
        assert reply.json()["error"].endswith(".")
    assert masks(page, 0)[1] == 0


def test_events_need_token_and_origin(page: TestClient) -> None:
    from starlette.websockets import WebSocketDisconnect

    with page.websocket_connect("ws://127.0.0.1:1/api/events", headers=ORIGIN) as socket:
        page.post("/api/objects", json={"name": "dog"})
        assert socket.receive_json()["objects"][0]["name"] == "dog"
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example", **ORIGIN}):
        with (
            pytest.raises(WebSocketDisconnect),
            page.websocket_connect("ws://127.0.0.1:1/api/events", headers=headers),
        ):
            pass
    page.cookies.clear()
    with (
        pytest.raises(WebSocketDisconnect),
        page.websocket_connect("ws://127.0.0.1:1/api/events", headers=ORIGIN),
    ):
        pass
