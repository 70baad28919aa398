"""The output folder of an eval script: complete videos and the settings of the run.

The masks of a video are written to a hidden folder, which gets its final name when all are there.
Therefore an interrupted run can be resumed. Each process lists its videos in a file of its own, and
the main process merges these files into run.json. Files that are not listed there are not replaced.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from datasets.video import Video
from inference.probability_files import PROBABILITIES
from inference.run_file import (
    RUN_FILE,
    Entry,
    parse_entries,
    read_run_file,
    refuse_other_settings,
    write_entries,
)
from inference.writer import BESIDE
from util.files import lock_folder
from util.overlay import CODECS
from util.provenance import Record

# Videos of one process, by its rank. Temporary names of run.json must not have this pattern.
_LIST_FILE = ".rank{}.json"
_UNFINISHED = ""  # digest of a video whose files are being replaced


@dataclass
class OutputFolder:
    """Masks in <root>/<video>/<frame>.png, and the records of the runs in <root>/run.json.

    Args:
        root: the folder.
        record: settings and versions of this run.
        write_all: a video needs masks of all frames, not only of the required ones.
        overlay: a video needs <root>/<video>.mp4.
        probabilities: a video needs <root>/<video>/probabilities/<frame>.npz.
        statistics: a video needs <root>/<video>.csv.
        rank: rank of this process.
    """

    root: Path
    record: Record
    write_all: bool = False
    overlay: bool = False
    probabilities: bool = False
    statistics: bool = False
    rank: int = 0
    _listed: dict[str, Entry] = field(default_factory=dict, init=False)  # of this process

    @contextlib.contextmanager
    def lock(self, videos: Sequence[Video]) -> Iterator[None]:
        """Make and lock the folder, delete leftovers of an interrupted run, and record this run.

        Raises:
            ValueError: the folder cannot be written, is locked, holds a run with other settings, or
                has other files where the run would write.
        """
        for video in videos:
            _ = video.digest  # its errors are not errors of the output folder
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock_folder(self.root))
                self._prepare(videos)
            except OSError as error:
                raise ValueError(
                    f"The output folder {self.root} cannot be written "
                    f"({error.strerror or error}): choose another with --output."
                ) from error
            yield

    def is_complete(self, video: Video) -> bool:
        """Whether all files of a video exist and its frames and annotations are unchanged."""
        folder = self.root / video.name
        entry = self._entries.get(video.name, Entry(_UNFINISHED))
        required = range(len(video)) if self.write_all else video.required_frames
        names = [video.frame_names[index] for index in required]
        return (
            entry.digest == video.digest
            and all((folder / f"{name}.png").is_file() for name in names)
            and (
                not self.overlay
                or any(p.is_file() and entry.owns(p.name) for p in self._overlays(video.name))
            )
            and (not self.statistics or (self.root / f"{video.name}.csv").is_file())
            and (
                not self.probabilities
                or all((folder / PROBABILITIES / f"{n}.npz").is_file() for n in names)
            )
        )

    @contextlib.contextmanager
    def fill(self, video: Video) -> Iterator[Path]:
        """Yield a folder for the files of a video; rename it to the video if the block succeeds.

        Files with the stem BESIDE are moved beside the folder and named after the video.
        """
        partial = self._partial(video.name)
        try:
            partial.mkdir()
            yield partial
            self._publish(partial, video)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def merge_lists(self) -> None:
        """Merge the lists of all processes, also those of a killed run, into run.json."""
        self._entries |= self._read_lists()
        write_entries(self.root / RUN_FILE, self._entries, self._runs)
        for path in self._lists():
            path.unlink()

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        """Entries by video, from before this run."""
        return read_run_file(self.root / RUN_FILE).entries

    def _lists(self) -> list[Path]:
        return sorted(self.root.glob(_LIST_FILE.format("*")))

    def _read_lists(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for path in self._lists():
            try:
                entries |= parse_entries(json.loads(path.read_text()))
            except ValueError as error:
                raise ValueError(
                    f"{path} is not a list of a run ({error}): choose another --output."
                ) from error
        return entries

    def _prepare(self, videos: Sequence[Video]) -> None:
        path = self.root / RUN_FILE
        runs = read_run_file(path).runs
        if runs:
            self._entries |= self._read_lists()
            if self._entries:
                refuse_other_settings(path, runs[0], self.record)
            else:  # nothing was written yet
                runs = []
        for video in videos:
            self._refuse_foreign_files(video.name)
            self._refuse_other_video(video)
        for video in videos:
            for leftover in (self._partial(video.name), self._outdated(video.name)):
                _remove(leftover)
        if not runs:  # the settings of these lists are unknown
            for path in self._lists():
                path.unlink()
        self._runs = [*runs, self.record]  # one record for each time the run was resumed
        self.merge_lists()

    def _refuse_foreign_files(self, name: str) -> None:
        """Raise ValueError if this run would replace files that no run has written."""
        entry = self._entries.get(name, Entry(_UNFINISHED, files=()))
        paths = [self.root / name]
        paths += [self.root / f"{name}.csv"] if self.statistics else []
        paths += self._overlays(name) if self.overlay else []
        for path in paths:
            if (path.exists() or path.is_symlink()) and not entry.owns(path.name):
                raise ValueError(
                    f"This run would replace {path}, which no earlier run into {self.root} wrote: "
                    f"choose another --output, or move {path.name}."
                )

    def _refuse_other_video(self, video: Video) -> None:
        """Raise ValueError if masks of another video with the same name would be replaced."""
        entry = self._entries.get(video.name, Entry(_UNFINISHED))
        is_other = entry.source not in ("", video.source)
        if is_other and entry.digest not in (_UNFINISHED, video.digest):
            raise ValueError(
                f"{self.root / video.name} contains masks of {entry.source}, not of "
                f"{video.source}: choose another --output."
            )

    def _overlays(self, name: str) -> list[Path]:
        """Possible paths of the overlay video."""
        return [self.root / f"{name}{suffix}" for suffix in CODECS]

    def _publish(self, partial: Path, video: Video) -> None:
        before = self._entries.get(video.name, Entry(_UNFINISHED, files=()))
        beside = {
            path: self.root / f"{video.name}{path.suffix}" for path in partial.glob(f"{BESIDE}.*")
        }
        # From here on, these files belong to the run.
        files = {video.name, *(path.name for path in beside.values())}
        self._list(video, _UNFINISHED, files | {*(before.files or ())})
        for path in self._overlays(video.name):  # they show the earlier masks
            if before.owns(path.name):
                path.unlink(missing_ok=True)
        for path, target in beside.items():
            path.replace(target)
        outdated = self._outdated(video.name)
        if (self.root / video.name).exists():
            (self.root / video.name).rename(outdated)
        partial.rename(self.root / video.name)
        _remove(outdated)
        self._list(video, video.digest, files)

    def _list(self, video: Video, digest: str, files: set[str]) -> None:
        """Write the entry of a video to the list of this process."""
        self._listed[video.name] = Entry(digest, video.source, tuple(sorted(files)))
        write_entries(self.root / _LIST_FILE.format(self.rank), self._listed, None)

    def _partial(self, name: str) -> Path:
        """Folder of the masks until they are complete."""
        return self.root / f".{name}.partial"

    def _outdated(self, name: str) -> Path:
        """Folder of earlier masks while the new ones replace them."""
        return self.root / f".{name}.outdated"


def _remove(path: Path) -> None:
    """Remove a folder, or a link to one, if it exists."""
    if path.is_symlink():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)
