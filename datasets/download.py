"""Downloads of published files from Google Drive; an item is complete or absent."""

from __future__ import annotations

import argparse
import errno
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets.archives import extract, find_contents, is_archive, merge_folders

# Errors of this machine, not of the network: downloading by hand does not help.
LOCAL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Item:
    """One published file.

    Args:
        name: name for users.
        file_id: id on Google Drive.
        destination: path relative to the root folder.
        kind: "file" is stored as it is. "folder" is a Drive folder of files. "archive" is
            extracted, and the folder in it that holds `contents` becomes the destination. "part"
            is an archive that is merged into a destination shared with other parts.
        contents: folders that the destination must contain.
    """

    name: str
    file_id: str
    destination: str
    kind: Literal["file", "folder", "archive", "part"]
    contents: tuple[str, ...] = ()

    @property
    def link(self) -> str:
        """Web page of the item on Google Drive."""
        if self.kind == "folder":
            return f"https://drive.google.com/drive/folders/{self.file_id}"
        return f"https://drive.google.com/file/d/{self.file_id}/view"


Downloader = Callable[[Item, Path], object]


def google_drive(item: Item, path: Path) -> None:
    """Download an item to `path` with gdown; resumes an interrupted file."""
    import gdown  # takes half a second, too long for --help

    if item.kind == "folder":
        gdown.download_folder(id=item.file_id, output=str(path))
    else:
        gdown.download(id=item.file_id, output=str(path), resume=True)


def fetch(item: Item, root: Path, downloader: Downloader = google_drive) -> bool:
    """Download and extract one item below `root`.

    The destination appears only when the item is complete; a part is merged video by video. An
    archive that the user saved at `archive_path` is used instead of a download. Archives are
    removed after extraction.

    Returns:
        False if the item was already there.

    Raises:
        ValueError: no network, exceeded quota, damaged or unsafe archive, or a file cannot be
            written; the message says what to do.
    """
    try:
        return _fetch(item, root, downloader)
    except OSError as error:
        raise ValueError(
            f"{item.name} could not be written to {root}: {error}; free space there or check its "
            "permissions, and run this again."
        ) from error


def _fetch(item: Item, root: Path, downloader: Downloader) -> bool:
    target = root / item.destination
    if is_present(item, root):
        print(f"{item.name}: {target} exists already, skipped.")
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
    """Fetch all items; failures do not stop the others.

    Returns:
        Error messages of the items that failed.
    """
    failures = []
    for item in items:
        try:
            fetch(item, root, downloader)
        except ValueError as error:
            failures.append(str(error))
    return failures


def is_present(item: Item, root: Path) -> bool:
    """Return True if the item is complete at its destination.

    Raises:
        ValueError: the destination contains something else.
    """
    target = root / item.destination
    if item.kind == "part":
        return _completion_marker(item, target).exists()
    if item.kind == "file":
        return target.is_file()
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    missing = [name for name in item.contents if not (target / name).exists()]
    if missing or not target.is_dir():
        raise ValueError(
            f"{target} exists but has no {' and no '.join(missing)}; complete it, or move it away "
            f"and run this again to download {item.name}."
        )
    return True


def archive_path(item: Item, root: Path) -> Path:
    """Path at which the download of an item is stored: its destination, or an archive."""
    target = root / item.destination
    if item.kind == "part":
        # Inside the destination, which may be a link to a larger disk.
        return target / f"{item.name}.tar"
    if item.kind == "archive":
        return target.parent / f"{item.name}.zip"
    return target


def run(work: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a download script; print errors as sentences.

    Returns:
        The exit status of `work`; 2 after an error, 130 after an interrupt.
    """
    try:
        return work(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. Run the same command again to resume.", file=sys.stderr)
        return 130


def _download(item: Item, path: Path, downloader: Downloader) -> None:
    from gdown.exceptions import DownloadError  # slow to import, see `google_drive`

    partial = path.with_name(f"{path.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    if partial.is_file():
        # gdown stores resumable data under its own name. It would treat this file as complete.
        partial.unlink()
    try:
        downloader(item, partial)
    except (DownloadError, OSError) as error:
        if isinstance(error, OSError) and error.errno in LOCAL_ERRORS:
            raise
        raise ValueError(_manual_download(item, path, _reason(error))) from error
    problem = _find_problem(item, partial)
    if problem:
        if partial.is_file():
            partial.unlink()
        raise ValueError(_manual_download(item, path, problem))
    partial.replace(path)


def _find_problem(item: Item, path: Path) -> str | None:
    """Check a finished download; Google answers some refused requests with a web page."""
    if not path.exists():
        return "Google Drive sent nothing"
    if item.kind == "folder":
        return None if any(path.iterdir()) else "Google Drive sent an empty folder"
    if item.kind == "file":
        with path.open("rb") as file:
            start = file.read(1)
        return "Google Drive sent a web page instead of the file" if start in (b"", b"<") else None
    return None if is_archive(path) else "Google Drive sent a file that is no archive"


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "too many users" in text.lower() or "quota" in text.lower():
        return "Google's download quota for this file is exceeded at the moment"
    if isinstance(error, OSError):
        return f"no connection to Google Drive: {text[:160]}"
    return text[:300]


def _manual_download(item: Item, path: Path, reason: str) -> str:
    """Error message that explains how to download an item by hand."""
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
        source = find_contents(work, item.contents)
        if source is None:
            raise ValueError(
                f"{archive} has no folder with {' and '.join(item.contents)}, so it is not "
                f"{item.name}; delete it and run this again."
            )
        if item.kind == "archive":
            source.replace(target)
        else:
            for name in item.contents:
                merge_folders(source / name, target / name)
            _completion_marker(item, target).touch()
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _completion_marker(item: Item, target: Path) -> Path:
    """File that marks a part as extracted."""
    return target / f".{item.name}.done"
