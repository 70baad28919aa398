"""The report of a run of an eval script, joined over its processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Report:
    """Counts, times and failures of a run; printed at its end."""

    num_videos: int = 0
    num_complete_before: int = 0  # videos that an earlier run completed
    num_frames: int = 0
    num_optional_frames: int = 0  # frames that need no mask
    redone: list[str] = field(default_factory=list)  # videos whose masks were outdated
    processing_seconds: float = 0.0  # from the decoded frame to the label map, I/O excluded
    wall_seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)  # video -> sentence
    num_processes: int = 1
    memory_frames: list[int] = field(default_factory=list)  # at the end of each video
    statistics: dict[str, str] = field(default_factory=dict)  # video -> table of its objects

    def __str__(self) -> str:
        lines = [f"{self.num_videos} videos, {self.num_frames} frames"]
        if self.num_processes > 1:
            lines[0] += f", by {self.num_processes} processes"
        if self.num_complete_before:
            lines[0] += f"; {self.num_complete_before} videos were complete before"
        if self.redone:
            lines.append(
                "Segmented again, because frames or annotations had changed or files were missing: "
                f"{', '.join(self.redone)}"
            )
        if self.num_optional_frames:
            lines.append(f"{self.num_optional_frames} of the frames needed no mask")
        if self.num_frames:
            lines.append(
                f"FPS {self.num_frames / max(self.processing_seconds, 1e-9):.2f} without I/O "
                f"({self.processing_seconds:.1f} s), "
                f"{self.num_frames / max(self.wall_seconds, 1e-9):.2f} with I/O "
                f"({self.wall_seconds:.1f} s)"
            )
        if self.memory_frames:
            lines.append(f"Largest number of frames in memory: {max(self.memory_frames)}")
        if len(self.statistics) == 1:
            lines += self.statistics.values()
        lines += [f"FAILED {name}: {why}" for name, why in self.failures.items()]
        return "\n".join(lines)


def join_reports(reports: Sequence[Report]) -> Report:
    """Join the reports of processes that ran in parallel."""
    joined = Report(num_processes=len(reports), num_complete_before=reports[0].num_complete_before)
    for report in reports:
        joined.num_videos += report.num_videos
        joined.num_frames += report.num_frames
        joined.num_optional_frames += report.num_optional_frames
        joined.redone += report.redone
        joined.failures |= report.failures
        joined.memory_frames += report.memory_frames
        joined.statistics |= report.statistics
        # Mean over the processes, so that FPS is that of all processes together.
        joined.processing_seconds += report.processing_seconds / len(reports)
        joined.wall_seconds = max(joined.wall_seconds, report.wall_seconds)
    return joined
