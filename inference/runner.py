"""Runner of the eval scripts: segment videos into a folder, with progress bar and report.

Under torchrun, the videos are distributed over the processes by length.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import progressbar
import torch

from datasets.video import Video
from inference.labels import label_map
from inference.object_statistics import ObjectStatistics, format_statistics, write_statistics
from inference.output_folder import OutputFolder
from inference.predictor import Predictor
from inference.probability_files import PROBABILITIES, pack_probabilities
from inference.propagation import SegmentedFrame, propagate
from inference.run_file import RUN_FILE
from inference.run_report import Report, join_reports
from inference.tracker import Tracker
from inference.writer import BESIDE, Output, Writer, draw_overlay
from util.files import sha256
from util.hyper_para import EvalSettings
from util.provenance import Record, describe_run
from util.ranks import Ranks, gather_over_ranks, join_ranks, leave_ranks, run_on_main
from util.signals import INTERRUPTED

_BACKWARD_FOLDER = "backwards"  # probabilities of the backward propagation of "both"


def share_videos(videos: Sequence[Video], num_processes: int) -> list[list[Video]]:
    """Distribute videos: the longest first, each to the process with the fewest frames."""
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
    build_predictor: Callable[[], Predictor],
    writes_statistics: bool = False,
    failures: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Run an eval script and return its exit status.

    Args:
        settings: options of the script.
        read_videos: reads the videos; it is called after the processes have joined.
        build_predictor: loads the weights.
        writes_statistics: write per-object statistics, and print them for a single video.
        failures: sentences about the videos that `read_videos` could not read, by name.

    Returns:
        0: all masks are written; 1: some videos failed, the masks of the others are written;
        2: nothing was done; 130: interrupted.
    """
    try:
        ranks = join_ranks(settings.device, exchanges_on_cpu=True)
        videos = read_videos()
        for name, why in failures.items() if ranks.is_main else ():
            print(f"warning: video {name} is left out: {why}", file=sys.stderr)
        predictor = build_predictor()
        record = {
            **describe_run(predictor.settings),
            "weights_sha256": predictor.weights_sha256,
            "plugins_sha256": [sha256(Path(path)) for path in settings.plugin],
        }
        runner = Runner(predictor, Path(settings.output), record, ranks, writes_statistics)
        report = runner.run(videos)
        report.failures = {**failures, **report.failures}
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except torch.OutOfMemoryError as error:
        print(f"error: {_explain(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted: run the same command again to resume.", file=sys.stderr)
        return INTERRUPTED
    finally:
        leave_ranks()
    if ranks.is_main:
        print(report)
    return 1 if report.failures else 0


@dataclass
class Runner:
    """Segments videos into a folder.

    Args:
        predictor: makes the sessions; its settings are the run's.
        output: folder of the masks, <output>/<video>/<frame>.png.
        record: settings and versions of the run, stored in <output>/run.json.
        ranks: rank of this process and number of processes that share the videos.
        writes_statistics: also write per-object statistics, <output>/<video>.csv.
    """

    predictor: Predictor
    output: Path
    record: Record
    ranks: Ranks = Ranks()
    writes_statistics: bool = False

    def __post_init__(self) -> None:
        settings = self.settings = self.predictor.settings
        self.folder = OutputFolder(
            self.output,
            self.record,
            write_all=settings.output_all,
            overlay=settings.overlay,
            probabilities=settings.save_probabilities,
            statistics=self.writes_statistics,
            rank=self.ranks.rank,
        )

    def run(self, videos: Sequence[Video]) -> Report:
        """Segment all videos; a video that fails is reported and the others are segmented.

        Raises:
            ValueError: the output folder is not writable, or holds a run with other settings.
        """
        with contextlib.ExitStack() as stack:
            names = run_on_main(lambda: self._start(videos, stack))
            todo = [video for video in videos if video.name in names]
            try:
                report = self._run(share_videos(todo, self.ranks.world_size)[self.ranks.rank])
                report.num_complete_before = len(videos) - len(todo)
                return join_reports(gather_over_ranks(report))
            finally:
                if self.ranks.is_main:
                    self._merge_lists()

    def _merge_lists(self) -> None:
        try:
            self.folder.merge_lists()
        except OSError as error:  # the masks are written, and the next run merges the lists
            print(f"warning: {self.output / RUN_FILE} cannot be written: {error}", file=sys.stderr)

    def _start(self, videos: Sequence[Video], stack: contextlib.ExitStack) -> list[str]:
        """Lock and prepare the folder; return the names of the videos to segment."""
        stack.enter_context(self.folder.lock(videos))
        return [video.name for video in videos if not self.folder.is_complete(video)]

    def _run(self, todo: Sequence[Video]) -> Report:
        report = Report()
        report.redone = [v.name for v in todo if (self.output / v.name).exists()]
        num_directions = 2 if self.settings.direction == "both" else 1
        total = num_directions * sum(len(v) for v in todo)
        done = 0
        bar_type = progressbar.ProgressBar if self.ranks.is_main else progressbar.NullBar
        with bar_type(
            max_value=max(total, 1),
            widgets=[
                progressbar.Variable("video", width=16), " ", progressbar.Counter(), f"/{total} ",
                progressbar.Bar(), " ", progressbar.AdaptiveTransferSpeed(unit="frames"), " ",
                progressbar.ETA(),
            ],
        ) as bar:  # fmt: skip
            start = time.perf_counter()  # after the bar, whose imports take 0.25 s
            for video in todo:
                try:
                    with self.folder.fill(video) as partial:
                        for _ in self._segment(video, partial, report):
                            done += 1
                            bar.update(done, video=video.name)
                    report.num_videos += 1
                except (ValueError, OSError, MemoryError) as error:
                    report.failures[video.name] = str(error) or type(error).__name__
                except RuntimeError as error:  # torch's, such as out of memory
                    report.failures[video.name] = _explain(error)
        report.wall_seconds = time.perf_counter() - start
        return report

    def _segment(self, video: Video, folder: Path, report: Report) -> Iterator[None]:
        """Segment one video into a folder; yield after each frame of each direction."""
        settings = self.settings
        statistics = None
        if self.writes_statistics:
            statistics = ObjectStatistics(video.labels, video.frame_names)
        trackers = _Trackers(self.predictor, video)
        scratch = folder / _BACKWARD_FOLDER
        if settings.save_probabilities:
            (folder / PROBABILITIES).mkdir()
        # Backwards, the first frame of the overlay comes last.
        is_backwards = settings.direction == "backwards"
        try:
            with Writer(video, folder, settings.overlay and not is_backwards) as writer:
                for result in propagate(
                    video,
                    video.annotated_labels,
                    trackers.start,
                    settings.direction,
                    scratch,
                    settings.output_all,
                ):
                    if result is not None:
                        report.num_frames += 1
                        report.num_optional_frames += result.prob is None
                    if result is not None and result.prob is not None:
                        start = time.perf_counter()
                        labels = label_map(result.prob, result.labels, video.size)
                        report.processing_seconds += time.perf_counter() - start
                        writer.put(self._make_output(result, labels))
                        if statistics is not None:
                            statistics.add(result.frame.index, labels, result.quality)
                    yield
        finally:
            trackers.finish()
            report.processing_seconds += trackers.seconds
        report.memory_frames.append(trackers.num_memory_frames)
        if settings.overlay and is_backwards:
            draw_overlay(video, folder)
        if scratch.exists():
            scratch.rmdir()
        if statistics is not None:
            rows = statistics.rows()
            write_statistics(folder / f"{BESIDE}.csv", rows)
            report.statistics[video.name] = format_statistics(rows)

    def _make_output(self, result: SegmentedFrame, labels: np.ndarray) -> Output:
        """Collect the files of a frame; labels are (H, W) uint8 at the video's native size."""
        probabilities = None
        if self.settings.save_probabilities:
            assert result.prob is not None
            probabilities = pack_probabilities(result.prob, result.labels)
        return Output(result.frame.name, labels, result.frame.image, probabilities)


class _Trackers:
    """One tracker for each direction, never two at once: each holds a memory bank."""

    def __init__(self, predictor: Predictor, video: Video) -> None:
        self._predictor, self._video = predictor, video
        self._tracker: Tracker | None = None
        self.seconds = 0.0
        self.num_memory_frames = 0

    def start(self) -> Tracker:
        self.finish()
        self._tracker = Tracker(self._predictor, len(self._video), len(self._video.labels))
        return self._tracker

    def finish(self) -> None:
        if self._tracker is None:
            return
        self.seconds += self._tracker.seconds
        self.num_memory_frames = max(self.num_memory_frames, self._tracker.num_memory_frames)
        self._tracker = None


def _explain(error: RuntimeError) -> str:
    """Return torch's message, with advice if memory ran out."""
    message = (str(error).strip() or type(error).__name__).splitlines()[0]
    is_memory = isinstance(error, torch.OutOfMemoryError) or "allocate" in message
    advice = "try --amp, --encode_batch 1, a smaller --size or a larger --mem_every"
    return f"{message} ({advice})" if is_memory else message
