"""How far masks of other precisions agree with those of float32, and what each costs.

    python scripts/experiments/precisions.py --davis_path data/DAVIS --year 2016 --model saves/stcn_small.pth

Every frame is segmented in float32, in float32 as torch computes it (--exact), with memory in half
precision (--mem_half) and in the device's half precision, by predictor that each follow their own
masks. The table has the mean intersection over union with float32's masks, and frames a second
without I/O.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import progressbar
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets.davis import davis_2016, davis_2017
from datasets.video import Video
from evaluation.metrics import region_similarity
from inference.labels import label_map
from inference.predictor import Predictor
from inference.tracker import Tracker
from model.checkpoint import load_for_inference
from util.files import write_json
from util.hyper_para import EvalSettings
from util.provenance import describe_run

VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "exact": {"exact": True},
    "mem_half": {"mem_half": True},
    "half": {"amp": True},
}


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--davis_path", type=Path, required=True)
    parser.add_argument("--year", type=int, choices=(2016, 2017), default=2016)
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", default="saves/stcn_small.pth")
    parser.add_argument("--frames", type=int, help="of each video at most")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures here")
    arguments = parser.parse_args(argv)
    if arguments.frames is not None and arguments.frames < 2:
        parser.error("--frames must be at least 2: the first one is given")
    if arguments.json and arguments.json.is_dir():
        parser.error(f"--json {arguments.json} is a folder: name a file")
    if arguments.json and arguments.json.parent.exists() and not arguments.json.parent.is_dir():
        parser.error(f"--json {arguments.json}: {arguments.json.parent} is no folder")
    try:
        settings = EvalSettings(model=arguments.model, output="-", device=arguments.device)
        read = davis_2016 if arguments.year == 2016 else davis_2017
        videos = read(arguments.davis_path, arguments.split)
        network = load_for_inference(arguments.model)
        predictor = {
            name: Predictor(replace(settings, **options), network=network)
            for name, options in VARIANTS.items()
        }
        rows = measure(videos, predictor, arguments.frames)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(format_table(rows, predictor))
    if arguments.json:
        write_json(arguments.json, {"rows": rows, **describe_run(predictor["float32"].settings)})
    return 0


def measure(
    videos: Sequence[Video], predictor: dict[str, Predictor], most: int | None
) -> dict[str, dict[str, Any]]:
    """Variant -> agreement of each video, and frames a second of all."""
    rows: dict[str, dict[str, Any]] = {name: {"IoU": {}} for name in predictor}
    seconds, num_frames = dict.fromkeys(predictor, 0.0), 0
    lengths = [min(len(video), most or len(video)) for video in videos]
    with progressbar.ProgressBar(max_value=sum(lengths)) as bar:
        for video, length in zip(videos, lengths, strict=True):
            trackers = {
                name: Tracker(each, length, len(video.labels)) for name, each in predictor.items()
            }
            agreements: dict[str, list[float]] = {name: [] for name in predictor}
            for index in range(length):
                masks = {
                    name: _step(t, predictor[name], video, index) for name, t in trackers.items()
                }
                for name, mask in masks.items():
                    if index:  # the first one is given
                        agreements[name] += _agreement(mask, masks["float32"], video.labels)
                bar.increment()
            num_frames += length
            for name, tracker in trackers.items():
                seconds[name] += tracker.seconds
                rows[name]["IoU"][video.name] = float(np.mean(agreements[name]))
    for name, row in rows.items():
        row["mean IoU"] = float(np.mean([*row["IoU"].values()]))
        row["FPS"] = num_frames / seconds[name]
    return rows


def _step(tracker: Tracker, predictor: Predictor, video: Video, index: int) -> np.ndarray:
    """(h, w) uint8 labels of a frame."""
    torch.backends.cudnn.allow_tf32 = not predictor.settings.exact
    frame = video[index]
    prob = tracker.step(frame.image, frame.annotation)
    assert prob is not None
    return label_map(prob, tracker.labels, frame.image.shape[:2])


def _agreement(mask: np.ndarray, other: np.ndarray, labels: Sequence[int]) -> list[float]:
    return [region_similarity(mask == label, other == label) for label in labels]


def format_table(rows: dict[str, dict[str, Any]], predictor: dict[str, Predictor]) -> str:
    """The lines to print."""
    names = [*rows]
    titles = [
        name if name != "half" else str(predictor[name].network.dtype).removeprefix("torch.")
        for name in names
    ]
    lines = [f"{'IoU with float32':22}" + "".join(f"{title:>10}" for title in titles)]
    for video in rows["float32"]["IoU"]:
        lines.append(f"{video:22}" + "".join(f"{rows[n]['IoU'][video]:10.4f}" for n in names))
    for figure, form in (("mean IoU", "10.4f"), ("FPS", "10.2f")):
        lines.append(f"{figure:22}" + "".join(format(rows[n][figure], form) for n in names))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
