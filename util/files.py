"""Files that are whole or absent: writing through a temporary name beside the target."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO


@contextlib.contextmanager
def atomic_path(path: Path | str, is_durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place when the block succeeds.

    The parent folder is made. The temporary name keeps the suffix, since image and array writers
    choose the format by it. What was at `path` stays untouched when the block raises.

    Args:
        is_durable: have the disk hold it before it gets its name, for files that a power cut must
            not cost; not worth the wait for files that are quickly made again.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(6)}{path.suffix}")
    try:
        yield temporary
        if is_durable:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def claimed(folder: Path, patience: float = 0) -> Iterator[None]:
    """Make a folder and keep other processes that claim it out, until the block or process ends.

    Where the file system knows no locks, nobody is kept out.

    Args:
        patience: seconds to wait for another one to end. The workers of a process that was killed
            hold its lock until they notice.

    Raises:
        ValueError: another process has claimed it.
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        deadline = time.monotonic() + patience
        while not _lock(lock):
            if time.monotonic() >= deadline:
                raise ValueError(
                    f"Another run is writing to {folder}: wait for it, or choose another folder."
                )
            time.sleep(0.2)
        yield


def _lock(file: TextIO) -> bool:
    """Whether nobody else holds the lock, which goes with the process."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def write_json(path: Path | str, content: Any) -> None:
    """Write values as JSON, whole or not at all; what JSON does not know is written as text."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """The SHA-256 digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file atomically."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
