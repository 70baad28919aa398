"""Score predicted masks by region similarity J and boundary accuracy F.

    python scripts/evaluate.py --results_path out/davis17 --davis_path data/DAVIS/2017
    python scripts/evaluate.py --results_path out/davis16 --davis_path data/DAVIS --year 2016
    python scripts/evaluate.py --results_path out/yv19 --yv_path data/YouTube
    python scripts/evaluate.py --results_path out/mine --ground_truth_path annotations

DAVIS: the official semi-supervised protocol of davis2017-evaluation: the first and the last frame
are not scored. 2017: the objects are the labels of the first frame's annotation; 255 (void) is no
object, so those pixels count as background in the ground_truth, as in the official code. 2016: one object,
where the annotation is above 127 and where the prediction is not 0, so that a prediction may hold 1
or 255 for it, or several labels; values on both sides of 127 are refused as soft.

YouTube-VOS and other folders: an object is scored on every annotated frame after the first one that
shows it, up to the last; frames without an annotation are not scored. 255 is void, as above, unless
it is a sequence's only label. YouTube-VOS: the objects of meta.json on the frames that it names,
and G, the mean of J and F of seen and unseen categories. The public sets hold the given masks alone
and cannot be scored here.

Only the first annotation of each object is left out: where a run was given more masks, as
corrections, backwards or both ways, those are scored as if they were predicted.
scripts/experiments/directions.py leaves out both ends.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evaluation.figures import draw_curves, draw_worst
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
from util.images import list_images, read_image

GREY = 128  # of the contact sheet where there are no images
# Flags that belong to one kind of annotations.
MODES = {
    "davis_path": ("year", "split"),
    "yv_path": ("split", "train_meta"),
    "ground_truth_path": ("image_path",),
}


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--results_path",
        type=Path,
        required=True,
        help="folder with <sequence>/<frame>.png, palette or grey",
    )
    ground_truth = parser.add_mutually_exclusive_group(required=True)
    ground_truth.add_argument(
        "--davis_path",
        type=Path,
        metavar="DIR",
        help="2017: the folder with trainval in it, or trainval itself; 2016: the folder with "
        "2016/Annotations and 2017/trainval/ImageSets/2016",
    )
    ground_truth.add_argument(
        "--yv_path",
        type=Path,
        metavar="DIR",
        help="the folder with <split>/Annotations and <split>/meta.json",
    )
    ground_truth.add_argument(
        "--ground_truth_path",
        type=Path,
        metavar="DIR",
        help="any annotations, <sequence>/<frame>.png, or those of one sequence right in DIR, and "
        "its predictions right in --results_path",
    )
    parser.add_argument("--year", type=int, choices=(2016, 2017), help="of DAVIS; by default 2017")
    parser.add_argument(
        "--split",
        help="DAVIS: name of the list in ImageSets, by default val; YouTube-VOS: by default valid",
    )
    parser.add_argument(
        "--train_meta",
        type=Path,
        metavar="FILE",
        help="YouTube-VOS: the training set's meta.json, whose categories are the seen ones; by "
        "default train/meta.json or train_480p/meta.json in --yv_path",
    )
    parser.add_argument(
        "--image_path",
        type=Path,
        metavar="DIR",
        help="with --ground_truth_path: the frames that --figures draws on, in folders as the annotations "
        "are; by default grey",
    )
    parser.add_argument(
        "--resize",
        action="store_true",
        help="resize predictions of another size to their annotation's, with nearest neighbours",
    )
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="write rows of objects, sequences and the whole here; by default to all_results.csv "
        "in the results folder, all_results-<split>.csv where there is a split, and for DAVIS the "
        "two official files beside it",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="also write all figures, those of every frame, and the settings of the run that made "
        "the masks",
    )
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="DIR",
        help="also draw J and F over the frames of each sequence, and worst.png, a contact sheet "
        "of the worst frames of the worst sequences (prediction above ground_truth)",
    )
    parser.add_argument(
        "--num_workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes that score sequences side by side",
    )
    return parser.parse_args(argv)


def _select(args: argparse.Namespace) -> Selection:
    """What is to be scored; raises ValueError for a flag that would do nothing."""
    (mode,) = (name for name in MODES if getattr(args, name) is not None)
    for flag in sorted({*itertools.chain(*MODES.values())} - {*MODES[mode]}):
        if getattr(args, flag) is not None:
            raise ValueError(f"--{flag} does nothing with --{mode}: leave it out.")
    if args.image_path is not None and args.figures is None:
        raise ValueError("--image_path does nothing without --figures: leave it out, or add that.")
    if mode == "ground_truth_path":
        return select_folders(
            args.results_path, args.ground_truth_path, args.image_path, args.resize
        )
    if mode == "yv_path":
        args.split = args.split or "valid"
        return select_youtube(
            args.results_path, args.yv_path, args.split, args.train_meta, args.resize
        )
    args.split, args.year = args.split or "val", args.year or 2017
    return select_davis(args.results_path, args.davis_path, args.year, args.split, args.resize)


def _write_csv(args: argparse.Namespace, scores: Scores) -> list[Path]:
    """Write the CSV files asked for and return their paths."""
    ending = f"-{args.split}.csv" if args.split else ".csv"
    everything = args.csv or args.results_path / f"all_results{ending}"
    paths = [everything]
    try:
        write_object_csv(everything, scores, with_means=True)
        if args.csv is None and args.davis_path is not None:
            paths += [
                args.results_path / f"{name}_results{ending}" for name in ("global", "per-sequence")
            ]
            write_global_csv(paths[1], scores)
            write_object_csv(paths[2], scores)
    except OSError as error:
        raise ValueError(
            f"The scores cannot be written to {paths[0]}: {error.strerror}; choose another place "
            "with --csv."
        ) from error
    return paths


def _draw(folder: Path, selection: Selection, scores: Scores) -> Path:
    """Curves of all sequences, and their worst frames; returns the path of the latter."""
    sequences = {sequence.name: sequence for sequence in selection.sequences}

    def read(name: str, frame: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sequence = sequences[name]
        prediction, ground_truth = sequence[scores.frames[name].index(frame)]
        if sequence.images is None:
            return np.full((*ground_truth.shape, 3), GREY, np.uint8), prediction, ground_truth
        images = list_images(sequence.images) if sequence.images.is_dir() else []
        path = next((path for path in images if path.stem == frame), None)
        if path is None:
            raise ValueError(
                f"{sequence.images} lacks frame {frame}, which --figures draws on: put the frames "
                "there, or leave --figures out."
            )
        return read_image(path), prediction, ground_truth

    draw_worst(scores, read, folder / "worst.png")
    draw_curves(scores, folder)
    return folder / "worst.png"


def _read_run(results_path: Path) -> dict[str, Any] | None:
    """What an eval script noted of the run that made the masks, if one did."""
    try:
        return json.loads((results_path / "run.json").read_text())["runs"][-1]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


def main(argv: list[str] | None = None) -> int:
    """Score and report; return the exit code: 0, or 2 for something the user can set right."""
    args = _parse_args(argv)
    started = time.perf_counter()
    try:
        selection = _select(args)
        scores = score(selection, args.num_workers)
        print(format_table(scores))
        for warning in scores.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        written = _write_csv(args, scores)
        if args.json is not None:
            record = {"scoring": vars(args), "run": _read_run(args.results_path)}
            write_scores_json(args.json, scores, record)
            written.append(args.json)
        if args.figures is not None:
            written.append(_draw(args.figures, selection, scores))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Scored {len(scores.objects)} objects in {time.perf_counter() - started:.1f} s.")
    worst = scores.worst_first[:3]
    if len(scores.sequences) > len(worst):
        print("Worst: " + ", ".join(f"{n} {scores.sequences[n].mean:.3f}" for n in worst) + ".")
    print("Saved " + " and ".join(map(str, written)) + ".")
    return 0


if __name__ == "__main__":
    sys.exit(main())
