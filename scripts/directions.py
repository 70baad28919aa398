"""Scores of clips followed forwards, backwards and both ways; and what editing them changes.

    python scripts/directions.py --davis_path data/DAVIS --year 2016 --model saves/stcn_small.pth

Forwards starts from the mask of the first frame, backwards from that of the last one, both ways
from both. All are scored on the frames between. Then, on clips that are long enough, a mask is
corrected on frame 40, and where there are several objects, the last one joins on frame 20 and goes
on frame 50: the script counts the frames that change, and on which the object is seen.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import progressbar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.davis import at_480p, davis_2016, davis_2017
from datasets.predictions import Convention, read_truth
from datasets.protocols import find_split
from datasets.video import Video
from inference_core import Sessions
from inference_core_yv import InferenceCoreYV
from util.clip_session import ClipSession
from util.files import write_json
from util.hyper_para import EvalSettings
from util.metrics import evaluate_frame
from util.provenance import describe_run

JOINS, IS_CORRECTED, GOES = 20, 40, 50
DIRECTIONS = ("forwards", "backwards", "both")


class DecodedFrames:
    """A video's frames, decoded when they are asked for."""

    def __init__(self, video: Video) -> None:
        self._video = video

    def __len__(self) -> int:
        return len(self._video)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._video[index].image


class Labelled(NamedTuple):
    """A clip whose frames are all annotated."""

    name: str
    frames: DecodedFrames
    truth: Callable[[int], np.ndarray]  # frame -> (H, W) uint8
    labels: list[int]


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write."""
    arguments = _parse(argv)
    try:
        settings = EvalSettings(
            model=arguments.model,
            output="-",
            size=arguments.size,
            device=arguments.device,
            amp=arguments.amp,
        )
        clips = read_clips(arguments.davis_path, arguments.year, arguments.split)
        sessions = Sessions(settings, InferenceCoreYV)
        content = measure(clips, sessions)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(format_report(content))
    if arguments.json:
        write_json(arguments.json, {**content, **describe_run(sessions.settings)})
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--davis_path", type=Path, required=True, help="as in scripts/evaluate.py")
    parser.add_argument("--year", type=int, choices=(2016, 2017), default=2017)
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", default="saves/stcn_small.pth")
    parser.add_argument("--size", type=int, default=0, help="shorter side; 0: the frames' own")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--amp", action="store_true", help="half precision")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures here")
    return parser.parse_args(argv)


def read_clips(davis_path: Path, year: int, split: str) -> list[Labelled]:
    """All videos of a split, with the truth of all frames."""
    annotations = at_480p(find_split(davis_path, year, split)[0] / "Annotations")
    videos = davis_2016(davis_path, split) if year == 2016 else davis_2017(davis_path, split)

    def truth_of(video: Video) -> Callable[[int], np.ndarray]:
        files = [annotations / video.name / f"{name}.png" for name in video.frame_names]
        return lambda index: read_truth(files[index], Convention(year))

    return [
        Labelled(v.name, DecodedFrames(v), truth_of(v), [1] if year == 2016 else v.labels)
        for v in videos
    ]


def measure(clips: Sequence[Labelled], sessions: Sessions) -> dict[str, Any]:
    """J&F of each clip and direction, and what editing changes."""
    steps = sum(len(clip.frames) * 4 for clip in clips)
    scores: dict[str, dict[str, float]] = {}
    edits: dict[str, dict[str, Any]] = {}
    with progressbar.ProgressBar(max_value=steps) as bar:
        for clip in clips:
            scores[clip.name] = {}
            forwards: dict[int, np.ndarray] = {}
            for direction in DIRECTIONS:
                session = ClipSession(sessions, clip.frames)
                last = len(clip.frames) - 1
                ends = {"forwards": [0], "backwards": [last], "both": [0, last]}[direction]
                for end in ends:
                    session.give(end, clip.truth(end))
                found = run(session, direction)
                bar.increment(len(clip.frames) * (2 if direction == "both" else 1))
                scores[clip.name][direction] = score(clip, found)
                forwards = forwards or found
            if len(clip.frames) > GOES:
                edits[clip.name] = edit(clip, sessions, forwards)
    return {"J&F": scores, "edits": edits}


def run(session: ClipSession, direction: str = "forwards") -> dict[int, np.ndarray]:
    """Label maps (H, W) uint8 by frame."""
    return dict(session.propagate(direction))


def score(clip: Labelled, found: dict[int, np.ndarray]) -> float:
    """Mean J&F of the objects over all frames but the first and the last."""
    inner = range(1, len(clip.frames) - 1)
    return float(np.mean([evaluate_frame(found[i], clip.truth(i), clip.labels) for i in inner]))


def edit(clip: Labelled, sessions: Sessions, before: dict[int, np.ndarray]) -> dict[str, Any]:
    """Correct a mask; have an object join and go."""
    session = ClipSession(sessions, clip.frames)
    session.give(0, clip.truth(0))
    session.give(IS_CORRECTED, clip.truth(IS_CORRECTED))
    after = run(session)
    changed = [index for index in before if (before[index] != after[index]).any()]
    done: dict[str, Any] = {
        "changed before frame 40": sum(index < IS_CORRECTED for index in changed),
        "changed from frame 40 on": sum(index >= IS_CORRECTED for index in changed),
        "frames from 40 on": len(before) - IS_CORRECTED,
        "J&F before and after": [score(clip, before), score(clip, after)],
    }
    if len(clip.labels) > 1:
        *others, label = clip.labels
        session = ClipSession(sessions, clip.frames)
        first, later = clip.truth(0), clip.truth(JOINS)
        session.give(0, np.where(np.isin(first, others), first, 0).astype(np.uint8))
        session.give(JOINS, np.where(later == label, later, 0).astype(np.uint8))
        session.remove(label, at=GOES)
        seen = [index for index, labels in run(session).items() if label in labels]
        done["object that joins on 20 and goes on 50 is seen"] = [seen[0], seen[-1], len(seen)]
    return done


def format_report(content: dict[str, Any]) -> str:
    """The lines to print."""
    scores = content["J&F"]
    mean = {d: float(np.mean([row[d] for row in scores.values()])) for d in DIRECTIONS}
    lines = [f"{'J&F':18}" + "".join(f"{d:>11}" for d in DIRECTIONS)]
    for name, row in [*scores.items(), ("mean", mean)]:
        lines.append(f"{name:18}" + "".join(f"{row[d]:11.3f}" for d in DIRECTIONS))
    for name, done in content["edits"].items():
        lines.append(f"{name}: " + "; ".join(f"{what}: {value}" for what, value in done.items()))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
