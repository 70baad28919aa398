"""Safe extraction of zip and tar archives."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

import progressbar

# Errors of damaged archives. RuntimeError: encrypted, or an unknown compression.
ARCHIVE_ERRORS = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RuntimeError,
)  # fmt: skip
MAX_WRAPPING = 3  # folder levels that are searched for the data set


def extract(archive: Path, folder: Path) -> None:
    """Extract the regular files of a zip or tar archive to `folder`.

    Raises:
        ValueError: the file is no archive, is damaged or encrypted, or a member is a link or has a
            path outside `folder`.
        OSError: a file cannot be written.
    """
    members = _zip_members if zipfile.is_zipfile(archive) else _tar_members
    widgets = [progressbar.Counter(), " files ", progressbar.Timer()]
    try:
        with progressbar.ProgressBar(max_value=progressbar.UnknownLength, widgets=widgets) as bar:
            for count, (name, stream) in enumerate(members(archive), start=1):
                path = folder / _checked_path(name, archive)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as output:
                    shutil.copyfileobj(stream, output, 1 << 20)
                bar.update(count)
    except (*ARCHIVE_ERRORS, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of this machine; those of damaged gzip and bzip2 data have no number
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{archive} is damaged or is no zip or tar archive ({reason}); delete it and run this "
            "again."
        ) from error


def is_archive(path: Path) -> bool:
    """Return True if the file is a zip or tar archive."""
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def find_contents(folder: Path, contents: Sequence[str]) -> Path | None:
    """Find the topmost folder that contains all folders of `contents`.

    Archives put the data set at different depths. None if there is no such folder.
    """
    level = [folder]
    for _ in range(MAX_WRAPPING):
        for candidate in level:
            if all((candidate / name).is_dir() for name in contents):
                return candidate
        level = [child for parent in level for child in sorted(parent.iterdir()) if child.is_dir()]
    return None


def merge_folders(source: Path, target: Path) -> None:
    """Move the files of `source` to `target`; files of the same name are replaced."""
    target.mkdir(parents=True, exist_ok=True)
    for child in list(source.iterdir()):
        destination = target / child.name
        if child.is_dir() and destination.is_dir():
            merge_folders(child, destination)
        else:
            child.replace(destination)


def _checked_path(name: str, archive: Path) -> PurePosixPath:
    """Relative path of a member; raises ValueError if it leaves the folder."""
    path = PureWindowsPath(name)  # understands both kinds of slashes, and drive letters
    if path.drive or path.root or ".." in path.parts:
        raise ValueError(
            f"{archive} is unsafe: its member {name} would be written outside the folder; delete "
            "the archive and download it from its publisher."
        )
    return PurePosixPath(name)


def _link_error(name: str, archive: Path) -> ValueError:
    return ValueError(
        f"{archive} is unsafe: its member {name} is a link or a device; delete the archive and "
        "download it from its publisher."
    )


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _link_error(info.filename, archive)
            if not info.is_dir():
                with file.open(info) as stream:
                    yield info.filename, stream


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive) as file:
        while (member := file.next()) is not None:
            if not (member.isfile() or member.isdir()):
                raise _link_error(member.name, archive)
            stream = file.extractfile(member)
            if stream is not None:
                yield member.name, stream
            # tarfile stores every member: 1 GB of memory for the 1.6 million files of a BL30K part.
            file.members = []  # type: ignore[attr-defined]
