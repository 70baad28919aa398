"""Published items, archives and a fake Google Drive for the download tests."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import gdown
import requests

from datasets.download import Item

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

Files = dict[str, bytes]  # contents by path
VIDEO: Files = {"JPEGImages/a/0.jpg": b"image", "Annotations/a/0.png": b"mask"}


def inside(files: Files, folder: str) -> Files:
    """The same files in a folder."""
    return {f"{folder}/{name}": content for name, content in files.items()}


def zip_bytes(files: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def break_deflate(content: bytes) -> bytes:
    """Damage the compressed data of the first file of a zip archive: zlib.error when it is read."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        info = archive.infolist()[0]
    assert info.compress_type == zipfile.ZIP_DEFLATED
    extra = int.from_bytes(content[info.header_offset + 28 : info.header_offset + 30], "little")
    start = info.header_offset + 30 + len(info.filename) + extra
    return content[:start] + b"\xff" + content[start + 1 :]


def set_flag(content: bytes, flag: int, compression: int | None = None) -> bytes:
    """Set a flag (1: encrypted) and the compression of all files of a zip archive."""
    damaged = bytearray(content)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := content.find(signature, at + 1)) >= 0:
            damaged[at + offset] |= flag
            if compression is not None:
                damaged[at + offset + 2] = compression
    return bytes(damaged)


def tar_bytes(files: Files, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class FakeDrive:
    """Downloader that writes fixed bytes or raises, and counts its calls."""

    def __init__(self, response: bytes | BaseException) -> None:
        self.response = response
        self.num_calls = 0

    def __call__(self, item: Item, path: Path) -> None:
        self.num_calls += 1
        if isinstance(self.response, BaseException):
            path.write_bytes(b"half of it")
            raise self.response
        path.write_bytes(self.response)


def read_tree(folder: Path) -> Files:
    """Contents of all files in a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
