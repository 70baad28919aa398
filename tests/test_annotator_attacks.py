"""What attackers and clumsy users did to the annotator, and what was mended after it."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from annotator import edits
from annotator.errors import ConflictError
from annotator.label_maps import Box
from annotator.store import Store
from annotator.video_clip import open_clip

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from annotator.server import make_app
from annotator.workspace import Workspace
from tests import test_annotator_server
from tests.test_annotator_server import (
    ADDRESS,
    COOKIE,
    HEIGHT,
    NUM_FRAMES,
    ORIGIN,
    TOKEN,
    WIDTH,
    box,
    masks,
    paint,
)

frames, workspace, page = (
    test_annotator_server.frames,
    test_annotator_server.workspace,
    test_annotator_server.page,
)
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("other", ['prefs={"a":1}', "a[0]=1", "k", "_xsrf=2|a|b", "x y=1"])
def test_cookies_of_other_servers_do_not_matter(other: str, page: TestClient) -> None:
    page.cookies.clear()
    headers = {"Cookie": f"{other}; {COOKIE}={TOKEN}"}
    assert page.get("/api/session", headers=headers).status_code == 200
    assert page.get("/api/session", headers={"Cookie": other}).status_code == 401


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("[[[" + "9" * 400 + ", 5]]]", "A point must be"),
        ("[[[NaN, 5]]]", "A point must be"),
        ("[[[-Infinity, 5]]]", "A point must be"),
        ("[[[1e300, 5]]]", "A point must be"),
        ("[5]", "must be lists of points"),
        ("[" + "[]," * 20_000 + "[]]", "more than 20000 points"),
        ("[[" + "[1, 1]," * 20_000 + "[1, 1]]]", "more than 20000 points"),
    ],
)
def test_odd_points_are_refused(lines: str, sentence: str, page: TestClient) -> None:
    reply = page.post("/api/frames/0/watershed", content=f'{{"inside": {lines}}}')
    assert reply.status_code == 400
    assert sentence in reply.json()["error"]


def test_a_drawn_mask_cannot_become_unknown(page: TestClient) -> None:
    page.post("/api/objects", json={})
    revision = paint(page, 0, box(1, slice(0, 9), slice(0, 9)), 1).json()["revision"]
    content = {"operation": "unempty", "label": 1, "revision": revision}
    reply = page.post("/api/frames/0/operation", json=content)
    assert "is not empty" in reply.json()["error"]
    assert masks(page, 0)[2] == {"1": "drawn"}


def test_pixels_that_are_no_pixels(page: TestClient) -> None:
    page.post("/api/objects", json={})
    query = f"label=1&revision=0&x=0&y=0&width={WIDTH}&height={HEIGHT}"
    whole = gzip.compress(np.arange(HEIGHT * WIDTH).astype(np.uint8).tobytes())
    bomb = gzip.compress(bytes(2**28))
    for body in (bomb, whole[:-30], whole[:-8] + bytes(8), bytes(HEIGHT * WIDTH), b""):
        reply = page.post(f"/api/frames/0/paint?{query}", content=body)
        assert reply.status_code == 400
        assert "The pixels" in reply.json()["error"]
    assert masks(page, 0)[1] == 0


def test_of_many_edits_of_one_revision_one_is_taken(workspace: Workspace) -> None:
    store = workspace.store
    store.add_object()
    patch = np.ones((4, 4), np.uint8)

    def edit(_: int) -> bool:
        try:
            edits.paint(store, 0, 0, 1, Box(0, 0, 4, 4), patch)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(edit, range(16))) == 1
    assert store.frame(0).revision == 1


def test_what_pages_send_over_the_socket_is_ignored(page: TestClient, workspace: Workspace) -> None:
    with page.websocket_connect("ws://127.0.0.1:1/api/events", headers=ORIGIN) as socket:
        socket.send_bytes(b"\xff")
        socket.send_text("{")
        page.post("/api/objects", json={"name": "dog"})
        assert socket.receive_json()["objects"][0]["name"] == "dog"
    deadline = time.monotonic() + 10
    while workspace._pages:
        assert time.monotonic() < deadline, "the closed page still gets events"
        time.sleep(0.01)


def test_an_export_with_a_broken_frame_has_everything_else(frames: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(frames, tmp_path / "clip")
    (folder / "00005.png").write_bytes(b"no image")
    clip = open_clip(folder)
    store = Store(tmp_path / "session", len(clip), clip.size, clip.path)
    app = make_app(Workspace(clip, store, None, tmp_path), TOKEN, {"127.0.0.1"}, COOKIE)
    with TestClient(app, base_url=ADDRESS, headers=ORIGIN) as client:
        client.get(f"/?token={TOKEN}")
        assert "00005.png" in client.get("/api/frames/5/image").json()["error"]
        client.post("/api/objects", json={})
        paint(client, 2, box(1, slice(0, 9), slice(0, 9)), 1)
        reply = client.get("/api/export?what=masks,coco,overlay")
    archive = zipfile.ZipFile(io.BytesIO(reply.content))
    assert {"Annotations/clip/00002.png", "clip.coco.json"} < {*archive.namelist()}
    assert "00005.png" in archive.read("clip.mp4.txt").decode()
    assert [*store.scratch.iterdir()] == []


def test_a_video_with_zeros_in_the_middle_keeps_the_frames_after_them(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from tests.test_annotator_clip import number_in, write_coded

    path = tmp_path / "a.mp4"
    write_coded(path, "libx264")
    content = path.read_bytes()
    start = content.index(b"mdat") + 200
    path.write_bytes(content[:start] + bytes(100) + content[start + 100 :])
    clip = open_clip(path)
    assert number_in(clip[59]) == 59
    sentences = []
    for index in range(12):  # FFmpeg conceals some errors
        try:
            assert clip[index].shape == (96, 160, 3)
        except ValueError as error:
            sentences.append(str(error))
    assert all("a.mp4 cannot be decoded: the file is damaged there" in s for s in sentences)


def test_a_server_that_ends_does_not_wait_for_the_network(frames: Path, tmp_path: Path) -> None:
    clip = open_clip(frames)
    store = Store(tmp_path, len(clip), clip.size, clip.path)
    is_over = threading.Event()

    def load() -> None:
        is_over.wait(30)
        raise ValueError("never loaded")

    workspace = Workspace(clip, store, load, store.scratch)  # type: ignore[arg-type]
    store.add_object()
    edits.paint(store, 0, 0, 1, Box(0, 0, 4, 4), np.ones((4, 4), np.uint8))
    assert workspace.propagator is not None
    workspace.propagator.start("forwards", "all", 0)
    start = time.monotonic()
    workspace.close()
    assert time.monotonic() - start < 5
    is_over.set()
    again = Store(tmp_path, NUM_FRAMES, clip.size, clip.path)
    assert again.frame(0).states == {1: "drawn"}


def test_files_of_a_killed_server_are_removed(tmp_path: Path) -> None:
    store = Store(tmp_path, 8, (4, 4), tmp_path)
    (store.scratch / "old").mkdir()
    (store.scratch / "old" / "1.npz").write_bytes(bytes(9))
    store.close()
    assert [*Store(tmp_path, 8, (4, 4), tmp_path).scratch.iterdir()] == []


def test_ctrl_c_while_the_weights_load(frames: Path, tiny_weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    command = [sys.executable, "annotate.py", str(frames), "--session", str(tmp_path / "session")]
    command += ["--port", "0", "--no_browser", "--device", "cpu", "--model", str(tiny_weights)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any("Ctrl-C ends the server" in line for line in process.stdout)
        time.sleep(0.3)  # the server starts, and the weights load in a thread
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert "terminate" not in process.stderr.read()


def test_names_are_text(page: TestClient) -> None:
    name = '<img src=x onerror="alert(1)">'
    reply = page.post("/api/objects", json={"name": name})
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert json.loads(reply.text)["object"]["name"] == name
    for odd in ("x" * 10_000, "a\nb", "\u202egnp", "\u200b"):
        assert page.post("/api/objects/1", json={"name": odd}).status_code == 400
    for wrong in ("red", "#12345g", "#123456\n", "#123456;background:url(//evil.example)"):
        assert page.post("/api/objects/1", json={"colour": wrong}).status_code == 400
