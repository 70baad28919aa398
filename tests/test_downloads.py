"""Downloads with a fake Google Drive: whole or absent, safe, and with a sentence when refused."""

from __future__ import annotations

import errno
import io
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import gdown
import numpy as np
import pytest
import requests
from PIL import Image

from datasets import download
from datasets.download import Item, archive_path, extract, fetch
from scripts import download_bl30k, download_datasets, download_model, resize_youtube
from util.masks import DAVIS_PALETTE

ROOT = Path(__file__).resolve().parents[1]
DAVIS = Item("davis2016", "id16", "DAVIS/2016", "archive", ("JPEGImages", "Annotations"))
WEIGHTS = Item("stcn", "idw", "stcn.pth", "file")
FOLDER = Item("rde", "idf", "rde", "folder")
PARTS = [
    Item(f"BL30K_{letter}", f"id{letter}", "BL30K", "part", ("JPEGImages", "Annotations"))
    for letter in "ab"
]
QUOTA = gdown.FileURLRetrievalError(
    "Failed to retrieve file url:\n\n\tToo many users have viewed or\n\tdownloaded this file."
)
NO_NETWORK = requests.exceptions.ConnectionError("Failed to resolve 'drive.google.com'")

Files = dict[str, bytes]
VIDEO: Files = {"JPEGImages/a/0.jpg": b"image", "Annotations/a/0.png": b"mask"}


def wrapped(files: Files, folder: str) -> Files:
    return {f"{folder}/{name}": content for name, content in files.items()}


def zip_bytes(files: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_bytes(files: Files, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class FakeDrive:
    """Answers with fixed bytes, or raises; counts how often it was asked."""

    def __init__(self, answer: bytes | BaseException) -> None:
        self.answer = answer
        self.num_calls = 0

    def __call__(self, item: Item, path: Path) -> None:
        self.num_calls += 1
        if isinstance(self.answer, BaseException):
            path.write_bytes(b"half of it")
            raise self.answer
        path.write_bytes(self.answer)


def tree(folder: Path) -> Files:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("wrapping", ["", "DAVIS", "a/DAVIS"])
@pytest.mark.parametrize("pack", [zip_bytes, tar_bytes, lambda files: tar_bytes(files, "w:gz")])
def test_an_archive_becomes_the_published_folder(
    tmp_path: Path, wrapping: str, pack: Callable[[Files], bytes]
) -> None:
    files = wrapped(VIDEO, wrapping) if wrapping else VIDEO
    assert fetch(DAVIS, tmp_path, FakeDrive(pack(files)))
    assert tree(tmp_path) == wrapped(VIDEO, "DAVIS/2016")  # and neither archive nor leftovers
    assert [path.name for path in (tmp_path / "DAVIS").iterdir()] == ["2016"]


def test_what_is_there_is_skipped_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive = FakeDrive(zip_bytes(VIDEO))
    fetch(DAVIS, tmp_path, drive)
    capsys.readouterr()
    assert not fetch(DAVIS, tmp_path, drive)
    assert drive.num_calls == 1
    assert "is there already, skipped" in capsys.readouterr().out


def test_an_empty_folder_is_filled_and_another_one_refused(tmp_path: Path) -> None:
    target = tmp_path / "DAVIS" / "2016"
    target.mkdir(parents=True)
    assert fetch(DAVIS, tmp_path, FakeDrive(zip_bytes(VIDEO)))
    shutil.rmtree(target / "Annotations")
    with pytest.raises(ValueError, match="has no Annotations; move it away"):
        fetch(DAVIS, tmp_path, FakeDrive(zip_bytes(VIDEO)))


def test_weights_and_folders_are_kept_as_they_are(tmp_path: Path) -> None:
    assert fetch(WEIGHTS, tmp_path, FakeDrive(b"PK weights"))
    assert not fetch(WEIGHTS, tmp_path, FakeDrive(b"others"))

    def drive(item: Item, path: Path) -> None:
        path.mkdir(exist_ok=True)
        (path / "model_s012_final.pth").write_bytes(b"weights")

    assert fetch(FOLDER, tmp_path, drive)
    assert not fetch(FOLDER, tmp_path, drive)
    assert tree(tmp_path) == {"stcn.pth": b"PK weights", "rde/model_s012_final.pth": b"weights"}


def test_parts_are_merged_and_each_is_fetched_once(tmp_path: Path) -> None:
    first = wrapped(VIDEO, "BL30K")
    second = {"BL30K/JPEGImages/b/0.jpg": b"i", "BL30K/Annotations/b/0.png": b"m"}
    second["BL30K/Annotations/a/1.png"] = b"more of a"
    for item, files in zip(PARTS, (first, second), strict=True):
        drive = FakeDrive(tar_bytes(files))
        assert fetch(item, tmp_path, drive)
        assert not fetch(item, tmp_path, drive)
    found = {name: content for name, content in tree(tmp_path).items() if ".done" not in name}
    assert found == first | second


@pytest.mark.parametrize("error", [KeyboardInterrupt(), NO_NETWORK])
def test_a_broken_off_download_is_not_taken_for_a_whole_one(
    tmp_path: Path, error: BaseException
) -> None:
    for item, content in ((DAVIS, zip_bytes(VIDEO)), (WEIGHTS, b"PK weights")):
        with pytest.raises((KeyboardInterrupt, ValueError)):
            fetch(item, tmp_path, FakeDrive(error))
        assert not (tmp_path / item.destination).exists()
        assert not archive_path(item, tmp_path).exists()
        assert fetch(item, tmp_path, FakeDrive(content))
    assert tree(tmp_path) == {**wrapped(VIDEO, "DAVIS/2016"), "stcn.pth": b"PK weights"}


def test_a_broken_off_extraction_keeps_the_archive_and_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = FakeDrive(zip_bytes(VIDEO))

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "copyfileobj", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(DAVIS, tmp_path, drive)
    assert list(tree(tmp_path)) == ["DAVIS/davis2016.zip"]
    assert fetch(DAVIS, tmp_path, drive)
    assert drive.num_calls == 1
    assert tree(tmp_path) == wrapped(VIDEO, "DAVIS/2016")


def test_an_archive_saved_by_hand_is_used(tmp_path: Path) -> None:
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
def test_a_refused_download_says_what_to_fetch_by_hand_and_where_to_put_it(
    tmp_path: Path, item: Item, error: Exception, reason: str
) -> None:
    with pytest.raises(ValueError, match=item.name) as caught:
        fetch(item, tmp_path, FakeDrive(error))
    sentence = str(caught.value)
    assert reason in sentence
    assert item.link in sentence
    assert str(archive_path(item, tmp_path)) in sentence
    assert "\n" not in sentence


def test_a_full_disk_is_not_blamed_on_the_network(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"could not be written to .*No space left"):
        fetch(DAVIS, tmp_path, FakeDrive(OSError(errno.ENOSPC, "No space left on device")))


@pytest.mark.parametrize("answer", [b"<!DOCTYPE html><html>quota</html>", b""])
@pytest.mark.parametrize("item", [DAVIS, WEIGHTS])
def test_a_web_page_is_not_taken_for_the_file(tmp_path: Path, item: Item, answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"web page|no archive"):
        fetch(item, tmp_path, FakeDrive(answer))
    assert tree(tmp_path) == {}


def test_a_download_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sent nothing"):
        fetch(WEIGHTS, tmp_path, lambda item, path: None)


def damaged_zip() -> bytes:
    whole = zip_bytes({"JPEGImages/a/0.jpg": b"image" * 50, "Annotations/a/0.png": b"mask"})
    return whole.replace(b"imageimage", b"imageXmage", 1)


@pytest.mark.parametrize(
    "content",
    [b"no archive", damaged_zip(), tar_bytes({"JPEGImages/0.jpg": b"i" * 9999})[:6000]],
)
def test_a_damaged_archive_is_kept_and_named(tmp_path: Path, content: bytes) -> None:
    path = archive_path(DAVIS, tmp_path)
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"davis2016\.zip is damaged .* delete it") as caught:
        fetch(DAVIS, tmp_path, FakeDrive(b""))
    assert "\n" not in str(caught.value)
    assert list(tree(tmp_path)) == ["DAVIS/davis2016.zip"]
    assert not (tmp_path / "DAVIS" / "2016").exists()


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder that holds JPEGImages and Annotations"):
        fetch(DAVIS, tmp_path, FakeDrive(zip_bytes({"readme.txt": b"hello"})))
    assert not (tmp_path / "DAVIS" / "2016").exists()


@pytest.mark.parametrize("pack", [zip_bytes, tar_bytes])
@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "C:/evil"]
)
def test_members_that_would_leave_the_folder_are_refused(
    tmp_path: Path, name: str, pack: Callable[[Files], bytes]
) -> None:
    with pytest.raises(ValueError, match="unsafe"):
        fetch(DAVIS, tmp_path, FakeDrive(pack({**VIDEO, name: b"evil"})))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [
        archive_path(DAVIS, tmp_path)
    ]
    assert not (tmp_path.parent / "evil").exists()


def test_links_are_refused(tmp_path: Path) -> None:
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
    archives = list(tmp_path.iterdir())
    assert len(archives) == 4
    for path in archives:
        with pytest.raises(ValueError, match="link or a device"):
            extract(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_google_drive_is_asked_for_the_file_or_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def file(id: str, output: str, resume: bool) -> str:
        asked.append(("file", id, resume))
        Path(output).write_bytes(b"PK")
        return output

    def folder(id: str, output: str) -> list[str]:
        asked.append(("folder", id, True))
        Path(output).mkdir()
        Path(output, "a.pth").write_bytes(b"PK")
        return [output]

    monkeypatch.setattr(gdown, "download", file)
    monkeypatch.setattr(gdown, "download_folder", folder)
    arguments = ["--saves", str(tmp_path), "--models", "stcn_s012", "rde"]
    assert download_model.main(arguments) == 0
    assert asked == [
        ("file", "1mRrE0uCI2ktdWlUgapJI_KmgeIiF2eOm", True),
        ("folder", "1i6GtLPUNZe0h72IfhU2s_WHA7ZuVoudG", True),
    ]
    assert list(tree(tmp_path)) == ["rde/a.pth", "stcn.pth"]


@pytest.fixture
def closed_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**arguments: object) -> None:
        raise NO_NETWORK

    monkeypatch.setattr(gdown, "download", fail)
    monkeypatch.setattr(gdown, "download_folder", fail)


@pytest.mark.usefixtures("closed_network")
def test_without_a_network_each_script_ends_with_sentences_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_bl30k, "PART_GB", 0)
    assert download_model.main(["--saves", str(tmp_path), "--models", "stcn_s012", "rde"]) == 2
    assert download_datasets.main(["--root", str(tmp_path)]) == 2
    assert download_bl30k.main(["--root", str(tmp_path), "--yes"]) == 2
    sentences = capsys.readouterr().err
    items = [*list(download_model.MODELS.values())[::3], *download_datasets.DATASETS.values()]
    for item in (*items, *download_bl30k.PARTS):
        assert f"{item.name} could not be downloaded (no connection" in sentences
        assert item.link in sentences
    assert "Traceback" not in sentences


def test_one_refusal_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets = download_datasets.DATASETS

    def drive(id: str, output: str, resume: bool) -> None:
        if id == datasets["davis2016"].file_id:
            raise QUOTA
        folders = datasets["youtube_all_frames"].contents
        Path(output).write_bytes(zip_bytes({f"top/{name}/a/0.jpg": b"i" for name in folders}))

    monkeypatch.setattr(gdown, "download", drive)
    arguments = ["--root", str(tmp_path), "--only", "davis2016", "youtube_all_frames"]
    assert download_datasets.main(arguments) == 2
    assert "quota" in capsys.readouterr().err
    assert (tmp_path / "YouTube/all_frames/valid_all_frames/JPEGImages/a/0.jpg").exists()


def test_the_published_layout_and_ids() -> None:
    places = {item.destination for item in download_datasets.DATASETS.values()}
    assert places == {
        "static",
        "DAVIS/2016",
        "DAVIS/2017/trainval",
        "DAVIS/2017/test-dev",
        "YouTube/train",
        "YouTube/valid",
        "YouTube/all_frames/valid_all_frames",
        "YouTube2018/valid",
        "YouTube2018/all_frames/valid_all_frames",
    }
    facts = ROOT.parent / "shared" / "reference" / "SYSTEMS.md"
    if not facts.exists():
        pytest.skip("the published ids are checked where ../shared is there")
    text = facts.read_text()
    items = (
        *download_model.MODELS.values(),
        *download_datasets.DATASETS.values(),
        *download_bl30k.PARTS,
    )
    assert len({item.file_id for item in items}) == len(items) == 19
    assert [item.name for item in items if f"`{item.file_id}`" not in text] == []


Usage = namedtuple("Usage", "total used free")


def test_bl30k_says_how_much_room_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 300 * 10**9))
    assert download_bl30k.main(["--root", str(tmp_path / "new"), "--yes"]) == 2
    assert "needs 805 GB" in capsys.readouterr().err
    target = tmp_path / "BL30K"
    target.mkdir()
    for item in download_bl30k.PARTS[:4]:
        (target / f".{item.name}.done").touch()
    archive_path(download_bl30k.PARTS[4], tmp_path).touch()
    assert download_bl30k.needed_gb(download_bl30k.PARTS[4:], tmp_path) == 230
    for item in download_bl30k.PARTS[4:]:
        (target / f".{item.name}.done").touch()
    assert download_bl30k.main(["--root", str(tmp_path)]) == 0


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("", 1), ("y", 2)])
@pytest.mark.usefixtures("closed_network")
def test_bl30k_asks_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setattr(download_bl30k, "PART_GB", 0)
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    assert download_bl30k.main(["--root", str(tmp_path)]) == code


def test_bl30k_without_anyone_to_ask_names_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(download_bl30k, "PART_GB", 0)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert download_bl30k.main(["--root", str(tmp_path)]) == 2
    assert "--yes" in capsys.readouterr().err


def youtube_files() -> Files:
    """Two videos, one of them upright."""
    files: Files = {}
    for video, (height, width) in {"wide": (72, 128), "upright": (128, 72)}.items():
        labels = np.zeros((height, width), np.uint8)
        labels[: height // 2] = 1
        labels[:, : width // 4] = 7
        mask = Image.fromarray(labels)
        mask.putpalette(DAVIS_PALETTE)
        for image, path in (
            (Image.fromarray(np.stack([labels * 30] * 3, axis=2)), f"JPEGImages/{video}/00000.jpg"),
            (mask, f"Annotations/{video}/00000.png"),
        ):
            buffer = io.BytesIO()
            image.save(buffer, format="JPEG" if path.endswith("jpg") else "PNG")
            files[path] = buffer.getvalue()
    return files


def test_youtube_train_is_resized_in_processes_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drive(id: str, output: str, resume: bool) -> None:
        Path(output).write_bytes(zip_bytes(wrapped(youtube_files(), "train")))

    monkeypatch.setattr(gdown, "download", drive)
    arguments = ["--root", str(tmp_path), "--only", "youtube_train", "--workers", "2"]
    assert download_datasets.main(arguments) == 0
    small = tmp_path / "YouTube" / "train_480p"
    for video, size in (("wide", (853, 480)), ("upright", (480, 853))):
        with Image.open(small / "JPEGImages" / video / "00000.jpg") as image:
            assert (image.size, image.mode) == (size, "RGB")
        with Image.open(small / "Annotations" / video / "00000.png") as mask:
            assert (mask.size, mask.mode) == (size, "P")
            assert set(np.unique(np.array(mask))) == {0, 1, 7}  # nearest: no new labels
            assert bytes(mask.getpalette() or [])[:24] == DAVIS_PALETTE[:24]

    kept = small / "Annotations" / "wide" / "00000.png"
    kept.write_bytes(b"kept")
    (small / "JPEGImages" / "wide" / "00000.jpg").unlink()
    assert resize_youtube.resize_all(tmp_path / "YouTube" / "train", small, workers=1) == 1
    assert kept.read_bytes() == b"kept"


def test_resizing_names_the_damaged_file_and_the_wrong_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), "--workers", "1"]
    assert resize_youtube.main(arguments) == 2
    assert "no folder JPEGImages" in capsys.readouterr().err
    for name, content in youtube_files().items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[:200] if "wide" in name else content)
    assert resize_youtube.main(arguments) == 2
    assert "wide/00000.jpg cannot be read as an image" in capsys.readouterr().err
    assert resize_youtube.main([*arguments[:3], "0"]) == 2
    assert "--workers" in capsys.readouterr().err


@pytest.mark.parametrize(
    "main",
    [download_model.main, download_datasets.main, download_bl30k.main, resize_youtube.main],
)
def test_help(main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "Example:" in capsys.readouterr().out or main is download_bl30k.main


def test_a_script_runs_from_any_folder(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "download_datasets.py"
    result = subprocess.run(
        [sys.executable, str(script), "--only", "nothing"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "youtube2018_all_frames" in result.stderr  # the names to choose from
