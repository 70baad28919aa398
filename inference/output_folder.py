"""The folder that an eval script writes: which videos in it are complete, and of which run.

A video's masks are written into a hidden folder that gets its name when they are complete, so that
an interrupted run goes on where it stopped. Each process notes which of its videos are complete in
a file of its own; the main process joins these with the run's.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets.video import Video
from inference.probability_files import PROBABILITIES
from inference.writer import BESIDE
from util.files import claimed, write_json
from util.hyper_para import EvalSettings
from util.overlay import CODECS
from util.provenance import Record, list_changes

RUN_FILE = "run.json"

# What differs between two runs of the same masks: the weights' digest tells the model, the videos
# have digests, and what else a run writes is looked for.
_IGNORED = {
    "model", "output", "device", "benchmark", "encode_batch", "overlay", "save_probabilities",
    "davis_path", "yv_path", "data_path", "video", "mask",
}  # fmt: skip


@dataclass
class OutputFolder:
    """Masks in <root>/<video>/<frame>.png, and what tells how they were made in <root>/run.json.

    Args:
        root: the folder.
        record: what makes this run (settings, versions).
        write_all: masks of all frames are wanted, not of the required ones alone.
        overlay: so is <root>/<video>.mp4.
        probabilities: so is <root>/<video>/probabilities/<frame>.npz.
        statistics: so is <root>/<video>.csv.
        rank: of this process among those that write here.
    """

    root: Path
    record: Record
    write_all: bool = False
    overlay: bool = False
    probabilities: bool = False
    statistics: bool = False
    rank: int = 0
    _noted: dict[str, str] = field(default_factory=dict, init=False)  # complete by this process

    @contextlib.contextmanager
    def claim(self, videos: Sequence[Video]) -> Iterator[None]:
        """Make the folder, clear what an interrupted run left, and record what is being run.

        Raises:
            ValueError: the folder cannot be written, or holds a run with other settings.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(claimed(self.root))
                self._prepare(videos)
            except OSError as error:
                raise ValueError(
                    f"The output folder {self.root} cannot be written "
                    f"({error.strerror or error}): choose another with --output."
                ) from error
            yield

    def is_complete(self, video: Video) -> bool:
        """Whether all masks are there, made of the frames and masks that the video has now."""
        folder = self.root / video.name
        wanted = range(len(video)) if self.write_all else video.required_frames
        names = [video.frame_names[index] for index in wanted]
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
        """A folder for what is made of a video, which gets its name at the end if all went well.

        Files called BESIDE with some suffix get the video's name, beside the folder.
        """
        partial = self._partial(video)
        try:
            partial.mkdir()
            yield partial
            self._publish(partial, video)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def join_notes(self) -> None:
        """Write the run's file with what each process has noted, also of a run that was cut off."""
        noted = sorted(self.root.glob(".run.*.json"))
        for path in noted:
            self._digests |= json.loads(path.read_text())
        write_json(self.root / RUN_FILE, {"runs": self._runs, "videos": self._digests})
        for path in noted:
            path.unlink()

    def _prepare(self, videos: Sequence[Video]) -> None:
        for video in videos:
            for left in (self._partial(video), self._outdated(video)):
                shutil.rmtree(left, ignore_errors=True)
        path = self.root / RUN_FILE
        foreign = [v.name for v in videos if (self.root / v.name).exists()]
        before = read_run_file(path)
        if not foreign and not before["videos"] and not [*self.root.glob(".run.*.json")]:
            before["runs"] = []  # a run that left no mask stands in nobody's way
        if before["runs"]:
            _refuse_other_settings(path, self.record)
        elif foreign:
            raise ValueError(
                f"{self.root} holds {foreign[0]}, which no run here wrote ({RUN_FILE} is "
                "missing): choose another --output, or remove that folder."
            )
        self._refuse_namesakes(before, videos)
        self._runs = [*before["runs"], self.record]  # an interrupted run has several
        self._digests: dict[str, str] = before["videos"]
        self.join_notes()

    def _refuse_namesakes(self, before: dict[str, Any], videos: Sequence[Video]) -> None:
        """Another --video of the same name would take the place of the one that is here."""
        source = self.record["settings"].get("video")
        sources = {run["settings"].get("video") for run in before["runs"]} - {"", None}
        for video in videos:
            is_other = before["videos"].get(video.name, video.digest) != video.digest
            if source and is_other and sources and source not in sources:
                raise ValueError(
                    f"{self.root} holds masks of {video.name} made of {sorted(sources)[0]}, and "
                    f"{source} has the same name: choose another --output."
                )

    def _overlays(self, video: Video) -> list[Path]:
        """Where the overlay may be."""
        return [self.root / f"{video.name}{suffix}" for suffix in CODECS]

    def _publish(self, partial: Path, video: Video) -> None:
        for path in self._overlays(video):  # of the masks that were there before
            path.unlink(missing_ok=True)
        for path in partial.glob(f"{BESIDE}.*"):
            path.replace(self.root / f"{video.name}{path.suffix}")
        outdated = self._outdated(video)
        if (self.root / video.name).exists():
            (self.root / video.name).rename(outdated)
        partial.rename(self.root / video.name)
        shutil.rmtree(outdated, ignore_errors=True)
        self._noted[video.name] = video.digest
        write_json(self.root / f".run.{self.rank}.json", self._noted)

    def _partial(self, video: Video) -> Path:
        """Where the masks of a video lie until they are complete."""
        return self.root / f".{video.name}.partial"

    def _outdated(self, video: Video) -> Path:
        """Where older masks of a video go while the new ones take their place."""
        return self.root / f".{video.name}.outdated"


def read_run_file(path: Path) -> dict[str, Any]:
    """The records of the runs, oldest first, and the digests of the videos that are complete.

    Raises:
        ValueError: the file holds something else.
    """
    if not path.exists():
        return {"runs": [], "videos": {}}
    try:
        content = json.loads(path.read_text())
        runs, videos = content["runs"], dict(content.get("videos", {}))
        if not all({"settings", "weights_sha256"} <= run.keys() for run in runs) or not runs:
            raise KeyError("settings")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a record of a run ({error}): remove it, or choose another --output."
        ) from error
    return {"runs": runs, "videos": videos}


def _refuse_other_settings(path: Path, record: dict[str, Any]) -> None:
    """Masks of two runs in one folder would be nobody's result."""
    first = read_run_file(path)["runs"][0]
    # Settings that came since then were at their defaults.
    before = {**asdict(EvalSettings()), **first["settings"]}
    before["weights_sha256"] = first["weights_sha256"]
    now = {**record["settings"], "weights_sha256": record["weights_sha256"]}
    differing = list_changes(before, now, _IGNORED)
    if differing:
        raise ValueError(
            f"{path.parent} holds masks made with other settings: {'; '.join(differing)}. Choose "
            "another --output, or remove that folder."
        )
