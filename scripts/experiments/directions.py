"""Scores of clips followed forwards, backwards and both ways; and what editing them changes.

    python scripts/experiments/directions.py --davis_path data/DAVIS --year 2016 --model saves/stcn_small.pth

Forwards starts from the mask of the first frame, backwards from that of the last one, both ways
from both. All are scored on the frames between. Then, on clips that are long enough, a mask is
corrected on frame 40, and where there are several objects, the last one joins on frame 20 and goes
on frame 50: the script counts the frames that change, and on which the object is seen.

Objects that are not on the last frame cannot be followed backwards: no direction is scored on them.
What this leaves out, and edits on frames that do not show their objects, is said under the table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import progressbar

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets.davis import at_480p, davis_2016, davis_2017
from datasets.video import Video
from evaluation.metrics import evaluate_frame
from evaluation.predictions import Convention, read_ground_truth
from evaluation.protocols import find_split
from inference.clip_session import ClipSession
from inference.predictor import Predictor
from inference_core_yv import InferenceCoreYV
from util.files import write_json
from util.hyper_para import EvalSettings
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
    ground_truth: Callable[[int], np.ndarray]  # frame -> (H, W) uint8
    labels: list[int]

    def mask(self, index: int, labels: Sequence[int]) -> np.ndarray:
        """(H, W) uint8, the truth of some objects; the others are background."""
        ground_truth = self.ground_truth(index)
        return np.where(np.isin(ground_truth, labels), ground_truth, 0).astype(np.uint8)


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
        predictor = Predictor(settings, InferenceCoreYV)
        content = measure(clips, predictor)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(format_report(content))
    if arguments.json:
        write_json(arguments.json, {**content, **describe_run(predictor.settings)})
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
        return lambda index: read_ground_truth(files[index], Convention(year))

    return [
        Labelled(v.name, DecodedFrames(v), truth_of(v), [1] if year == 2016 else v.labels)
        for v in videos
    ]


def measure(clips: Sequence[Labelled], predictor: Predictor) -> dict[str, Any]:
    """J&F of each clip and direction, what editing changes, and notes on what is left out."""
    scores: dict[str, dict[str, float]] = {}
    edits: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    with progressbar.ProgressBar(max_value=sum(len(clip.frames) for clip in clips)) as bar:
        for clip in clips:
            scores[clip.name], done, said = measure_clip(clip, predictor)
            if done:
                edits[clip.name] = done
            notes += [f"{clip.name}: {note}" for note in said]
            bar.increment(len(clip.frames))
    return {"J&F": scores, "edits": edits, "notes": notes}


def measure_clip(
    clip: Labelled, predictor: Predictor
) -> tuple[dict[str, float], dict[str, Any], list[str]]:
    """The same of one clip."""
    last = len(clip.frames) - 1
    if last < 2:
        return {}, {}, ["has no frame between the first and the last, and is left out."]
    end = clip.ground_truth(last)
    scored = [label for label in clip.labels if label in end]
    notes = [
        f"object {label} is not on the last frame, and is not scored."
        for label in clip.labels
        if scored and label not in scored
    ]
    if not scored:
        notes.append("no object is on the last frame: forwards is scored alone, outside the mean.")
    scores: dict[str, float] = {}
    found: dict[str, dict[int, np.ndarray]] = {}
    for direction in DIRECTIONS if scored else DIRECTIONS[:1]:
        session = ClipSession(predictor, clip.frames)
        for index in {"forwards": [0], "backwards": [last], "both": [0, last]}[direction]:
            session.add_mask(index, clip.mask(index, clip.labels))
        found[direction] = run(session, direction)
        scores[direction] = score(clip, found[direction], scored or clip.labels)
    done: dict[str, Any] = {}
    if len(clip.frames) > GOES:
        done, said = edit(clip, predictor, found["forwards"], scored or clip.labels)
        notes += said
    return scores, done, notes


def run(session: ClipSession, direction: str = "forwards") -> dict[int, np.ndarray]:
    """Label maps (H, W) uint8 by frame."""
    return dict(session.propagate(direction))


def score(clip: Labelled, found: dict[int, np.ndarray], labels: Sequence[int]) -> float:
    """Mean J&F of some objects over all frames but the first and the last."""
    inner = range(1, len(clip.frames) - 1)
    return float(np.mean([evaluate_frame(found[i], clip.ground_truth(i), labels) for i in inner]))


def edit(
    clip: Labelled, predictor: Predictor, before: dict[int, np.ndarray], scored: Sequence[int]
) -> tuple[dict[str, Any], list[str]]:
    """Correct a mask; have an object join and go. What was found, and notes on what was not done.

    before: label maps of the clip followed forwards. scored: objects that J&F is of.
    """
    done: dict[str, Any] = {}
    notes: list[str] = []
    correction = clip.mask(IS_CORRECTED, clip.labels)
    if correction.any():
        session = ClipSession(predictor, clip.frames)
        session.add_mask(0, clip.mask(0, clip.labels))
        session.add_mask(IS_CORRECTED, correction)
        after = run(session)
        changed = [index for index in before if (before[index] != after[index]).any()]
        done |= {
            "changed before frame 40": sum(index < IS_CORRECTED for index in changed),
            "changed from frame 40 on": sum(index >= IS_CORRECTED for index in changed),
            "frames from 40 on": len(before) - IS_CORRECTED,
            "J&F before and after": [score(clip, maps, scored) for maps in (before, after)],
        }
    else:
        notes.append("no mask is corrected, since no object is on frame 40.")
    *others, label = clip.labels
    joining = clip.mask(JOINS, [label])
    if others and joining.any():
        session = ClipSession(predictor, clip.frames)
        session.add_mask(0, clip.mask(0, others))
        session.add_mask(JOINS, joining)
        session.remove_object(label, frame_index=GOES)
        seen = [index for index, labels in run(session).items() if label in labels]
        first_and_last = [seen[0], seen[-1]] if seen else [None, None]
        done["object that joins on 20 and goes on 50 is seen"] = [*first_and_last, len(seen)]
    elif others:
        notes.append(f"no object joins, since object {label} is not on frame 20.")
    return done, notes


def format_report(content: dict[str, Any]) -> str:
    """The lines to print."""
    scores: dict[str, dict[str, float]] = content["J&F"]
    complete = [row for row in scores.values() if len(row) == len(DIRECTIONS)]
    mean = {d: float(np.mean([row[d] for row in complete])) for d in DIRECTIONS if complete}
    lines = [f"{'J&F':18}" + "".join(f"{d:>11}" for d in DIRECTIONS)]
    for name, row in [*scores.items(), ("mean", mean)]:
        cells = [f"{row[d]:.3f}" if d in row else "-" for d in DIRECTIONS]
        lines.append(f"{name:18}" + "".join(f"{cell:>11}" for cell in cells))
    for name, done in content["edits"].items():
        lines.append(f"{name}: " + "; ".join(f"{what}: {value}" for what, value in done.items()))
    return "\n".join([*lines, *(f"note: {note}" for note in content["notes"])])


if __name__ == "__main__":
    sys.exit(main())
