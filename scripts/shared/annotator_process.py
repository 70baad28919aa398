"""annotate.py as a process, and a client of its web server."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

_ROOT = Path(__file__).resolve().parents[2]


class Client:
    """Reads an annotator's session as a page with the right cookie does.

    Args:
        address: http://HOST:PORT of the server.
        token: of its start.
    """

    def __init__(self, address: str, token: str) -> None:
        self.address, self.page_address = address, f"{address}/?token={token}"
        port = address.rpartition(":")[2]
        self._headers = {"Cookie": f"annotator-{port}={token}", "Origin": address}

    def get(self, path: str) -> Any:
        """Return the JSON answer to a GET request."""
        return json.loads(self._read(path)[0])

    def post(self, path: str, content: object) -> Any:
        """Return the JSON answer to a POST request with JSON."""
        return json.loads(self._read(path, json.dumps(content).encode())[0])

    def image(self, frame: int) -> bytes:
        """Image of a frame, as a JPEG file."""
        return self._read(f"/api/frames/{frame}/image")[0]

    def labels(self, frame: int) -> np.ndarray:
        """Label map of a frame, (H, W) uint8."""
        session = self.get("/api/session")
        data = gzip.decompress(self._read(f"/api/frames/{frame}/masks")[0])
        return np.frombuffer(data, np.uint8).reshape(session["height"], session["width"])

    def states(self, frame: int) -> dict[str, str]:
        """State of each object on a frame, by label; unknown ones are missing."""
        states: dict[str, str] = json.loads(self._headers_of(frame)["x-states"])
        return states

    def revision(self, frame: int) -> int:
        """Number of changes of a frame."""
        return int(self._headers_of(frame)["x-revision"])

    def _headers_of(self, frame: int) -> dict[str, str]:
        return self._read(f"/api/frames/{frame}/masks")[1]

    def _read(self, path: str, body: bytes | None = None) -> tuple[bytes, dict[str, str]]:
        request = urllib.request.Request(self.address + path, body, self._headers)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.read(), {name.lower(): value for name, value in reply.headers.items()}


class AnnotatorProcess:
    """A running annotate.py; it is killed at the end of its `with` block.

    Args:
        video, session: file or folder of the clip, and folder of the session.
        port: 0 takes a free one.
        flags: further options of annotate.py.

    Raises:
        ValueError: the program ended before it printed its address.
    """

    def __init__(
        self, video: Path, session: Path, port: int = 0, flags: Sequence[str] = ()
    ) -> None:
        command = [
            sys.executable, str(_ROOT / "annotate.py"), str(video), "--session", str(session),
            "--port", str(port), "--no_browser", *flags,
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = re.search(r"(http://[\d.:]+)/\?token=(\S+)", line)
            if found:
                break
        else:
            raise ValueError(f"annotate.py ended with exit status {self._process.wait()}.")
        self.client = Client(found[1], found[2])

    @property
    def pid(self) -> int:
        """Identifier of the process."""
        return self._process.pid

    @property
    def port(self) -> int:
        """Port of the server."""
        return int(self.client.address.rpartition(":")[2])

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> AnnotatorProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
