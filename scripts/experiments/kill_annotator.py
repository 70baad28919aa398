"""Kill the annotator's server at random moments, and check that nothing acknowledged is missing.

    python scripts/experiments/kill_annotator.py --kills 20

A client paints object 1 on random frames while object 2 is propagated. After each SIGKILL the
server starts again from the same session, and every stroke that it had acknowledged must be there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from util.command_line import script_parser

NUM_FRAMES, HEIGHT, WIDTH = 40, 96, 128


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--kills", type=int, default=20, help="number of kills (default: 20)")
    parser.add_argument(
        "--model", default="saves/stcn_small.pth", help="weights (default: saves/stcn_small.pth)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import cv2
import numpy as np

from datasets.synthetic import make_clip


class Server:
    """annotate.py as a process of its own, with a client."""

    def __init__(self, video: Path, session: Path, model: str) -> None:
        flags = ["--session", str(session), "--port", "0", "--no_browser", "--model", model]
        flags += ["--size", "48", "--device", "cpu"]
        command = [sys.executable, str(ROOT / "annotate.py"), str(video), *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found = re.search(r"http://([\d.:]+)/\?token=(\S+)", line)
            if found:
                break
        else:
            raise RuntimeError("The server printed no address.")
        self.address, token = f"http://{found[1]}", found[2]
        port = found[1].rpartition(":")[2]
        self._headers = {"Cookie": f"annotator-{port}={token}", "Origin": self.address}

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def request(self, path: str, body: bytes | None = None) -> tuple[bytes, dict[str, str]]:
        """Send a request; POST if there is a body."""
        request = urllib.request.Request(self.address + path, body, self._headers)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.read(), dict(reply.headers)

    def masks(self, frame: int) -> tuple[np.ndarray, int]:
        """Label map and revision of a frame."""
        data, headers = self.request(f"/api/frames/{frame}/masks")
        labels = np.frombuffer(gzip.decompress(data), np.uint8).reshape(HEIGHT, WIDTH)
        return labels, int(headers["x-revision"])

    def paint(self, frame: int, label: int, labels: np.ndarray) -> None:
        """Replace the label map of a frame."""
        _, revision = self.masks(frame)
        query = f"label={label}&revision={revision}&x=0&y=0&width={WIDTH}&height={HEIGHT}"
        self.request(f"/api/frames/{frame}/paint?{query}", gzip.compress(labels.tobytes()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run; return the exit status: 0 if nothing is missing, else 1."""
    arguments = parse(argv)
    rng = np.random.default_rng(arguments.seed)
    expected: dict[int, list[np.ndarray]] = {}  # frame -> masks of object 1 that it may have
    num_strokes = num_missing = 0
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, "clip")
        video.mkdir()
        for index, (image, _) in enumerate(make_clip(NUM_FRAMES, HEIGHT, WIDTH, 2, seed=0)):
            cv2.imwrite(str(video / f"{index:05d}.png"), image)
        for kill in range(arguments.kills + 1):
            with Server(video, Path(folder, "session"), arguments.model) as server:
                if kill == 0:
                    _prepare(server)
                num_missing += _count_missing(server, expected)
                if kill < arguments.kills:
                    seconds = rng.uniform(0.05, 2.0)
                    timer = threading.Timer(seconds, os.kill, (server.process.pid, signal.SIGKILL))
                    timer.start()
                    num_strokes += _paint_until_killed(server, expected, rng)
                    timer.join()
                    print(f"kill {kill + 1}: after {seconds:.2f} s", flush=True)
    print(f"{arguments.kills} kills, {num_strokes} acknowledged strokes, {num_missing} missing")
    return int(num_missing > 0)


def _prepare(server: Server) -> None:
    """Add two objects, and draw the second, which will be propagated."""
    for _ in range(2):
        server.request("/api/objects", b"{}")
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[70:90, 90:120] = 2
    server.paint(0, 2, labels)


def _count_missing(server: Server, expected: dict[int, list[np.ndarray]]) -> int:
    """Count frames whose object 1 is none of the masks that it may have."""
    num_missing = 0
    for frame, known in expected.items():
        labels, _ = server.masks(frame)
        if not any(np.array_equal(labels == 1, mask) for mask in known):
            print(f"frame {frame}: an acknowledged stroke is missing", flush=True)
            num_missing += 1
        expected[frame] = [labels == 1]
    return num_missing


def _paint_until_killed(
    server: Server, expected: dict[int, list[np.ndarray]], rng: np.random.Generator
) -> int:
    """Paint object 1 on random frames; return the number of acknowledged strokes."""
    num_strokes = 0
    try:
        while True:
            body = json.dumps({"direction": "forwards", "frame": 0, "scope": "all"}).encode()
            try:
                server.request("/api/propagate", body)
            except urllib.error.HTTPError as error:  # one is running
                error.close()
            frame = int(rng.integers(NUM_FRAMES))
            labels, _ = server.masks(frame)
            y, x = rng.integers(0, HEIGHT - 20), rng.integers(0, WIDTH - 20)
            labels = labels.copy()
            labels[y : y + 20, x : x + 20] = 1
            # Until the reply has come, the frame may have the mask before or after this stroke.
            known = expected.setdefault(frame, [np.zeros((HEIGHT, WIDTH), bool)])
            known.append(labels == 1)
            try:
                server.paint(frame, 1, labels)
            except urllib.error.HTTPError as error:  # the propagation has changed the frame
                error.close()
                known.pop()
                continue
            expected[frame] = [labels == 1]
            num_strokes += 1
    except (OSError, ValueError, EOFError):  # the server was killed
        return num_strokes


if __name__ == "__main__":
    sys.exit(main())
