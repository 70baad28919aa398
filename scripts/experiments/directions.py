"""Compare propagation forwards, backwards and in both directions; measure what edits change.

    python scripts/experiments/directions.py --davis_path data/DAVIS --year 2016 \\
        --model saves/stcn_small.pth

Forwards starts from the mask of the first frame, backwards from that of the last frame, both from
both masks. The frames between them are scored. Two edits follow on clips of more than 50 frames: a
mask is corrected on frame 40; the last of several objects is added on frame 20 and removed on frame
50. The script counts the frames that change, and the frames with the added object.

An object that is not on the last frame cannot be propagated backwards and is not scored. The table
ends with notes about skipped objects, clips and edits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.experiments.davis_options import davis_parser
from scripts.shared.paths import output_file
from util.hyper_para import EvalSettings


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = davis_parser(__doc__, argv, year=2017)
    parser.add_argument(
        "--size", type=int, default=0, help="shorter side in pixels (default: 0, no resizing)"
    )
    parser.add_argument(
        "--amp", action="store_true", help="half precision: float16 on GPUs, bfloat16 on CPUs"
    )
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="also write the results here"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import numpy as np
import progressbar

from datasets.davis import at_480p, davis_2016, davis_2017
from datasets.video import Video
from evaluation.metrics import evaluate_frame
from evaluation.predictions import Convention, read_ground_truth
from evaluation.protocols import find_split
from inference.clip_session import ClipSession
from inference.predictor import Predictor
from inference_core_yv import InferenceCoreYV
from util.files import write_json
from util.provenance import describe_run

ADDED_FRAME, CORRECTED_FRAME, REMOVED_FRAME = 20, 40, 50
ADDED_OBJECT = "first, last and number of frames with the object added on 20 and removed on 50"
DIRECTIONS = ("forwards", "backwards", "both")


class DecodedFrames:
    """Frames of a video, decoded at each access."""

    def __init__(self, video: Video) -> None:
        self._video = video

    def __len__(self) -> int:
        return len(self._video)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._video[index].image


class AnnotatedClip(NamedTuple):
    """A clip with ground truth on every frame."""

    name: str
    frames: DecodedFrames
    ground_truth: Callable[[int], np.ndarray]  # frame -> (H, W) uint8
    labels: list[int]

    def mask(self, index: int, labels: Sequence[int]) -> np.ndarray:
        """Return the ground truth (H, W) uint8 of some objects; other objects are background."""
        ground_truth = self.ground_truth(index)
        return np.where(np.isin(ground_truth, labels), ground_truth, 0).astype(np.uint8)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; return the exit status."""
    arguments = parse(argv)
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


def read_clips(davis_path: Path, year: int, split: str) -> list[AnnotatedClip]:
    """Open all videos of a split with their ground truth.

    Raises:
        ValueError, OSError: files are missing or cannot be read.
    """
    annotations = at_480p(find_split(davis_path, year, split)[0] / "Annotations")
    videos = davis_2016(davis_path, split) if year == 2016 else davis_2017(davis_path, split)

    def ground_truth_of(video: Video) -> Callable[[int], np.ndarray]:
        files = [annotations / video.name / f"{name}.png" for name in video.frame_names]
        return lambda index: read_ground_truth(files[index], Convention(year))

    return [
        AnnotatedClip(
            v.name, DecodedFrames(v), ground_truth_of(v), [1] if year == 2016 else v.labels
        )
        for v in videos
    ]


def measure(clips: Sequence[AnnotatedClip], predictor: Predictor) -> dict[str, Any]:
    """Measure J&F of each clip and direction and the effects of the edits, and collect notes."""
    scores: dict[str, dict[str, float]] = {}
    edits: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    with progressbar.ProgressBar(max_value=sum(len(clip.frames) for clip in clips)) as bar:
        for clip in clips:
            scores[clip.name], effects, clip_notes = measure_clip(clip, predictor)
            if effects:
                edits[clip.name] = effects
            notes += [f"{clip.name}: {note}" for note in clip_notes]
            bar.increment(len(clip.frames))
    return {"J&F": scores, "edits": edits, "notes": notes}


def measure_clip(
    clip: AnnotatedClip, predictor: Predictor
) -> tuple[dict[str, float], dict[str, Any], list[str]]:
    """Measure one clip: J&F by direction, effects of the edits, notes."""
    last = len(clip.frames) - 1
    if last < 2:
        return {}, {}, ["skipped, because there is no frame between the first and the last."]
    last_ground_truth = clip.ground_truth(last)
    scored = [label for label in clip.labels if label in last_ground_truth]
    notes = [
        f"object {label} is not scored, because it is not on the last frame."
        for label in clip.labels
        if scored and label not in scored
    ]
    if not scored:
        notes.append(
            "only forwards is scored, and not in the mean, because no object is on the last frame."
        )
    scores: dict[str, float] = {}
    label_maps: dict[str, dict[int, np.ndarray]] = {}
    for direction in DIRECTIONS if scored else DIRECTIONS[:1]:
        session = ClipSession(predictor, clip.frames)
        for index in {"forwards": [0], "backwards": [last], "both": [0, last]}[direction]:
            session.add_mask(index, clip.mask(index, clip.labels))
        label_maps[direction] = propagate(session, direction)
        scores[direction] = score(clip, label_maps[direction], scored or clip.labels)
    effects: dict[str, Any] = {}
    if len(clip.frames) > REMOVED_FRAME:
        effects, edit_notes = edit(clip, predictor, label_maps["forwards"], scored or clip.labels)
        notes += edit_notes
    return scores, effects, notes


def propagate(session: ClipSession, direction: str = "forwards") -> dict[int, np.ndarray]:
    """Propagate the annotations; return the label maps (H, W) uint8 by frame."""
    return dict(session.propagate(direction))


def score(clip: AnnotatedClip, label_maps: dict[int, np.ndarray], labels: Sequence[int]) -> float:
    """Mean J&F of some objects over all frames except the first and the last."""
    inner = range(1, len(clip.frames) - 1)
    return float(
        np.mean([evaluate_frame(label_maps[i], clip.ground_truth(i), labels) for i in inner])
    )


def edit(
    clip: AnnotatedClip, predictor: Predictor, before: dict[int, np.ndarray], scored: Sequence[int]
) -> tuple[dict[str, Any], list[str]]:
    """Correct a mask; add and remove an object.

    Args:
        before: label maps of the clip without edits, forwards.
        scored: objects to score.

    Returns:
        Effects of the edits; notes about edits that were skipped.
    """
    effects: dict[str, Any] = {}
    notes: list[str] = []
    correction = clip.mask(CORRECTED_FRAME, clip.labels)
    if correction.any():
        session = ClipSession(predictor, clip.frames)
        session.add_mask(0, clip.mask(0, clip.labels))
        session.add_mask(CORRECTED_FRAME, correction)
        after = propagate(session)
        changed = [index for index in before if (before[index] != after[index]).any()]
        effects |= {
            "changed before frame 40": sum(index < CORRECTED_FRAME for index in changed),
            "changed from frame 40 on": sum(index >= CORRECTED_FRAME for index in changed),
            "frames from 40 on": len(before) - CORRECTED_FRAME,
            "J&F before and after": [score(clip, maps, scored) for maps in (before, after)],
        }
    else:
        notes.append("no mask is corrected, because no object is on frame 40.")
    *others, label = clip.labels
    addition = clip.mask(ADDED_FRAME, [label])
    if others and addition.any():
        session = ClipSession(predictor, clip.frames)
        session.add_mask(0, clip.mask(0, others))
        session.add_mask(ADDED_FRAME, addition)
        session.remove_object(label, frame_index=REMOVED_FRAME)
        shown = [index for index, labels in propagate(session).items() if label in labels]
        first_and_last = [shown[0], shown[-1]] if shown else [None, None]
        effects[ADDED_OBJECT] = [*first_and_last, len(shown)]
    elif others:
        notes.append(f"no object is added, because object {label} is not on frame 20.")
    return effects, notes


def format_report(content: dict[str, Any]) -> str:
    """Format the table of scores, the effects of the edits and the notes."""
    scores: dict[str, dict[str, float]] = content["J&F"]
    complete = [row for row in scores.values() if len(row) == len(DIRECTIONS)]
    mean = {d: float(np.mean([row[d] for row in complete])) for d in DIRECTIONS if complete}
    lines = [f"{'J&F':18}" + "".join(f"{d:>11}" for d in DIRECTIONS)]
    for name, row in [*scores.items(), ("mean", mean)]:
        cells = [f"{row[d]:.3f}" if d in row else "-" for d in DIRECTIONS]
        lines.append(f"{name:18}" + "".join(f"{cell:>11}" for cell in cells))
    for name, effects in content["edits"].items():
        values = "; ".join(f"{effect}: {value}" for effect, value in effects.items())
        lines.append(f"{name}: {values}")
    return "\n".join([*lines, *(f"note: {note}" for note in content["notes"])])


if __name__ == "__main__":
    sys.exit(main())
