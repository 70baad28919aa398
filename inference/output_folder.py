"""The output folder of an eval script: complete videos and the settings of the run.

The masks of a video are written to a hidden folder, which gets its final name when all are there.
Therefore an interrupted run can be resumed. Each process lists its complete videos in a file of its
own, and the main process merges these files into run.json.
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
_LIST_FILE = ".run.{}.json"  # complete videos of one process, by its rank

# Settings that may differ between runs into one folder. Digests identify weights and videos, and
# `is_complete` checks the optional files.
_IGNORED = {
    "model", "output", "device", "benchmark", "encode_batch", "overlay", "save_probabilities",
    "davis_path", "yv_path", "data_path", "video", "mask", "plugin",
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
    _completed: dict[str, str] = field(default_factory=dict, init=False)  # digests, by video

    @contextlib.contextmanager
    def lock(self, videos: Sequence[Video]) -> Iterator[None]:
        """Make and lock the folder, delete leftovers of an interrupted run, and record this run.

        Raises:
            ValueError: the folder cannot be written, is locked, or holds a run with other settings.
        """
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
        required = range(len(video)) if self.write_all else video.required_frames
        names = [video.frame_names[index] for index in required]
        return (
            self._digests.get(video.name) == video.digest
            and all((folder / f"{name}.png").is_file() for name in names)
            and (not self.overlay or any(path.is_file() for path in self._overlays(video)))
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
        partial = self._partial(video)
        try:
            partial.mkdir()
            yield partial
            self._publish(partial, video)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def merge_lists(self) -> None:
        """Merge the lists of all processes, also those of a killed run, into run.json."""
        lists = sorted(self.root.glob(_LIST_FILE.format("*")))
        for path in lists:
            self._digests |= json.loads(path.read_text())
        write_json(self.root / RUN_FILE, {"runs": self._runs, "videos": self._digests})
        for path in lists:
            path.unlink()

    def _prepare(self, videos: Sequence[Video]) -> None:
        for video in videos:
            for leftover in (self._partial(video), self._outdated(video)):
                shutil.rmtree(leftover, ignore_errors=True)
        path = self.root / RUN_FILE
        existing = [v.name for v in videos if (self.root / v.name).exists()]
        before = read_run_file(path)
        has_list = any(self.root.glob(_LIST_FILE.format("*")))
        runs = before.runs if existing or before.digests or has_list else []
        if runs:
            _refuse_other_settings(path, runs[0], self.record)
        elif existing:
            raise ValueError(
                f"{self.root} contains a folder {existing[0]}, but no {RUN_FILE} of the run that "
                "made it: choose another --output, or remove that folder."
            )
        self._refuse_other_video(runs, before.digests, videos)
        self._runs = [*runs, self.record]  # one record for each time the run was resumed
        self._digests = before.digests
        self.merge_lists()

    def _refuse_other_video(
        self, runs: Sequence[Record], digests: dict[str, str], videos: Sequence[Video]
    ) -> None:
        """Raise ValueError if masks of another --video with the same name would be replaced."""
        source = self.record["settings"].get("video")
        sources = {run["settings"].get("video") for run in runs} - {"", None}
        for video in videos:
            is_other = digests.get(video.name, video.digest) != video.digest
            if source and is_other and sources and source not in sources:
                raise ValueError(
                    f"{self.root} contains masks of {sorted(sources)[0]}, and {source} has the "
                    f"same name {video.name}: choose another --output."
                )

    def _overlays(self, video: Video) -> list[Path]:
        """Possible paths of the overlay video."""
        return [self.root / f"{video.name}{suffix}" for suffix in CODECS]

    def _publish(self, partial: Path, video: Video) -> None:
        for path in self._overlays(video):  # they show the earlier masks
            path.unlink(missing_ok=True)
        for path in partial.glob(f"{BESIDE}.*"):
            path.replace(self.root / f"{video.name}{path.suffix}")
        outdated = self._outdated(video)
        if (self.root / video.name).exists():
            (self.root / video.name).rename(outdated)
        partial.rename(self.root / video.name)
        shutil.rmtree(outdated, ignore_errors=True)
        self._completed[video.name] = video.digest
        write_json(self.root / _LIST_FILE.format(self.rank), self._completed)

    def _partial(self, video: Video) -> Path:
        """Folder of the masks until they are complete."""
        return self.root / f".{video.name}.partial"

    def _outdated(self, video: Video) -> Path:
        """Folder of earlier masks while the new ones replace them."""
        return self.root / f".{video.name}.outdated"


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
    changes = list_changes(before, now, _IGNORED)
    if changes:
        raise ValueError(
            f"{path.parent} contains masks made with other settings: {'; '.join(changes)}. Choose "
            "another --output, or remove that folder."
        )
