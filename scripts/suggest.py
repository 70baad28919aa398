"""Suggest the frames of a video whose masks should be corrected next, with a reason each.

    python scripts/suggest.py --video clip.mp4 --mask masks --model saves/stcn_small.pth

The video is segmented from the given masks. The script prints the frames whose correction is
expected to improve the masks most, the best one first. Correct the first one, add its mask to the
folder, and run the script again. The reasons are

- low confidence: the mask of an object is unreliable;
- the two directions disagree: it differs between forward and backward propagation;
- looks unlike any annotated frame: nothing similar is in memory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.shared.paths import output_file
from util.command_line import script_parser
from util.hyper_para import EvalSettings
from util.plugins import add_plugin_option


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    add_plugin_option(parser, argv)
    parser.add_argument(
        "--video", type=Path, required=True, help="video file, or folder of its frames"
    )
    parser.add_argument(
        "--mask",
        type=Path,
        required=True,
        help="mask of the first frame, or folder of masks named like their frames",
    )
    parser.add_argument(
        "--model",
        default="saves/stcn_small.pth",
        help="file of weights (default: saves/stcn_small.pth)",
    )
    parser.add_argument(
        "--direction",
        choices=("forwards", "backwards", "both"),
        default="both",
        help="direction of propagation (default: both)",
    )
    parser.add_argument("--num", type=int, default=5, help="number of suggestions (default: 5)")
    parser.add_argument(
        "--size", type=int, default=480, help="shorter side in pixels; 0: native (default: 480)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument(
        "--amp", action="store_true", help="half precision: float16 on GPUs, bfloat16 on CPUs"
    )
    parser.add_argument("--json", type=output_file, metavar="FILE", help="also write them here")
    arguments = parser.parse_args(argv)
    if arguments.num < 1:
        parser.error(f"--num must be at least 1; it is {arguments.num}.")
    return arguments


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import numpy as np
import progressbar

from annotator.suggestions import MAX_CANDIDATES, FrameMeasures, Suggestion, composite_key, suggest
from datasets.generic import one_video
from datasets.video import Video
from inference.clip_session import ClipSession
from inference.predictor import Predictor
from scripts.experiments.directions import DecodedFrames
from util.files import write_json


def main(argv: Sequence[str] | None = None) -> int:
    """Segment, suggest, print, write; return the exit status."""
    arguments = parse(argv)
    try:
        settings = EvalSettings(
            model=arguments.model,
            output="-",
            size=arguments.size,
            device=arguments.device,
            amp=arguments.amp,
        )
        video = one_video(arguments.video, arguments.mask)
        found = find(video, Predictor(settings), arguments.direction, arguments.num)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = [describe(suggestion, video) for suggestion in found]
    for row in rows:
        where = f", object {row['label']}" if row["label"] else ""
        print(f"frame {row['frame']} ({row['name']}): {row['reason']}{where}")
    if not rows:
        print("There is no frame to suggest: each one is annotated, or next to one that is.")
    if arguments.json:
        write_json(arguments.json, {"suggestions": rows})
    return 0


def find(video: Video, predictor: Predictor, direction: str, num: int) -> list[Suggestion]:
    """Segment a video from its annotations and suggest frames; show a progress bar."""
    session = ClipSession(predictor, DecodedFrames(video))
    for index in video.annotated_labels:
        annotation = video[index].annotation
        assert annotation is not None
        session.add_mask(index, annotation)
    measures: dict[int, FrameMeasures] = {}
    keys: dict[int, np.ndarray] = {}
    step = -(-len(video) // MAX_CANDIDATES)
    steps = len(video) * (2 if direction == "both" else 1)
    with progressbar.ProgressBar(max_value=steps) as bar:
        for result in session.propagate_results(direction):
            bar.increment()
            if result is None:
                continue
            measures[result.index] = FrameMeasures(
                result.confidence, result.quality, result.agreement
            )
            is_kept = result.index % step == 0 or result.index in video.annotated_labels
            if result.key is not None and is_kept:
                keys[result.index] = composite_key(result.key, (result.labels > 0)[None])
    return suggest(measures, keys, video.annotated_labels, num)


def describe(suggestion: Suggestion, video: Video) -> dict[str, Any]:
    """Describe a suggestion in plain values, with the name of its frame."""
    return {**suggestion._asdict(), "name": video.frame_names[suggestion.frame]}


if __name__ == "__main__":
    sys.exit(main())
