"""Atomic writing of files, locking of folders, digests, JSON and CSV."""

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
from typing import TextIO


@contextlib.contextmanager
def atomic_path(path: Path | str, is_durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block succeeds.

    The parent folder is made. The temporary name keeps the suffix, because image and array writers
    select the format by it. If the block raises, an earlier file at `path` stays as it is.

    Args:
        is_durable: write the content to the disk before the rename, so that it survives a power
            failure. This is slow; disable it for files that are quickly made again.
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
def lock_folder(folder: Path, timeout: float = 0) -> Iterator[None]:
    """Make a folder and lock it until the block or the process ends.

    On a file system without locks, this only makes the folder.

    Args:
        timeout: seconds to wait for another process. The workers of a killed process can hold its
            lock for some seconds.

    Raises:
        ValueError: another process holds the lock.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        deadline = time.monotonic() + timeout
        while not _lock(lock):
            if time.monotonic() >= deadline:
                raise ValueError(
                    f"Another run is writing to {folder}: wait for it, or choose another folder."
                )
            time.sleep(0.2)
        yield


def _lock(file: TextIO) -> bool:
    """Lock a file until it is closed; return False if another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def write_json(path: Path | str, content: object) -> None:
    """Write JSON atomically; values of other types are written as text."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


def is_name(text: str) -> bool:
    """Whether a text can be the name of a file or folder, without a path."""
    is_path = "/" in text or text in ("", ".", "..")
    return not is_path and text.isprintable() and len(os.fsencode(text)) <= 255


def sha256(path: Path) -> str:
    """SHA-256 digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file atomically."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
