"""Downloads from a fake Google Drive: complete or absent, with a sentence for each failure."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import gdown
import pytest

from datasets import archives
from datasets.download import Item, archive_path, fetch, fetch_all
from tests.example_downloads import (
    DAVIS,
    FOLDER,
    NO_NETWORK,
    PARTS,
    QUOTA,
    VIDEO,
    WEIGHTS,
    FakeDrive,
    inside,
    read_tree,
    tar_bytes,
    zip_bytes,
)


def test_complete_items_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drive = FakeDrive(zip_bytes(VIDEO))
    fetch(DAVIS, tmp_path, drive)
    capsys.readouterr()
    assert not fetch(DAVIS, tmp_path, drive)
    assert drive.num_calls == 1
    assert "exists already, skipped" in capsys.readouterr().out


def test_empty_folders_are_filled_and_incomplete_ones_rejected(tmp_path: Path) -> None:
    target = tmp_path / "DAVIS" / "2016"
    target.mkdir(parents=True)
    assert fetch(DAVIS, tmp_path, FakeDrive(zip_bytes(VIDEO)))
    shutil.rmtree(target / "Annotations")
    with pytest.raises(ValueError, match="has no Annotations; complete it, or move it away"):
        fetch(DAVIS, tmp_path, FakeDrive(zip_bytes(VIDEO)))


def test_files_and_folders_are_stored_unchanged(tmp_path: Path) -> None:
    assert fetch(WEIGHTS, tmp_path, FakeDrive(b"PK weights"))
    assert not fetch(WEIGHTS, tmp_path, FakeDrive(b"others"))

    def drive(item: Item, path: Path) -> None:
        path.mkdir(exist_ok=True)
        (path / "model_s012_final.pth").write_bytes(b"weights")

    assert fetch(FOLDER, tmp_path, drive)
    assert not fetch(FOLDER, tmp_path, drive)
    expected = {"stcn.pth": b"PK weights", "rde/model_s012_final.pth": b"weights"}
    assert read_tree(tmp_path) == expected


def test_parts_are_merged_and_fetched_once(tmp_path: Path) -> None:
    first = inside(VIDEO, "BL30K")
    second = {"BL30K/JPEGImages/b/0.jpg": b"i", "BL30K/Annotations/b/0.png": b"m"}
    second["BL30K/Annotations/a/1.png"] = b"more of a"
    for item, files in zip(PARTS, (first, second), strict=True):
        drive = FakeDrive(tar_bytes(files))
        assert fetch(item, tmp_path, drive)
        assert not fetch(item, tmp_path, drive)
    merged = {name: data for name, data in read_tree(tmp_path).items() if ".done" not in name}
    assert merged == first | second


@pytest.mark.parametrize("error", [KeyboardInterrupt(), NO_NETWORK])
def test_interrupted_downloads_are_not_taken_as_complete(
    tmp_path: Path, error: BaseException
) -> None:
    for item, content in ((DAVIS, zip_bytes(VIDEO)), (WEIGHTS, b"PK weights")):
        with pytest.raises((KeyboardInterrupt, ValueError)):
            fetch(item, tmp_path, FakeDrive(error))
        assert not (tmp_path / item.destination).exists()
        assert not archive_path(item, tmp_path).exists()
        assert fetch(item, tmp_path, FakeDrive(content))
    assert read_tree(tmp_path) == {**inside(VIDEO, "DAVIS/2016"), "stcn.pth": b"PK weights"}


def test_interrupted_extraction_keeps_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = FakeDrive(zip_bytes(VIDEO))

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(archives.shutil, "copyfileobj", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(DAVIS, tmp_path, drive)
    assert list(read_tree(tmp_path)) == ["DAVIS/davis2016.zip"]
    assert fetch(DAVIS, tmp_path, drive)
    assert drive.num_calls == 1
    assert read_tree(tmp_path) == inside(VIDEO, "DAVIS/2016")


def test_manually_downloaded_archive_is_used(tmp_path: Path) -> None:
    path = archive_path(DAVIS, tmp_path)
    path.parent.mkdir()
    path.write_bytes(zip_bytes(VIDEO))
    drive = FakeDrive(NO_NETWORK)
    assert fetch(DAVIS, tmp_path, drive)
    assert drive.num_calls == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (QUOTA, "quota for this file is exceeded"),
        (NO_NETWORK, "no connection to Google Drive"),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), "no connection to Google Drive"),
        (gdown.DownloadError("Download is incomplete: received 5 bytes"), "incomplete"),
    ],
)
@pytest.mark.parametrize("item", [DAVIS, WEIGHTS, FOLDER, PARTS[0]])
def test_failed_download_explains_the_manual_download(
    tmp_path: Path, item: Item, error: Exception, reason: str
) -> None:
    with pytest.raises(ValueError, match=item.name) as caught:
        fetch(item, tmp_path, FakeDrive(error))
    message = str(caught.value)
    assert reason in message
    assert item.link in message
    assert str(archive_path(item, tmp_path)) in message
    assert "\n" not in message


def test_full_disk_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"could not be written to .*No space left"):
        fetch(DAVIS, tmp_path, FakeDrive(OSError(errno.ENOSPC, "No space left on device")))


def test_an_archive_that_cannot_be_extracted_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "0.jpg")

    monkeypatch.setattr(archives.shutil, "copyfileobj", fail)
    (failure,) = fetch_all([DAVIS, WEIGHTS], tmp_path, FakeDrive(zip_bytes(VIDEO)))
    assert failure.startswith(f"davis2016 could not be written to {tmp_path}: ")
    assert "No space left on device: '0.jpg'; free space there" in failure
    assert list(read_tree(tmp_path)) == ["DAVIS/davis2016.zip", "stcn.pth"]


@pytest.mark.parametrize("response", [b"<!DOCTYPE html><html>quota</html>", b""])
@pytest.mark.parametrize("item", [DAVIS, WEIGHTS])
def test_web_pages_are_rejected(tmp_path: Path, item: Item, response: bytes) -> None:
    with pytest.raises(ValueError, match=r"web page|no archive"):
        fetch(item, tmp_path, FakeDrive(response))
    assert read_tree(tmp_path) == {}


def test_download_without_a_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sent nothing"):
        fetch(WEIGHTS, tmp_path, lambda item, path: None)
