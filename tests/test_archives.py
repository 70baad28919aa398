"""Extraction of archives: layouts, damage, and unsafe members."""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.archives import extract
from datasets.download import archive_path, fetch
from tests.example_downloads import (
    DAVIS,
    VIDEO,
    FakeDrive,
    Files,
    inside,
    read_tree,
    set_flag,
    tar_bytes,
    zip_bytes,
)


@pytest.mark.parametrize("wrapping", ["", "DAVIS", "a/DAVIS"])
@pytest.mark.parametrize("pack", [zip_bytes, tar_bytes, lambda files: tar_bytes(files, "w:gz")])
def test_archive_becomes_the_published_folder(
    tmp_path: Path, wrapping: str, pack: Callable[[Files], bytes]
) -> None:
    files = inside(VIDEO, wrapping) if wrapping else VIDEO
    assert fetch(DAVIS, tmp_path, FakeDrive(pack(files)))
    assert read_tree(tmp_path) == inside(VIDEO, "DAVIS/2016")  # the archive is removed
    assert [path.name for path in (tmp_path / "DAVIS").iterdir()] == ["2016"]


def make_damaged_zip() -> bytes:
    content = zip_bytes({"JPEGImages/a/0.jpg": b"image" * 50, "Annotations/a/0.png": b"mask"})
    return content.replace(b"imageimage", b"imageXmage", 1)


def make_tar_with_wrong_checksum() -> bytes:
    """Compress a tar in two parts; the checksum of the first one is wrong."""
    content = tar_bytes({"JPEGImages/0.jpg": b"i" * 9999})
    return gzip.compress(content[:6000])[:-8] + bytes(8) + gzip.compress(content[6000:])


@pytest.mark.parametrize(
    "content",
    [
        b"no archive",
        make_damaged_zip(),
        set_flag(zip_bytes(VIDEO), 1),
        set_flag(zip_bytes(VIDEO), 0, compression=99),
        tar_bytes({"JPEGImages/0.jpg": b"i" * 9999})[:6000],
        make_tar_with_wrong_checksum(),
    ],
)
def test_damaged_archive_is_kept_and_reported(tmp_path: Path, content: bytes) -> None:
    path = archive_path(DAVIS, tmp_path)
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"davis2016\.zip is damaged .* delete it") as caught:
        fetch(DAVIS, tmp_path, FakeDrive(b""))
    assert "\n" not in str(caught.value)
    assert list(read_tree(tmp_path)) == ["DAVIS/davis2016.zip"]
    assert not (tmp_path / "DAVIS" / "2016").exists()


def test_archive_with_other_contents_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder with JPEGImages and Annotations"):
        fetch(DAVIS, tmp_path, FakeDrive(zip_bytes({"readme.txt": b"hello"})))
    assert not (tmp_path / "DAVIS" / "2016").exists()


@pytest.mark.parametrize("pack", [zip_bytes, tar_bytes])
@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "C:/evil"]
)
def test_members_outside_the_folder_are_rejected(
    tmp_path: Path, name: str, pack: Callable[[Files], bytes]
) -> None:
    with pytest.raises(ValueError, match="unsafe"):
        fetch(DAVIS, tmp_path, FakeDrive(pack({**VIDEO, name: b"evil"})))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [
        archive_path(DAVIS, tmp_path)
    ]
    assert not (tmp_path.parent / "evil").exists()


def test_links_are_rejected(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        info = zipfile.ZipInfo("JPEGImages")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        with tarfile.open(tmp_path / f"link{kind.decode()}.tar", "w") as tar:
            member = tarfile.TarInfo("JPEGImages")
            member.type = kind
            member.linkname = "/etc"
            tar.addfile(member)
    paths = list(tmp_path.iterdir())
    assert len(paths) == 4
    for path in paths:
        with pytest.raises(ValueError, match="link or a device"):
            extract(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
