"""Score predicted masks by region similarity J and boundary accuracy F.

    python scripts/evaluate.py --results_path out/davis17 --davis_path data/DAVIS/2017
    python scripts/evaluate.py --results_path out/davis16 --davis_path data/DAVIS --year 2016
    python scripts/evaluate.py --results_path out/yv19 --yv_path data/YouTube
    python scripts/evaluate.py --results_path out/mine --ground_truth_path annotations

DAVIS: the official semi-supervised protocol of davis2017-evaluation. The first and the last frame
are not scored. 2017: the objects are the labels of the first annotation. Pixels of 255 (void) count
as background, as in the official code. 2016: one object, where the ground truth is above 127 and
the prediction is not 0. A prediction may have any labels, but soft masks, with values on both sides
of 127, are refused.

YouTube-VOS and other folders: the first ground-truth mask that shows an object is its annotation.
The object is scored on all later frames with ground truth. 255 is void, as above, unless a sequence
has no other label. YouTube-VOS: objects and frames are those of meta.json, and G is the average of
J and F over seen and unseen categories. The public sets contain only the annotations and cannot be
scored here.

Only the first annotation of each object is not scored. Further masks that a run was given, for
corrections, backwards or both, are scored like predictions. scripts/experiments/directions.py
scores neither end of a video.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.command_line import script_parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument(
        "--results_path",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of predictions, <sequence>/<frame>.png, palette or grey",
    )
    ground_truth = parser.add_mutually_exclusive_group(required=True)
    ground_truth.add_argument(
        "--davis_path",
        type=Path,
        metavar="DIR",
        help="score DAVIS. 2017: folder that contains trainval, or trainval itself; 2016: folder "
        "that contains 2016/Annotations and 2017/trainval/ImageSets/2016",
    )
    ground_truth.add_argument(
        "--yv_path",
        type=Path,
        metavar="DIR",
        help="score YouTube-VOS: folder that contains <split>/Annotations and <split>/meta.json",
    )
    ground_truth.add_argument(
        "--ground_truth_path",
        type=Path,
        metavar="DIR",
        help="score any folder of ground-truth masks, <sequence>/<frame>.png; or masks of one "
        "sequence directly in DIR, with predictions directly in --results_path",
    )
    parser.add_argument(
        "--year", type=int, choices=(2016, 2017), help="edition of DAVIS (default: 2017)"
    )
    parser.add_argument(
        "--split",
        help="DAVIS: list in ImageSets (default: val); YouTube-VOS: folder (default: valid)",
    )
    parser.add_argument(
        "--train_meta",
        type=Path,
        metavar="FILE",
        help="YouTube-VOS: meta.json of the training set, whose categories are the seen ones "
        "(default: train/meta.json or train_480p/meta.json in --yv_path)",
    )
    parser.add_argument(
        "--image_path",
        type=Path,
        metavar="DIR",
        help="images for --figures with --ground_truth_path, in the same layout (default: grey)",
    )
    parser.add_argument(
        "--resize",
        action="store_true",
        help="resize predictions to the size of their ground truth, by nearest neighbour",
    )
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="CSV file of objects, sequences and averages (default: all_results-<split>.csv in "
        "--results_path, for DAVIS with the two official files; all_results.csv without a split)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="also write all scores, those of every frame, and the settings of the run that made "
        "the masks",
    )
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="DIR",
        help="also draw J and F over the frames of each sequence, and worst.png, the frames with "
        "the lowest J&F (prediction above ground truth)",
    )
    parser.add_argument(
        "--num_workers",
        type=int,
        default=os.cpu_count() or 1,
        help="number of processes (default: all cores)",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

from evaluation.figures import draw_figures
from evaluation.predictions import Selection
from evaluation.protocols import select_davis, select_folders, select_youtube
from evaluation.report import (
    Scores,
    format_table,
    write_global_csv,
    write_object_csv,
    write_scores_json,
)
from evaluation.scoring import score

# Option that names the ground truth -> options that belong to it.
MODES = {
    "davis_path": ("year", "split"),
    "yv_path": ("split", "train_meta"),
    "ground_truth_path": ("image_path",),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Score and report; return the exit status: 0, or 2 for wrong input."""
    arguments = parse(argv)
    started = time.perf_counter()
    try:
        selection = _select(arguments)
        scores = score(selection, arguments.num_workers)
        print(format_table(scores))
        for warning in scores.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        written = _write_csv(arguments, scores)
        if arguments.json is not None:
            record = {"scoring": vars(arguments), "run": _read_run(arguments.results_path)}
            write_scores_json(arguments.json, scores, record)
            written.append(arguments.json)
        if arguments.figures is not None:
            written.append(draw_figures(selection, scores, arguments.figures))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Scored {len(scores.objects)} objects in {time.perf_counter() - started:.1f} s.")
    sequences, worst = scores.sequences, scores.worst_first[:3]
    if len(sequences) > len(worst):
        print("Worst: " + ", ".join(f"{n} {sequences[n].mean:.3f}" for n in worst) + ".")
    print("Saved " + " and ".join(map(str, written)) + ".")
    return 0


def _select(arguments: argparse.Namespace) -> Selection:
    """Select what to score; raise ValueError for an option that does nothing."""
    (mode,) = (name for name in MODES if getattr(arguments, name) is not None)
    for option in sorted({*itertools.chain(*MODES.values())} - {*MODES[mode]}):
        if getattr(arguments, option) is not None:
            raise ValueError(f"--{option} does nothing with --{mode}: remove it.")
    if arguments.image_path is not None and arguments.figures is None:
        raise ValueError("--image_path does nothing without --figures: remove it or add --figures.")
    results, resize = arguments.results_path, arguments.resize
    if mode == "ground_truth_path":
        return select_folders(results, arguments.ground_truth_path, arguments.image_path, resize)
    if mode == "yv_path":
        arguments.split = arguments.split or "valid"
        return select_youtube(
            results, arguments.yv_path, arguments.split, arguments.train_meta, resize
        )
    arguments.split, arguments.year = arguments.split or "val", arguments.year or 2017
    return select_davis(results, arguments.davis_path, arguments.year, arguments.split, resize)


def _write_csv(arguments: argparse.Namespace, scores: Scores) -> list[Path]:
    """Write the CSV files and return their paths."""
    results = arguments.results_path
    ending = f"-{arguments.split}.csv" if arguments.split else ".csv"
    paths = [arguments.csv or results / f"all_results{ending}"]
    try:
        write_object_csv(paths[0], scores, with_means=True)
        if arguments.csv is None and arguments.davis_path is not None:
            paths += [results / f"{name}_results{ending}" for name in ("global", "per-sequence")]
            write_global_csv(paths[1], scores)
            write_object_csv(paths[2], scores)
    except OSError as error:
        raise ValueError(
            f"The scores cannot be written to {paths[0]} ({error.strerror}): choose another file "
            "with --csv."
        ) from error
    return paths


def _read_run(results_path: Path) -> object:
    """Record of the run that made the masks; None if no eval script wrote one."""
    try:
        return json.loads((results_path / "run.json").read_text())["runs"][-1]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


if __name__ == "__main__":
    sys.exit(main())
