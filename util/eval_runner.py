"""The runner behind all eval scripts: prefetch, segment, save in the background, time, report.

Under torchrun the videos are dealt out to the processes by their lengths.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import progressbar
import torch

from util.background import BESIDE, Output, Saver, Video, draw_overlay
from util.devices import Ranks, from_main, gather_over_ranks, join_ranks, leave_ranks
from util.hyper_para import EvalSettings
from util.object_summary import ObjectSummary, format_summary, write_summary
from util.output_folder import OutputFolder
from util.passes import Segmented, propagate
from util.provenance import describe_run
from util.run_report import Report, join_reports
from util.scores import SCORES, pack_scores
from util.signals import INTERRUPTED
from util.tracker import Sessions, Tracker, label_map

_BACKWARDS = "backwards"  # what the first of two passes leaves for the second one


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
    has_summary: bool = False,
) -> int:
    """What every eval script does; returns the exit status.

    has_summary: write what became of each object, and print it where there is one video.

    0: all masks are there; 1: some videos failed, the others' masks are there; 2: nothing was
    done; 130: interrupted.
    """
    try:
        ranks = join_ranks(settings.device, exchanges_on_cpu=True)
        videos = read_videos()
        sessions = open_sessions()
        record = {**describe_run(sessions.settings), "weights_sha256": sessions.weights_sha256}
        runner = Runner(sessions, Path(settings.output), record, ranks, has_summary)
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
        sessions: where sessions come from, and their settings.
        output: folder of the masks, <output>/<video>/<frame>.png.
        record: what makes this run (settings, versions); kept in <output>/run.json.
        ranks: this process among those that share the videos.
        has_summary: also write <output>/<video>.csv, what became of each object.
    """

    sessions: Sessions
    output: Path
    record: dict[str, Any]
    ranks: Ranks = Ranks()
    has_summary: bool = False

    def __post_init__(self) -> None:
        settings = self.settings = self.sessions.settings
        self.folder = OutputFolder(
            self.output,
            self.record,
            write_all=settings.output_all,
            overlay=settings.overlay,
            scores=settings.save_scores,
            summary=self.has_summary,
            rank=self.ranks.rank,
        )

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
                    self.folder.join_notes()

    def _start(self, videos: Sequence[Video], stack: contextlib.ExitStack) -> list[str]:
        """Claim and prepare the folder; the names of the videos that are to be segmented."""
        stack.enter_context(self.folder.claim(videos))
        return [video.name for video in videos if not self.folder.is_complete(video)]

    def _run(self, todo: Sequence[Video]) -> Report:
        report = Report()
        report.redone = [v.name for v in todo if (self.output / v.name).exists()]
        num_passes = 2 if self.settings.direction == "both" else 1
        total = num_passes * sum(len(v) for v in todo)
        done = 0
        kind = progressbar.ProgressBar if self.ranks.is_main else progressbar.NullBar
        with kind(
            max_value=max(total, 1),
            widgets=[
                progressbar.Variable("video", width=16), " ", progressbar.Counter(), f"/{total} ",
                progressbar.Bar(), " ", progressbar.AdaptiveTransferSpeed(unit="frames"), " ",
                progressbar.ETA(),
            ],
        ) as bar:  # fmt: skip
            start = time.perf_counter()  # with the bar there: its imports take a quarter second
            for video in todo:
                try:
                    with self.folder.fill(video) as partial:
                        for _ in self._segment(video, partial, report):
                            done += 1
                            bar.update(done, video=video.name)
                    report.num_videos += 1
                except (ValueError, OSError, MemoryError) as error:
                    report.failures[video.name] = str(error) or type(error).__name__
                except RuntimeError as error:  # out of memory, for one
                    report.failures[video.name] = _explain(error)
        report.wall_seconds = time.perf_counter() - start
        return report

    def _segment(self, video: Video, folder: Path, report: Report) -> Iterator[None]:
        """Segment one video into a folder, yielding after each frame of each pass."""
        summary = ObjectSummary(video.labels, video.frame_names) if self.has_summary else None
        settings = self.settings
        passes = _Passes(self.sessions, video)
        scratch = folder / _BACKWARDS
        if settings.save_scores:
            (folder / SCORES).mkdir()
        # Going backwards, the overlay has to wait for the first frame.
        is_backwards = settings.direction == "backwards"
        try:
            with Saver(video, folder, settings.overlay and not is_backwards) as saver:
                for found in propagate(
                    video, passes.start, settings.direction, scratch, settings.output_all
                ):
                    if found is not None:
                        report.num_frames += 1
                        report.num_skipped_frames += found.prob is None
                    if found is not None and found.prob is not None:
                        start = time.perf_counter()
                        labels = label_map(found.prob, found.labels, video.size)
                        report.processing_seconds += time.perf_counter() - start
                        saver.put(self._make_output(found, labels))
                        if summary is not None:
                            summary.add(found.frame.index, labels, found.quality)
                    yield
        finally:
            passes.finish()
            report.processing_seconds += passes.seconds
        report.memory_frames.append(passes.num_memory_frames)
        if settings.overlay and is_backwards:
            draw_overlay(video, folder)
        if scratch.exists():
            scratch.rmdir()
        if summary is not None:
            rows = summary.rows()
            write_summary(folder / f"{BESIDE}.csv", rows)
            report.summaries[video.name] = format_summary(rows)

    def _make_output(self, found: Segmented, labels: np.ndarray) -> Output:
        """What to write of a frame, whose labels are (H, W) uint8 at the video's own size."""
        scores = None
        if self.settings.save_scores:
            assert found.prob is not None
            scores = pack_scores(found.prob, found.labels)
        return Output(found.frame.name, labels, found.frame.image, scores)


class _Passes:
    """Trackers of a video's passes, one at a time: two would hold two memories."""

    def __init__(self, sessions: Sessions, video: Video) -> None:
        self._sessions, self._video = sessions, video
        self._tracker: Tracker | None = None
        self.seconds = 0.0
        self.num_memory_frames = 0

    def start(self) -> Tracker:
        self.finish()
        self._tracker = Tracker(self._sessions, len(self._video), len(self._video.labels))
        return self._tracker

    def finish(self) -> None:
        if self._tracker is None:
            return
        self.seconds += self._tracker.seconds
        self.num_memory_frames = max(self.num_memory_frames, self._tracker.num_memory_frames)
        self._tracker = None


def _explain(error: RuntimeError) -> str:
    """What torch said, and what helps where it ran out of memory."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    is_memory = isinstance(error, torch.OutOfMemoryError) or "allocate" in said
    advice = "try --amp, --encode_batch 1, a smaller --size or a larger --mem_every"
    return f"{said} ({advice})" if is_memory else said
