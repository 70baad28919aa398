"""Compare the masks and the speed of other precisions with those of float32.

    python scripts/experiments/precisions.py --davis_path data/DAVIS --year 2016 \\
        --model saves/stcn_small.pth

Every video is segmented four times: in float32, in float32 with torch's own convolutions (--exact),
with memory in half precision (--mem_half), and in the half precision of the device. The table has
the mean intersection over union with the masks of float32, and frames per second without file
access.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.experiments.davis_options import davis_parser
from scripts.shared.paths import output_file
from util.hyper_para import EvalSettings


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = davis_parser(__doc__, argv, year=2016)
    parser.add_argument(
        "--frames", type=int, help="largest number of frames of each video (default: all)"
    )
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="also write the results here"
    )
    arguments = parser.parse_args(argv)
    if arguments.frames is not None and arguments.frames < 2:
        parser.error("--frames must be at least 2: the first frame has an annotation.")
    return arguments


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import numpy as np
import progressbar
import torch

from datasets.davis import davis_2016, davis_2017
from datasets.video import Video
from evaluation.metrics import region_similarity
from inference.labels import label_map
from inference.predictor import Predictor
from inference.tracker import Tracker
from model.checkpoint import load_for_inference
from util.files import write_json
from util.provenance import describe_run

VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "exact": {"exact": True},
    "mem_half": {"mem_half": True},
    "half": {"amp": True},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; return the exit status."""
    arguments = parse(argv)
    try:
        settings = EvalSettings(model=arguments.model, output="-", device=arguments.device)
        read = davis_2016 if arguments.year == 2016 else davis_2017
        videos = read(arguments.davis_path, arguments.split)
        network = load_for_inference(arguments.model)
        predictors = {
            name: Predictor(replace(settings, **options), network=network)
            for name, options in VARIANTS.items()
        }
        rows = measure(videos, predictors, arguments.frames)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(format_table(rows, predictors))
    if arguments.json:
        write_json(arguments.json, {"rows": rows, **describe_run(predictors["float32"].settings)})
    return 0


def measure(
    videos: Sequence[Video], predictors: Mapping[str, Predictor], max_frames: int | None
) -> dict[str, dict[str, Any]]:
    """Measure the IoU with float32 of each video, and frames per second, by variant."""
    rows: dict[str, dict[str, Any]] = {name: {"IoU": {}} for name in predictors}
    seconds, num_frames = dict.fromkeys(predictors, 0.0), 0
    lengths = [min(len(video), max_frames or len(video)) for video in videos]
    with progressbar.ProgressBar(max_value=sum(lengths)) as bar:
        for video, length in zip(videos, lengths, strict=True):
            trackers = {
                name: Tracker(predictor, length, len(video.labels))
                for name, predictor in predictors.items()
            }
            ious: dict[str, list[float]] = {name: [] for name in predictors}
            for index in range(length):
                masks = {
                    name: _step(t, predictors[name], video, index) for name, t in trackers.items()
                }
                for name, mask in masks.items():
                    if index:  # the first frame has an annotation
                        ious[name] += _ious(mask, masks["float32"], video.labels)
                bar.increment()
            num_frames += length
            for name, tracker in trackers.items():
                seconds[name] += tracker.seconds
                rows[name]["IoU"][video.name] = float(np.mean(ious[name]))
    for name, row in rows.items():
        row["mean IoU"] = float(np.mean([*row["IoU"].values()]))
        row["FPS"] = num_frames / seconds[name]
    return rows


def _step(tracker: Tracker, predictor: Predictor, video: Video, index: int) -> np.ndarray:
    """Segment the next frame; return its label map (h, w) uint8."""
    torch.backends.cudnn.allow_tf32 = not predictor.settings.exact
    frame = video[index]
    prob = tracker.step(frame.image, frame.annotation)
    assert prob is not None
    return label_map(prob, tracker.labels, frame.image.shape[:2])


def _ious(mask: np.ndarray, other: np.ndarray, labels: Sequence[int]) -> list[float]:
    return [region_similarity(mask == label, other == label) for label in labels]


def format_table(rows: Mapping[str, dict[str, Any]], predictors: Mapping[str, Predictor]) -> str:
    """Format the table: a column for each variant, a line for each video."""
    names = [*rows]
    titles = [
        name if name != "half" else str(predictors[name].network.dtype).removeprefix("torch.")
        for name in names
    ]
    lines = [f"{'IoU with float32':22}" + "".join(f"{title:>10}" for title in titles)]
    for video in rows["float32"]["IoU"]:
        lines.append(f"{video:22}" + "".join(f"{rows[n]['IoU'][video]:10.4f}" for n in names))
    for result, spec in (("mean IoU", "10.4f"), ("FPS", "10.2f")):
        lines.append(f"{result:22}" + "".join(format(rows[n][result], spec) for n in names))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
