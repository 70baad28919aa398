"""Download scripts: layout, exit status, messages, and resizing of YouTube-VOS."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import gdown
import numpy as np
import pytest
from PIL import Image

from datasets.download import archive_path
from scripts import download_bl30k, download_datasets, download_model, resize_youtube
from tests.example_downloads import NO_NETWORK, QUOTA, Files, inside, read_tree, zip_bytes
from util.masks import DAVIS_PALETTE

ROOT = Path(__file__).resolve().parents[1]


def test_files_and_folders_are_requested_from_google_drive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = []

    def file(id: str, output: str, resume: bool) -> str:
        requests.append(("file", id, resume))
        Path(output).write_bytes(b"PK")
        return output

    def folder(id: str, output: str) -> list[str]:
        requests.append(("folder", id, True))
        Path(output).mkdir()
        Path(output, "a.pth").write_bytes(b"PK")
        return [output]

    monkeypatch.setattr(gdown, "download", file)
    monkeypatch.setattr(gdown, "download_folder", folder)
    arguments = ["--saves", str(tmp_path), "--models", "stcn_s012", "rde"]
    assert download_model.main(arguments) == 0
    assert requests == [
        ("file", "1mRrE0uCI2ktdWlUgapJI_KmgeIiF2eOm", True),
        ("folder", "1i6GtLPUNZe0h72IfhU2s_WHA7ZuVoudG", True),
    ]
    assert list(read_tree(tmp_path)) == ["rde/a.pth", "stcn.pth"]


@pytest.fixture
def closed_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**arguments: object) -> None:
        raise NO_NETWORK

    monkeypatch.setattr(gdown, "download", fail)
    monkeypatch.setattr(gdown, "download_folder", fail)


@pytest.mark.usefixtures("closed_network")
def test_scripts_without_a_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_bl30k, "PART_GB", 0)
    assert download_model.main(["--saves", str(tmp_path), "--models", "stcn_s012", "rde"]) == 2
    assert download_datasets.main(["--root", str(tmp_path)]) == 2
    assert download_bl30k.main(["--root", str(tmp_path), "--yes"]) == 2
    messages = capsys.readouterr().err
    items = [*list(download_model.MODELS.values())[::3], *download_datasets.DATASETS.values()]
    for item in (*items, *download_bl30k.PARTS):
        assert f"{item.name} could not be downloaded (no connection" in messages
        assert item.link in messages
    assert "Traceback" not in messages


def test_one_failure_does_not_stop_the_others(
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


def test_published_layout_and_ids() -> None:
    destinations = {item.destination for item in download_datasets.DATASETS.values()}
    assert destinations == {
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
    reference = ROOT.parent / "shared" / "reference" / "SYSTEMS.md"
    if not reference.exists():
        pytest.skip("no published ids in ../shared")
    text = reference.read_text()
    items = (
        *download_model.MODELS.values(),
        *download_datasets.DATASETS.values(),
        *download_bl30k.PARTS,
    )
    assert len({item.file_id for item in items}) == len(items) == 19
    assert [item.name for item in items if f"`{item.file_id}`" not in text] == []


Usage = namedtuple("Usage", "total used free")


def test_bl30k_checks_the_free_disk_space(
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
def test_bl30k_asks_for_confirmation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setattr(download_bl30k, "PART_GB", 0)
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    assert download_bl30k.main(["--root", str(tmp_path)]) == code


def test_bl30k_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(download_bl30k, "PART_GB", 0)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert download_bl30k.main(["--root", str(tmp_path)]) == 2
    assert "--yes" in capsys.readouterr().err


def youtube_files() -> Files:
    """A landscape and a portrait video."""
    files: Files = {}
    for video, (height, width) in {"landscape": (72, 128), "portrait": (128, 72)}.items():
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


def test_youtube_train_is_resized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drive(id: str, output: str, resume: bool) -> None:
        Path(output).write_bytes(zip_bytes(inside(youtube_files(), "train")))

    monkeypatch.setattr(gdown, "download", drive)
    arguments = ["--root", str(tmp_path), "--only", "youtube_train", "--workers", "2"]
    assert download_datasets.main(arguments) == 0
    resized = tmp_path / "YouTube" / "train_480p"
    for video, size in (("landscape", (853, 480)), ("portrait", (480, 853))):
        with Image.open(resized / "JPEGImages" / video / "00000.jpg") as image:
            assert (image.size, image.mode) == (size, "RGB")
        with Image.open(resized / "Annotations" / video / "00000.png") as mask:
            assert (mask.size, mask.mode) == (size, "P")
            assert set(np.unique(np.array(mask))) == {0, 1, 7}  # no new labels
            assert bytes(mask.getpalette() or [])[:24] == DAVIS_PALETTE[:24]

    kept = resized / "Annotations" / "landscape" / "00000.png"
    kept.write_bytes(b"kept")
    (resized / "JPEGImages" / "landscape" / "00000.jpg").unlink()
    assert resize_youtube.resize_all(tmp_path / "YouTube" / "train", resized, workers=1) == 1
    assert kept.read_bytes() == b"kept"


def test_resizing_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), "--workers", "1"]
    assert resize_youtube.main(arguments) == 2
    assert "no folder JPEGImages" in capsys.readouterr().err
    for name, content in youtube_files().items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[:200] if "landscape" in name else content)
    assert resize_youtube.main(arguments) == 2
    assert "landscape/00000.jpg cannot be read, it is truncated" in capsys.readouterr().err
    assert resize_youtube.main([*arguments[:3], "0"]) == 2
    assert "--workers" in capsys.readouterr().err


def test_failed_resizing_does_not_hide_failed_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def drive(id: str, output: str, resume: bool) -> None:
        if id == download_datasets.DATASETS["davis2016"].file_id:
            raise QUOTA
        files = {name: content[:99] for name, content in youtube_files().items()}
        Path(output).write_bytes(zip_bytes(inside(files, "train")))

    monkeypatch.setattr(gdown, "download", drive)
    arguments = ["--root", str(tmp_path), "--workers", "1", "--only"]
    assert download_datasets.main([*arguments, "davis2016", "youtube_train"]) == 2
    error = capsys.readouterr().err
    assert "davis2016 could not be downloaded" in error
    assert "landscape/00000.jpg cannot be read" in error


@pytest.mark.parametrize(
    "main",
    [download_model.main, download_datasets.main, download_bl30k.main, resize_youtube.main],
)
def test_help(main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "Example:" in capsys.readouterr().out or main is download_bl30k.main


def test_scripts_run_from_any_folder(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "download_datasets.py"
    result = subprocess.run(
        [sys.executable, str(script), "--only", "nothing"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "youtube2018_all_frames" in result.stderr  # lists the choices
