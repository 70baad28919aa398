"""Atomic writing of files, and digests."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from util.files import atomic_path, sha256


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "mask.tar.png"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".png"
        assert temporary.name.startswith(".")
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert [*path.parent.iterdir()] == [path]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with path.open() as reader:
        with atomic_path(str(path)) as temporary:
            temporary.write_text("new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert reader.read() == "old", "an open file keeps its content"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_keeps_the_earlier_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_block_that_writes_no_file_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"

    def write() -> None:
        with atomic_path(path) as temporary:
            temporary.unlink()

    with pytest.raises(FileNotFoundError):
        write()
    assert not [*tmp_path.iterdir()]


def test_a_file_in_place_of_the_folder_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def write() -> None:
        with atomic_path(tmp_path / "file" / "a.txt"):
            pytest.fail("the folder cannot be made")

    with pytest.raises(OSError, match="file"):
        write()


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.touch()
        (tmp_path / "plain.txt").touch()
        assert os.umask(umask) == umask, "the umask is restored"
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("a.txt", "plain.txt")]
    assert modes[0] == modes[1]


def test_two_writers_use_different_temporary_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_path(path) as first, atomic_path(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # its block ends last
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_digest(tmp_path: Path, size: int) -> None:
    content = bytes(index % 251 for index in range(size))
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    assert sha256(path) == hashlib.sha256(content).hexdigest()
