"""The output folder of an eval script: complete videos and the settings of the run.

The masks of a video are written to a hidden folder, which gets its final name when all are there.
Therefore an interrupted run can be resumed. Each process lists its videos in a file of its own, and
the main process merges these files into run.json. Other files and folders are never replaced.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from datasets.video import Video
from inference.probability_files import PROBABILITIES
from inference.writer import BESIDE
from util.files import lock_folder, write_json
from util.hyper_para import EvalSettings
from util.overlay import CODECS
from util.provenance import Record, list_changes

RUN_FILE = "run.json"
# Videos of one process, by its rank. Temporary names of run.json must not have this pattern.
_LIST_FILE = ".rank{}.json"
_UNFINISHED = ""  # digest of a video whose files are about to get their final names

# Settings that may differ between runs into one folder. Digests identify weights and videos, and
# `is_complete` checks the optional files.
_IGNORED = {
    "model", "output", "device", "benchmark", "encode_batch", "overlay", "save_probabilities",
    "davis_path", "yv_path", "data_path", "video", "mask", "plugin", "no_top",
}  # fmt: skip


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
    _listed: dict[str, str] = field(default_factory=dict, init=False)  # digests, by video

    @contextlib.contextmanager
    def lock(self, videos: Sequence[Video]) -> Iterator[None]:
        """Make and lock the folder, delete leftovers of an interrupted run, and record this run.

        Raises:
            ValueError: the folder cannot be written, is locked, holds a run with other settings, or
                has other files where the run would write.
        """
        digests = {video.name: video.digest for video in videos}
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock_folder(self.root))
                self._prepare(digests)
            except OSError as error:
                raise ValueError(
                    f"The output folder {self.root} cannot be written "
                    f"({error.strerror or error}): choose another with --output."
                ) from error
            yield

    def is_complete(self, video: Video) -> bool:
        """Whether all files of a video exist and its frames and annotations are unchanged."""
        folder = self.root / video.name
        required = range(len(video)) if self.write_all else video.required_frames
        names = [video.frame_names[index] for index in required]
        return (
            self._digests.get(video.name) == video.digest
            and all((folder / f"{name}.png").is_file() for name in names)
            and (not self.overlay or any(path.is_file() for path in self._overlays(video.name)))
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
        lists = sorted(self.root.glob(_LIST_FILE.format("*")))
        self._digests |= self._read_lists()
        write_json(self.root / RUN_FILE, {"runs": self._runs, "videos": self._digests})
        for path in lists:
            path.unlink()

    def _read_lists(self) -> dict[str, str]:
        digests: dict[str, str] = {}
        for path in sorted(self.root.glob(_LIST_FILE.format("*"))):
            digests |= json.loads(path.read_text())
        return digests

    def _prepare(self, digests: dict[str, str]) -> None:
        path = self.root / RUN_FILE
        before = read_run_file(path)
        self._digests = before.digests | self._read_lists()
        runs = before.runs if self._digests else []  # nothing was written yet
        if runs:
            _refuse_other_settings(path, runs[0], self.record)
        for name, digest in digests.items():
            self._refuse_foreign_files(name)
            self._refuse_other_video(runs, name, digest)
        for name in digests:
            for leftover in (self._partial(name), self._outdated(name)):
                shutil.rmtree(leftover, ignore_errors=True)
        self._runs = [*runs, self.record]  # one record for each time the run was resumed
        self.merge_lists()

    def _refuse_foreign_files(self, name: str) -> None:
        """Raise ValueError if files that no run has listed would be replaced."""
        if name in self._digests:
            return
        for path in (self.root / name, self.root / f"{name}.csv", *self._overlays(name)):
            if path.exists() or path.is_symlink():
                raise ValueError(
                    f"{path} was not written by a run into {self.root} (see {RUN_FILE} there), but "
                    f"this run would replace it: choose another --output, or move {path.name}."
                )

    def _refuse_other_video(self, runs: Sequence[Record], name: str, digest: str) -> None:
        """Raise ValueError if masks of another video with the same name would be replaced."""
        known = self._digests.get(name, _UNFINISHED)
        sources = [_source(run) for run in runs]
        source = _source(self.record)
        if known not in (_UNFINISHED, digest) and source not in sources:
            raise ValueError(
                f"{self.root} contains masks of another video {name}, of {sources[0]}, not of "
                f"{source}: choose another --output."
            )

    def _overlays(self, name: str) -> list[Path]:
        """Possible paths of the overlay video."""
        return [self.root / f"{name}{suffix}" for suffix in CODECS]

    def _publish(self, partial: Path, video: Video) -> None:
        self._list(video.name, _UNFINISHED)  # from here on, files of this name belong to the run
        for path in self._overlays(video.name):  # they show the earlier masks
            path.unlink(missing_ok=True)
        for path in partial.glob(f"{BESIDE}.*"):
            path.replace(self.root / f"{video.name}{path.suffix}")
        outdated = self._outdated(video.name)
        if (self.root / video.name).exists():
            (self.root / video.name).rename(outdated)
        partial.rename(self.root / video.name)
        shutil.rmtree(outdated, ignore_errors=True)
        self._list(video.name, video.digest)

    def _list(self, name: str, digest: str) -> None:
        """Write the digest of a video to the list of this process."""
        self._listed[name] = digest
        write_json(self.root / _LIST_FILE.format(self.rank), self._listed)

    def _partial(self, name: str) -> Path:
        """Folder of the masks until they are complete."""
        return self.root / f".{name}.partial"

    def _outdated(self, name: str) -> Path:
        """Folder of earlier masks while the new ones replace them."""
        return self.root / f".{name}.outdated"


def _source(record: Record) -> str:
    """Return the path of the video or of the data set of a run."""
    values, defaults = record["settings"], asdict(EvalSettings())
    names = ("davis_path", "yv_path", "data_path")
    roots = [values[name] for name in names if values.get(name, "") not in ("", defaults[name])]
    return values.get("video") or ", ".join(roots) or "the default folder"


class RunFile(NamedTuple):
    """Content of run.json."""

    runs: list[Record]  # the oldest first
    digests: dict[str, str]  # of the complete videos


def read_run_file(path: Path) -> RunFile:
    """Read run.json; the result is empty if there is no file.

    Raises:
        ValueError: the file has other content.
    """
    if not path.exists():
        return RunFile([], {})
    try:
        content = json.loads(path.read_text())
        runs, digests = content["runs"], dict(content.get("videos", {}))
        if not runs or not all(_is_record(run) for run in runs):
            raise KeyError("settings")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a record of a run ({error}): remove it, or choose another --output."
        ) from error
    return RunFile(runs, digests)


def _is_record(run: object) -> bool:
    return (
        isinstance(run, dict) and isinstance(run.get("settings"), dict) and "weights_sha256" in run
    )


def _refuse_other_settings(path: Path, first: Record, record: Record) -> None:
    """Raise ValueError if the folder's first run had settings that give other masks."""
    defaults = asdict(EvalSettings())
    # Options that are newer than the first run had their defaults then. An earlier version recorded
    # "" instead of None.
    before = {**defaults, **first["settings"]}
    unset = {name for name, value in defaults.items() if value is None and before[name] == ""}
    before |= dict.fromkeys(unset)
    before["weights_sha256"] = first["weights_sha256"]
    now = {**record["settings"], "weights_sha256": record["weights_sha256"]}
    if "plugins_sha256" in first:  # an earlier version did not record it
        before["plugins_sha256"] = first["plugins_sha256"]
        now["plugins_sha256"] = record["plugins_sha256"]
    changes = list_changes(before, now, _IGNORED)
    if changes:
        raise ValueError(
            f"{path.parent} contains masks made with other settings: {'; '.join(changes)}. Choose "
            "another --output, or remove that folder."
        )
