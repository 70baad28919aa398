"""The runner behind all eval scripts: prefetch, step, resize, save in the background, time, report.

A video's masks are written into a hidden folder that gets its name when they are complete, so that
an interrupted run goes on where it stopped. Under torchrun the videos are dealt out to the
processes by their lengths. Each notes which of its videos are complete in a file of its own; the
main process joins these with the run's.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import progressbar
import torch
import torch.nn.functional as F

from util.background import Output, Saver, Video, prefetch
from util.devices import Ranks, from_main, gather_over_ranks, join_ranks, leave_ranks
from util.files import claimed, write_json
from util.hyper_para import EvalSettings
from util.provenance import describe_run, list_changes
from util.signals import INTERRUPTED

RUN_FILE = "run.json"
_OBJECTS_PER_PASS = 16  # that are brought to the video's own size at once


class Core(Protocol):
    """A session, as inference_core.py has it."""

    labels: list[int]

    def step(
        self, frame: torch.Tensor, masks: Mapping[int, torch.Tensor] | None, is_last: bool
    ) -> torch.Tensor: ...
    def can_skip(self) -> bool: ...
    def skip(self) -> None: ...


class Sessions(Protocol):
    """Fresh sessions from one network, as inference_core.py has it."""

    device: torch.device
    weights_sha256: str
    settings: EvalSettings  # with the method's own values filled in

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 (3, H, W) -> what a session takes."""

    def start(self, num_frames: int, num_objects: int) -> Core:
        """A session for a video of this length, with so many objects in all."""


@dataclass
class Report:
    """What a run did."""

    num_videos: int = 0
    num_skipped: int = 0  # videos that were complete before
    num_frames: int = 0
    num_skipped_frames: int = 0  # of these, frames whose masks nobody wants
    redone: list[str] = field(default_factory=list)  # videos that were there, but not as they are
    processing_seconds: float = 0.0  # from the decoded frame to the label map, I/O excluded
    wall_seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)  # video -> sentence
    num_processes: int = 1

    def __str__(self) -> str:
        lines = [f"{self.num_videos} videos, {self.num_frames} frames"]
        if self.num_skipped:
            lines[0] += f"; {self.num_skipped} videos were complete before"
        if self.redone:
            lines.append(
                f"Segmented again, since frames, masks or results had changed: "
                f"{', '.join(self.redone)}"
            )
        if self.num_skipped_frames:
            lines.append(f"{self.num_skipped_frames} of the frames needed no mask")
        if self.num_processes > 1:
            lines[0] += f", by {self.num_processes} processes"
        if self.num_frames:
            lines.append(
                f"FPS {self.num_frames / max(self.processing_seconds, 1e-9):.2f} without I/O "
                f"({self.processing_seconds:.1f} s), "
                f"{self.num_frames / max(self.wall_seconds, 1e-9):.2f} by the clock "
                f"({self.wall_seconds:.1f} s)"
            )
        lines += [f"FAILED {name}: {why}" for name, why in self.failures.items()]
        return "\n".join(lines)


def join_reports(reports: Sequence[Report]) -> Report:
    """One report of what several processes did at the same time."""
    joined = Report(num_processes=len(reports), num_skipped=reports[0].num_skipped)
    for report in reports:
        joined.num_videos += report.num_videos
        joined.num_frames += report.num_frames
        joined.num_skipped_frames += report.num_skipped_frames
        joined.redone += report.redone
        joined.failures |= report.failures
        # Together they are so many times as fast.
        joined.processing_seconds += report.processing_seconds / len(reports)
        joined.wall_seconds = max(joined.wall_seconds, report.wall_seconds)
    return joined


def share_videos(videos: Sequence[Video], num_processes: int) -> list[list[Video]]:
    """The videos of each process: the longest one first, each to the process with least to do."""
    shares: list[list[Video]] = [[] for _ in range(num_processes)]
    frames = [0] * num_processes
    for video in sorted(videos, key=lambda v: (-len(v), v.name)):
        least = frames.index(min(frames))
        shares[least].append(video)
        frames[least] += len(video)
    return shares


def run_eval(
    settings: EvalSettings,
    read_videos: Callable[[], Sequence[Video]],
    open_sessions: Callable[[], Sessions],
) -> int:
    """What every eval script does; returns the exit status.

    0: all masks are there; 1: some videos failed, the others' masks are there; 2: nothing was
    done; 130: interrupted.
    """
    torch.backends.cudnn.benchmark = settings.benchmark
    try:
        ranks = join_ranks(settings.device, exchanges_on_cpu=True)
        videos = read_videos()
        sessions = open_sessions()
        record = {**describe_run(sessions.settings), "weights_sha256": sessions.weights_sha256}
        output = Path(settings.output)
        runner = Runner(sessions, output, record, settings.output_all, settings.overlay, ranks)
        report = runner.run(videos)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted: the same command goes on with what is left.", file=sys.stderr)
        return INTERRUPTED
    finally:
        leave_ranks()
    if ranks.is_main:
        print(report)
    return 1 if report.failures else 0


@dataclass
class Runner:
    """Segment videos into a folder.

    Args:
        sessions: where sessions come from.
        output: folder of the masks, <output>/<video>/<frame>.png.
        record: what makes this run (settings, versions); kept in <output>/run.json.
        write_all: write every frame, not the required ones alone.
        overlay: also write <output>/<video>.mp4.
        ranks: this process among those that share the videos.
    """

    sessions: Sessions
    output: Path
    record: dict[str, Any]
    write_all: bool = False
    overlay: bool = False
    ranks: Ranks = Ranks()
    _noted: dict[str, str] = field(default_factory=dict, init=False)  # complete by this process

    def run(self, videos: Sequence[Video]) -> Report:
        """Segment all videos; one that fails is reported and the others go on.

        Raises:
            ValueError: the output folder cannot be written, or holds a run with other settings.
        """
        with contextlib.ExitStack() as stack:
            names = from_main(lambda: self._start(videos, stack))
            todo = [video for video in videos if video.name in names]
            try:
                report = self._run(share_videos(todo, self.ranks.world_size)[self.ranks.rank])
                report.num_skipped = len(videos) - len(todo)
                return join_reports(gather_over_ranks(report))
            finally:
                if self.ranks.is_main:
                    self._join_digests()

    def _start(self, videos: Sequence[Video], stack: contextlib.ExitStack) -> list[str]:
        """Claim and prepare the folder; the names of the videos that are to be segmented."""
        stack.enter_context(self._claimed_output(videos))
        return [video.name for video in videos if not self._is_complete(video)]

    def _run(self, todo: Sequence[Video]) -> Report:
        report = Report()
        report.redone = [v.name for v in todo if (self.output / v.name).exists()]
        total = sum(len(v) for v in todo)
        start = time.perf_counter()
        kind = progressbar.ProgressBar if self.ranks.is_main else progressbar.NullBar
        with kind(
            max_value=max(total, 1),
            widgets=[
                progressbar.Variable("video", width=16), " ", progressbar.Counter(), f"/{total} ",
                progressbar.Bar(), " ", progressbar.AdaptiveTransferSpeed(unit="frames"), " ",
                progressbar.ETA(),
            ],
        ) as bar:  # fmt: skip
            for video in todo:
                partial = _partial(self.output, video.name)
                try:
                    partial.mkdir()
                    for _ in self._segment(video, partial, report):
                        bar.update(report.num_frames, video=video.name)
                    self._publish(partial, video)
                    report.num_videos += 1
                except (ValueError, OSError, MemoryError) as error:
                    report.failures[video.name] = str(error) or type(error).__name__
                except RuntimeError as error:  # out of memory, for one
                    report.failures[video.name] = _explain(error)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
        report.wall_seconds = time.perf_counter() - start
        return report

    @contextlib.contextmanager
    def _claimed_output(self, videos: Sequence[Video]) -> Iterator[None]:
        """Make the folder, clear what an interrupted run left, and record what is being run."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(claimed(self.output))
                self._prepare_output(videos)
            except OSError as error:
                raise _not_writable(self.output, error) from error
            yield

    def _prepare_output(self, videos: Sequence[Video]) -> None:
        for video in videos:
            for left in (_partial(self.output, video.name), _outdated(self.output, video.name)):
                shutil.rmtree(left, ignore_errors=True)
        path = self.output / RUN_FILE
        foreign = [v.name for v in videos if (self.output / v.name).exists()]
        if path.exists():
            _refuse_other_settings(path, self.record)
        elif foreign:
            raise ValueError(
                f"{self.output} holds {foreign[0]}, which no run here wrote ({RUN_FILE} is "
                "missing): choose another --output, or remove that folder."
            )
        before = _read_run_file(path)
        self._runs = [*before["runs"], self.record]  # an interrupted run has several
        self._digests = before["videos"]
        self._join_digests()

    def _join_digests(self) -> None:
        """Write the run's file with what each process has noted, also of a run that was cut off."""
        noted = sorted(self.output.glob(".run.*.json"))
        for path in noted:
            self._digests |= json.loads(path.read_text())
        write_json(self.output / RUN_FILE, {"runs": self._runs, "videos": self._digests})
        for path in noted:
            path.unlink()

    def _note_digest(self, video: Video) -> None:
        self._noted[video.name] = video.digest
        write_json(self.output / f".run.{self.ranks.rank}.json", self._noted)

    def _is_complete(self, video: Video) -> bool:
        """Whether all masks are there, made of the frames and masks that the video has now."""
        folder = self.output / video.name
        wanted = range(len(video)) if self.write_all else video.required_frames
        return (
            self._digests.get(video.name) == video.digest
            and all((folder / f"{video.frame_names[i]}.png").is_file() for i in wanted)
            and (not self.overlay or self._has_overlay(video.name))
        )

    def _has_overlay(self, name: str) -> bool:
        return any((self.output / f"{name}{suffix}").is_file() for suffix in (".mp4", ".avi"))

    def _publish(self, partial: Path, video: Video) -> None:
        for overlay in partial.glob("*.overlay.*"):
            overlay.replace(self.output / f"{video.name}{overlay.suffix}")
        outdated = _outdated(self.output, video.name)
        if (self.output / video.name).exists():
            (self.output / video.name).rename(outdated)
        partial.rename(self.output / video.name)
        shutil.rmtree(outdated, ignore_errors=True)
        self._note_digest(video)

    def _segment(self, video: Video, folder: Path, report: Report) -> Iterator[None]:
        """Segment one video into a folder, yielding after each frame."""
        core = self.sessions.start(len(video), len(video.labels))
        with Saver(video, folder, self.overlay) as saver:
            for index, frame in enumerate(prefetch(video)):
                start = time.perf_counter()
                labels = self._step(core, frame, video, is_last=index == len(video) - 1)
                report.processing_seconds += time.perf_counter() - start
                report.num_frames += 1
                report.num_skipped_frames += labels is None
                if labels is not None and (frame.is_required or self.write_all):
                    saver.put(Output(frame.name, labels, frame.image))
                yield

    def _step(self, core: Core, frame: Any, video: Video, is_last: bool) -> np.ndarray | None:
        """Labels (H, W) uint8 at the video's own size; None for a frame that nobody wants."""
        is_wanted = frame.is_required or self.write_all
        if not is_wanted and frame.new_labels is None and core.can_skip():
            core.skip()
            return None
        image = torch.from_numpy(frame.image).to(self.sessions.device).permute(2, 0, 1)
        masks = None
        if frame.new_labels is not None:
            new = torch.from_numpy(frame.new_labels).to(self.sessions.device)
            masks = {int(v): (new == v).float() for v in np.unique(frame.new_labels) if v}
        prob = core.step(self.sessions.normalise(image), masks, is_last)
        if not torch.isfinite(prob.sum()):
            raise ValueError(
                f"The network's answer on frame {frame.name} is not finite: use --precision "
                "float32, or other weights."
            )
        if not is_wanted:
            return None
        return to_labels(prob, core.labels, video.size)


def _explain(error: RuntimeError) -> str:
    """What torch said, and what helps where it ran out of memory."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    is_memory = isinstance(error, torch.OutOfMemoryError) or "allocate" in said
    return f"{said} (try --amp, a smaller --size or a larger --mem_every)" if is_memory else said


def to_labels(prob: torch.Tensor, labels: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Probabilities (O+1, h, w) -> label map (H, W) uint8 at `size`: bilinear, then argmax."""
    values = torch.tensor([0, *labels], dtype=torch.uint8, device=prob.device)
    if tuple(prob.shape[-2:]) == tuple(size):
        return values[prob.argmax(0)].cpu().numpy()
    # A few objects at a time: at 4K, the probabilities of 255 would take 8 GB.
    highest = prob.new_full(size, -1)
    winners = torch.zeros(size, dtype=torch.uint8, device=prob.device)
    parts = zip(prob.split(_OBJECTS_PER_PASS), values.split(_OBJECTS_PER_PASS), strict=True)
    for part, part_values in parts:
        resized = F.interpolate(part[None], size=size, mode="bilinear", align_corners=False)[0]
        best, at = resized.max(0)
        winners = torch.where(best > highest, part_values[at], winners)
        highest = torch.maximum(highest, best)
    return winners.cpu().numpy()


def _not_writable(folder: Path, error: OSError) -> ValueError:
    why = error.strerror or str(error)
    return ValueError(
        f"The output folder {folder} cannot be written ({why}): choose another with --output."
    )


def _partial(output: Path, name: str) -> Path:
    """Where the masks of a video lie until they are complete."""
    return output / f".{name}.partial"


def _outdated(output: Path, name: str) -> Path:
    """Where older masks of a video go while the new ones take their place."""
    return output / f".{name}.outdated"


def _read_run_file(path: Path) -> dict[str, Any]:
    """The records of the runs, oldest first, and the digests of the videos that are complete."""
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
    first = _read_run_file(path)["runs"][0]
    before = {**first["settings"], "weights_sha256": first["weights_sha256"]}
    # The weights' digest tells the model; an overlay changes no mask; the videos have digests.
    ignored = {
        "model", "output", "device", "benchmark", "overlay", "davis_path", "yv_path", "data_path",
        "video", "mask",
    }  # fmt: skip
    now = {**record["settings"], "weights_sha256": record["weights_sha256"]}
    differing = list_changes(before, now, ignored)
    if differing:
        raise ValueError(
            f"{path.parent} holds masks made with other settings: {'; '.join(differing)}. Choose "
            "another --output, or remove that folder."
        )
