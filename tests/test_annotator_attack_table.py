"""What attackers and accidents get from a running annotator, as docs/annotator.md tables it."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import annotate
from annotator.store import Store
from annotator.video_clip import open_clip
from annotator.workspace import Workspace

pytest.importorskip(
    "uvicorn", reason="uvicorn is missing: pip install -r requirements-annotator.txt"
)
pytest.importorskip("playwright", reason="playwright is missing: pip install 'playwright>=1.45'")

from tests.annotator_desk import HEIGHT, TOKEN, WIDTH, serving_workspace, write_clip

ROOT = Path(__file__).resolve().parents[1]
HEADING = "## What was tried against it"

Answer = tuple[str, str]  # status of the answer, or of the program; and its sentence
HANDSHAKE = {
    "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}  # fmt: skip


class Victim:
    """A running server of a clip with one object, and a client that can send anything.

    store: session of the server.
    folder: for files of the attacker.
    """

    def __init__(self, port: int, store: Store, folder: Path) -> None:
        self.port, self.store, self.folder = port, store, folder

    def send(
        self, path: str, body: bytes | Iterator[bytes] | None = None, **headers: str
    ) -> Answer:
        """Send a request with cookie and origin of the page, apart from the given headers."""
        own = f"127.0.0.1:{self.port}"
        cookie = f"annotator-{self.port}={TOKEN}"
        given = {"Host": own, "Origin": f"http://{own}", "Cookie": cookie, **headers}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest("GET" if body is None else "POST", path, skip_host=True)
        if isinstance(body, bytes) and "Content-Length" not in given:
            given["Content-Length"] = str(len(body))
        elif body is not None and "Content-Length" not in given:
            given["Transfer-Encoding"] = "chunked"
        for name, value in given.items():
            connection.putheader(name, value)
        # The server may answer before it has the whole body.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.endheaders(body, encode_chunked="Transfer-Encoding" in given)
        reply = connection.getresponse()
        text = reply.read().decode("utf-8", "replace")
        connection.close()
        is_json = reply.headers.get_content_type() == "application/json"
        return str(reply.status), str(json.loads(text).get("error", "")) if is_json else ""

    def post(self, path: str, content: object) -> Answer:
        """Send JSON as the page does."""
        return self.send(path, json.dumps(content).encode())

    def paint(self, frame: int, revision: int, labels: np.ndarray) -> Answer:
        """Paint a whole frame."""
        query = f"label=1&revision={revision}&x=0&y=0&width={WIDTH}&height={HEIGHT}"
        return self.send(f"/api/frames/{frame}/paint?{query}", gzip.compress(labels.tobytes()))


def huge(victim: Victim) -> Answer:
    """Send 1 GB in pieces, without saying so first."""
    pieces = (bytes(2**20) for _ in range(2**10))
    return victim.send("/api/import?frame=0", pieces)


def other_size(victim: Victim) -> Answer:
    data = io.BytesIO()
    Image.fromarray(np.ones((5, 7), np.uint8)).save(data, "PNG")
    return victim.send("/api/import?frame=0", data.getvalue())


def damaged_file(victim: Victim, capsys: pytest.CaptureFixture[str]) -> Answer:
    (victim.folder / "clip.mp4").write_bytes(bytes(100_000))
    status = annotate.main([str(victim.folder / "clip.mp4")])
    sentence = capsys.readouterr().err.strip().removeprefix("annotate.py: error: ")
    return f"exit status {status}", sentence


def two_pages(victim: Victim) -> Answer:
    ones = np.ones((HEIGHT, WIDTH), np.uint8)
    assert victim.paint(0, 0, ones)[0] == "200"
    return victim.paint(0, 0, 0 * ones)


def full_disk(victim: Victim) -> Answer:
    with victim.store.reading() as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
    noise = np.random.default_rng(0).integers(0, 2, (HEIGHT, WIDTH)).astype(np.uint8)
    frame, answer = 0, ("200", "")
    while answer[0] == "200":
        frame += 1
        answer = victim.paint(frame, 0, noise)
    assert victim.store.frame(frame).revision == 0
    with victim.store.reading() as db:
        db.execute(f"PRAGMA max_page_count = {2 * pages + 10_000}")
    assert victim.paint(frame, 0, noise)[0] == "200", "the server has not recovered"
    return answer


UP = "../../etc/passwd"
OBJECT, OPERATION = "/api/objects/1", "/api/frames/0/operation"
ATTACKS: dict[str, Callable[..., Answer]] = {
    "foreign Host": lambda v: v.send("/api/session", Host="evil.example"),
    "foreign Origin, POST": lambda v: v.send("/api/undo", b"", Origin="http://evil.example"),
    "foreign Origin, WebSocket": lambda v: v.send(
        "/api/events", **{**HANDSHAKE, "Origin": "http://evil.example"}
    ),
    "no token": lambda v: v.send("/api/session", Cookie=""),
    "no token, WebSocket": lambda v: v.send("/api/events", **{**HANDSHAKE, "Cookie": ""}),
    "`../` as a file of the page": lambda v: v.send("/page/..%2f..%2fetc/passwd"),
    "`../` as a frame": lambda v: v.send("/api/frames/..%2f..%2fetc%2fpasswd/image"),
    "`../` as a frame to import": lambda v: v.send(f"/api/import?frame={UP}", b""),
    "`../` as a number": lambda v: v.send(f"/api/frames/0/paint?x={UP}", b""),
    "`../` as an object": lambda v: v.post("/api/objects/..%2f..%2fetc%2fpasswd", {}),
    "`../` as a name": lambda v: v.post(OBJECT, {"name": UP}),
    "`../` as a colour": lambda v: v.post(OBJECT, {"colour": UP}),
    "`../` as an operation": lambda v: v.post(OPERATION, {"label": 1, "operation": UP}),
    "`../` as a frame to copy": lambda v: v.post(
        OPERATION, {"label": 1, "operation": "copy", "source": UP}
    ),
    "`../` as a direction": lambda v: v.post("/api/propagate", {"direction": UP}),
    "`../` as a part of the export": lambda v: v.send(f"/api/export?what={UP}"),
    "1 GB body": lambda v: v.send("/api/import?frame=0", b"", **{"Content-Length": str(2**30)}),
    "1 GB body without a length": huge,
    "mask of another size": other_size,
    "painted rectangle larger than the frame": lambda v: v.send(
        "/api/frames/0/paint?label=1&revision=0&x=0&y=0&width=9999&height=9999", b""
    ),
    "damaged video": damaged_file,
    "damaged frame": lambda v: v.send("/api/frames/5/image"),
    "two pages paint the same frame": two_pages,
    "full disk": full_disk,
}


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    folder = tmp_path_factory.mktemp("victim")
    (write_clip(folder / "clip") / "00005.png").write_bytes(b"no image")
    clip = open_clip(folder / "clip")
    store = Store(folder / "session", len(clip), clip.size, clip.path)
    store.add_object()
    with serving_workspace(Workspace(clip, store, None, folder)) as client:
        yield Victim(int(client.address.rpartition(":")[2]), store, folder)


def documented() -> dict[str, Answer]:
    """Rows of the table: attack -> status and sentence."""
    text = (ROOT / "docs" / "annotator.md").read_text().partition(HEADING)[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert rows[0] == ["attack", "status", "answer"]
    return {row[0]: (row[1], row[2] if len(row) > 2 else "") for row in rows[1:]}


def test_the_table_has_all_attacks() -> None:
    assert [*documented()] == [*ATTACKS]


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_get_the_documented_answer(
    attack: str, victim: Victim, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ATTACKS[attack]
    status, sentence = run(victim, capsys) if run is damaged_file else run(victim)
    known = [(known.label, known.colour) for known in victim.store.objects()]
    assert known == [(1, "#800000")], "an attack changed the objects"
    assert (status, sentence.replace(f"{victim.folder}/", "")) == documented()[attack]
