"""Annotate DAVIS clips through the annotator's page by a robot that sees the ground truth.

    python scripts/experiments/annotate_robot.py --davis_path data/DAVIS --year 2016 \\
        --sequences car-shadow libby

The robot works in headless chromium with pointer and keyboard. It outlines each object of the first
frame by 24 points with the polygon tool and propagates. It then corrects the frame that the page
suggests first: it clears the mask, outlines the object again and propagates into all gaps. The
table has J&F after each correction, of all frames except the first and the last.

Needs playwright (pip install playwright) and chromium.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.shared.paths import output_file
from util.command_line import script_parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--davis_path", type=Path, required=True, help="folder of DAVIS")
    parser.add_argument(
        "--year", type=int, choices=(2016, 2017), default=2016, help="edition (default: 2016)"
    )
    parser.add_argument(
        "--sequences", nargs="+", required=True, metavar="NAME", help="clips to annotate"
    )
    parser.add_argument(
        "--corrections", type=int, default=5, help="corrected frames per clip (default: 5)"
    )
    parser.add_argument(
        "--points", type=int, default=24, help="points of an outline, at least 4 (default: 24)"
    )
    parser.add_argument(
        "--model", default="saves/stcn_small.pth", help="weights (default: saves/stcn_small.pth)"
    )
    parser.add_argument(
        "--size", type=int, default=480, help="shorter side in pixels (default: 480)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument(
        "--timeout", type=float, default=1800, help="seconds for a propagation (default: 1800)"
    )
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="also write the results here"
    )
    arguments = parser.parse_args(argv)
    if arguments.corrections < 0:
        parser.error(f"--corrections must be at least 0; it is {arguments.corrections}.")
    if arguments.points < 4:
        parser.error(f"--points must be at least 4; it is {arguments.points}.")
    return arguments


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import numpy as np

from datasets.davis import at_480p, find_2016, find_2017
from evaluation.metrics import evaluate_frame, region_similarity
from evaluation.predictions import Convention, read_ground_truth
from scripts.experiments.outlines import outline
from scripts.experiments.robot_page import RobotPage
from scripts.shared.annotator_page import missing_software, new_context, open_browser
from scripts.shared.annotator_process import AnnotatorProcess, Client
from util.files import write_json
from util.images import list_frames
from util.masks import labels_of


class Clip(NamedTuple):
    """A clip with ground truth on every frame."""

    name: str
    folder: Path
    num_frames: int
    ground_truth: Callable[[int], np.ndarray]  # frame -> (H, W) uint8
    labels: list[int]  # of the first frame


def main(argv: Sequence[str] | None = None) -> int:
    """Annotate, print, write; return the exit status."""
    arguments = parse(argv)
    if missing_software():
        print(f"error: {missing_software()}", file=sys.stderr)
        return 2
    try:
        clips = find_clips(arguments.davis_path, arguments.year, arguments.sequences)
        rows = {clip.name: annotate(clip, arguments) for clip in clips}
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(format_table(rows, arguments.corrections))
    if arguments.json:
        names = ("year", "points", "model", "size")
        settings = {name: getattr(arguments, name) for name in names}
        write_json(arguments.json, {"settings": settings, "clips": rows})
    return 0


def find_clips(davis_path: Path, year: int, names: Sequence[str]) -> list[Clip]:
    """Find clips and their ground truth.

    Raises:
        ValueError, OSError: files are missing or cannot be read.
    """
    base, _ = find_2016(davis_path) if year == 2016 else find_2017(davis_path, "val")
    frames, masks = at_480p(base / "JPEGImages"), at_480p(base / "Annotations")
    clips = []
    for name in names:
        files = [masks / name / f"{file.stem}.png" for file in list_frames(frames / name)]
        missing = [file for file in files if not file.is_file()]
        if missing or len(files) < 3:
            raise ValueError(
                f"The clip {name} needs at least 3 frames with ground truth each: "
                + (f"{missing[0]} is missing." if missing else f"it has {len(files)}.")
            )

        def ground_truth(index: int, files: list[Path] = files) -> np.ndarray:
            return read_ground_truth(files[index], Convention(year))

        labels = labels_of(ground_truth(0))
        clips.append(Clip(name, frames / name, len(files), ground_truth, labels))
    return clips


def annotate(clip: Clip, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Annotate a clip; return a dict for the first frame and for each correction.

    Raises:
        ValueError, TimeoutError: server or page failed.
    """
    flags = ["--model", arguments.model, "--size", str(arguments.size)]
    flags += ["--device", arguments.device]
    problems: list[str] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        AnnotatorProcess(clip.folder.resolve(), Path(folder), flags=flags) as server,
        open_browser() as browser,
        contextlib.closing(new_context(browser)) as context,
    ):
        page = RobotPage(context, server.client.page_address, problems)
        steps = _correct(page, server.client, clip, arguments)
    if problems:
        raise ValueError(f"The page of {clip.name} had errors: {'; '.join(problems)}")
    return steps


def _correct(
    page: RobotPage, client: Client, clip: Clip, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Annotate the first frame, then the suggested ones; propagate and score after each."""
    steps: list[dict[str, Any]] = []
    suggestion: dict[str, Any] | None = {"frame": 0, "label": 0}
    while suggestion is not None and len(steps) <= arguments.corrections:
        frame, label = suggestion["frame"], suggestion["label"]
        # A suggestion with label 0 concerns all objects.
        labels = [label] if label else [*range(1, len(clip.labels) + 1)]
        outlines = [_draw(page, client, clip, frame, label, arguments.points) for label in labels]
        seconds = page.fill_gaps(arguments.timeout)
        scores = score(client, clip)
        print(
            f"{clip.name}, {len(steps)} corrections, frame {frame}: J&F "
            f"{100 * scores['J&F']:.1f}, propagated in {seconds:.0f} s",
            file=sys.stderr,
        )
        steps.append({**suggestion, **scores, "outlines": outlines, "seconds": seconds})
        suggestion = page.go_to_suggestion()
    return steps


def _draw(
    page: RobotPage, client: Client, clip: Clip, frame: int, label: int, num_points: int
) -> float:
    """Replace the mask of an object; return the IoU of the outline.

    label: of the page, which counts the objects of the ground truth from 1.
    """
    mask = clip.ground_truth(frame) == clip.labels[label - 1]
    page.choose(label)
    if (client.labels(frame) == label).any():
        page.press("Delete")
        page.wait_saved()
    if not mask.any():
        page.press("Shift+Delete")  # marks the object as absent
        page.wait_saved()
        return 1.0
    distance = page.look_at(mask)
    page.draw_polygons(outline(mask, num_points, distance))
    return region_similarity(client.labels(frame) == label, mask)


def score(client: Client, clip: Clip) -> dict[str, float]:
    """Mean J, F and J&F of all objects over all frames except the first and the last."""
    table = np.array([0, *clip.labels], np.uint8)
    values = [
        evaluate_frame(table[client.labels(index)], clip.ground_truth(index), clip.labels)
        for index in range(1, clip.num_frames - 1)
    ]
    region, boundary = np.mean(values, axis=(0, 1)).tolist()
    return {"J": region, "F": boundary, "J&F": (region + boundary) / 2}


def format_table(rows: dict[str, list[dict[str, Any]]], num_corrections: int) -> str:
    """Format a Markdown table: J&F of each clip after 0, 1, ... corrections, and the frames."""
    numbers = range(num_corrections + 1)
    lines = ["| clip | " + " | ".join(map(str, numbers)) + " | corrected frames |"]
    lines.append("|---|" + "---:|" * len(numbers) + "---|")
    for name, steps in rows.items():
        cells = [f"{100 * step['J&F']:.1f}" for step in steps]
        cells += ["-"] * (len(numbers) - len(steps))
        frames = ", ".join(str(step["frame"]) for step in steps[1:]) or "-"
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {frames} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
