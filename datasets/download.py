"""Published files, fetched from Google Drive: checked, extracted, and whole or absent."""

from __future__ import annotations

import argparse
import errno
import lzma
import os
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Literal

import gdown
import progressbar
from gdown.exceptions import DownloadError

MAX_WRAPPING = 3  # folders that an archive may wrap around the dataset's own folder
# Failures of this machine rather than of the network: another way to download does not help.
LOCAL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Item:
    """One published file.

    name: what users call it. file_id: Google Drive's id. destination: below the root folder.
    kind: "file", kept as it is; "folder", a Drive folder of files; "archive", extracted, whichever
    folder in it holds `contents` becoming the destination; "part", an archive that is merged into
    a destination shared with other parts.
    """

    name: str
    file_id: str
    destination: str
    kind: Literal["file", "folder", "archive", "part"]
    contents: tuple[str, ...] = ()

    @property
    def link(self) -> str:
        if self.kind == "folder":
            return f"https://drive.google.com/drive/folders/{self.file_id}"
        return f"https://drive.google.com/file/d/{self.file_id}/view"


Downloader = Callable[[Item, Path], object]


def google_drive(item: Item, path: Path) -> None:
    """Download an item to `path` with gdown; an interrupted file goes on where it stopped."""
    if item.kind == "folder":
        gdown.download_folder(id=item.file_id, output=str(path))
    else:
        gdown.download(id=item.file_id, output=str(path), resume=True)


def fetch(item: Item, root: Path, downloader: Downloader = google_drive) -> bool:
    """Bring one item to its place below `root`; False where it is there already.

    Nothing appears at the destination before it is whole (of a part: video by video). An archive
    that the user saved by hand at `archive_path` is used; it is removed after it was extracted.

    Raises ValueError with what to do: no network, quota used up, damaged or unsafe archive.
    """
    target = root / item.destination
    if is_present(item, root):
        print(f"{item.name}: {target} is there already, skipped.")
        return False
    path = archive_path(item, root)
    if path == target or not path.exists():
        print(f"{item.name}: downloading {item.link}")
        _download(item, path, downloader)
    if path != target:
        print(f"{item.name}: extracting {path}")
        _unpack(item, path, target)
        path.unlink()
    print(f"{item.name}: {target} is ready.")
    return True


def fetch_all(
    items: Sequence[Item], root: Path, downloader: Downloader = google_drive
) -> list[str]:
    """Fetch what can be fetched; the sentences say what could not."""
    failures = []
    for item in items:
        try:
            fetch(item, root, downloader)
        except ValueError as error:
            failures.append(str(error))
    return failures


def is_present(item: Item, root: Path) -> bool:
    """Whether an item is in its place, whole.

    Raises ValueError where something else is in its place.
    """
    target = root / item.destination
    if item.kind == "part":
        return _done_mark(item, target).exists()
    if item.kind == "file":
        return target.is_file()
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    missing = [name for name in item.contents if not (target / name).exists()]
    if missing or not target.is_dir():
        raise ValueError(
            f"{target} exists but has no {' and no '.join(missing)}; move it away, so that "
            f"{item.name} can take its place, or complete it."
        )
    return True


def archive_path(item: Item, root: Path) -> Path:
    """Where the download of an item is stored: its destination, or an archive beside it."""
    target = root / item.destination
    if item.kind == "part":
        # Inside, since the folder may be a link to the one disk that has room.
        return target / f"{item.name}.tar"
    if item.kind == "archive":
        return target.parent / f"{item.name}.zip"
    return target


def extract(archive: Path, folder: Path) -> None:
    """Write the regular files of a zip or tar below `folder`.

    Raises ValueError for what is no archive, is damaged, or has a member that is a link or would
    be written outside `folder`.
    """
    members = _zip_members if zipfile.is_zipfile(archive) else _tar_members
    widgets = [progressbar.Counter(), " files ", progressbar.Timer()]
    try:
        with progressbar.ProgressBar(max_value=progressbar.UnknownLength, widgets=widgets) as bar:
            for count, (name, stream) in enumerate(members(archive), start=1):
                path = folder / _inside(name, archive)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as output:
                    shutil.copyfileobj(stream, output, 1 << 20)
                bar.update(count)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{archive} is damaged or is no zip or tar archive ({reason}); delete it and run this "
            "again."
        ) from error


def run(work: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Exit code of a download script: a user's mistake or a failure becomes a sentence and 2."""
    try:
        return work(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from here.", file=sys.stderr)
        return 130


def _download(item: Item, path: Path, downloader: Downloader) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    if partial.is_file():
        # gdown keeps what it can resume under a name of its own, and takes a file here for whole.
        partial.unlink()
    try:
        downloader(item, partial)
    except (DownloadError, OSError) as error:
        if isinstance(error, OSError) and error.errno in LOCAL_ERRORS:
            reason = os.strerror(error.errno or 0)
            raise ValueError(f"{item.name} could not be written to {path}: {reason}.") from error
        raise ValueError(_by_hand(item, path, _reason(error))) from error
    fault = _fault(item, partial)
    if fault:
        if partial.is_file():
            partial.unlink()
        raise ValueError(_by_hand(item, path, fault))
    partial.replace(path)


def _fault(item: Item, path: Path) -> str | None:
    """What is wrong with a finished download: Google answers some refusals with a web page."""
    if not path.exists():
        return "Google Drive sent nothing"
    if item.kind == "folder":
        return None if any(path.iterdir()) else "Google Drive sent an empty folder"
    if item.kind == "file":
        with path.open("rb") as file:
            start = file.read(1)
        return "Google Drive sent a web page instead of the file" if start in (b"", b"<") else None
    if zipfile.is_zipfile(path) or tarfile.is_tarfile(path):
        return None
    return "what Google Drive sent is no archive"


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "too many users" in text.lower() or "quota" in text.lower():
        return "Google's download quota for this file is exceeded for now"
    if isinstance(error, OSError):
        return f"no connection to Google Drive: {text[:160]}"
    return text[:300]


def _by_hand(item: Item, path: Path, reason: str) -> str:
    save = f"save its files in the folder {path}" if item.kind == "folder" else f"save it as {path}"
    return (
        f"{item.name} could not be downloaded ({reason}). Open {item.link} in a browser, {save}, "
        "and run this again."
    )


def _unpack(item: Item, archive: Path, target: Path) -> None:
    work = archive.with_name(f".{item.name}.extracting")
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        extract(archive, work)
        found = _find(work, item.contents)
        if found is None:
            raise ValueError(
                f"{archive} has no folder that holds {' and '.join(item.contents)}, so it is not "
                f"{item.name}; delete it and run this again."
            )
        if item.kind == "archive":
            found.replace(target)
        else:
            for name in item.contents:
                _merge(found / name, target / name)
            _done_mark(item, target).touch()
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _done_mark(item: Item, target: Path) -> Path:
    return target / f".{item.name}.done"


def _find(folder: Path, contents: Sequence[str]) -> Path | None:
    """The shallowest folder that holds all `contents`; archives wrap them differently."""
    level = [folder]
    for _ in range(MAX_WRAPPING):
        for candidate in level:
            if all((candidate / name).is_dir() for name in contents):
                return candidate
        level = [child for parent in level for child in sorted(parent.iterdir()) if child.is_dir()]
    return None


def _merge(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for child in list(source.iterdir()):
        place = target / child.name
        if child.is_dir() and place.is_dir():
            _merge(child, place)
        else:
            child.replace(place)


def _inside(name: str, archive: Path) -> PurePosixPath:
    path = PureWindowsPath(name)  # knows both kinds of slashes, and drives
    if path.drive or path.root or ".." in path.parts:
        raise ValueError(
            f"{archive} is unsafe: its member {name} would be written outside the folder; delete "
            "the archive and fetch it from its publisher."
        )
    return PurePosixPath(name)


def _refuse_link(name: str, archive: Path) -> ValueError:
    return ValueError(
        f"{archive} is unsafe: its member {name} is a link or a device, and a dataset has files "
        "only; delete the archive and fetch it from its publisher."
    )


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _refuse_link(info.filename, archive)
            if not info.is_dir():
                with file.open(info) as stream:
                    yield info.filename, stream


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive) as file:
        while (member := file.next()) is not None:
            if not (member.isfile() or member.isdir()):
                raise _refuse_link(member.name, archive)
            stream = file.extractfile(member)
            if stream is not None:
                yield member.name, stream
            # tarfile remembers every member: a gigabyte for the 1.6 million files of a BL30K part.
            file.members = []  # type: ignore[attr-defined]
