"""Measure how fast the annotator answers, in headless chromium.

    python scripts/benchmarks/bench_annotator.py --json out/annotator.json
    python scripts/benchmarks/bench_annotator.py --long out/long.mp4

The clips are drawn. The script prints a Markdown table with the median and the 95th percentile of
each time, from the event of mouse or key to the painted result, and with the targets:

stroke     brush to screen
hint       stroke inside or outside to the watershed's preview
refine     key to GrabCut's preview
propagate  key to the first propagated mask
fps        frames per second of a propagation, relative to the tracker alone; the two alternate
seek       to a random frame that the page does not have
memory     of the server, after every --step-th frame of the file of --long was fetched

Memory, and seeks in a long file, need --long. It names a video file, which is drawn if it does not
exist: 18,000 frames of 1080p, several minutes and 1 GB or so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.shared.paths import output_file
from util.command_line import script_parser

PARTS = ("stroke", "hint", "refine", "propagate", "fps", "seek", "memory")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument(
        "--parts", nargs="+", default=PARTS, choices=PARTS, help="what to measure (default: all)"
    )
    parser.add_argument(
        "--heights",
        type=int,
        nargs="*",
        default=[480, 1080],
        help="of the drawn clips, with an aspect ratio of 16:9 (default: 480 1080)",
    )
    parser.add_argument(
        "--frames", type=int, default=60, help="number of frames of a drawn clip (default: 60)"
    )
    parser.add_argument(
        "--long", type=output_file, metavar="FILE", help="long video file, drawn if it is missing"
    )
    parser.add_argument(
        "--long_frames",
        type=int,
        default=18_000,
        help="number of frames of a long file that is drawn (default: 18000)",
    )
    parser.add_argument(
        "--long_height", type=int, default=1080, help="its height in pixels (default: 1080)"
    )
    parser.add_argument(
        "--step", type=int, default=10, help="distance of the frames of memory (default: 10)"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=20,
        help="number of strokes, hints, previews and seeks; a quarter of it for propagations "
        "(default: 20)",
    )
    parser.add_argument(
        "--model", default="saves/stcn_small.pth", help="weights (default: saves/stcn_small.pth)"
    )
    parser.add_argument(
        "--size", type=int, default=480, help="working size of propagations (default: 480)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="also write the table here"
    )
    arguments = parser.parse_args(argv)
    if min([*arguments.heights, arguments.long_height]) < 64:
        parser.error("--heights and --long_height must be at least 64.")
    if min(arguments.repeats, arguments.step) < 1:
        parser.error("--repeats and --step must be at least 1.")
    if min(arguments.frames, arguments.long_frames) < 8:
        parser.error("--frames and --long_frames must be at least 8.")
    return arguments


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import numpy as np

from inference.predictor import Predictor
from scripts.benchmarks import annotator_measures as measures
from scripts.benchmarks.annotator_clips import write_frames, write_long_file
from scripts.shared.annotator_page import (
    AnnotatorPage,
    missing_software,
    new_context,
    open_browser,
)
from scripts.shared.annotator_process import AnnotatorProcess
from util.files import write_json
from util.hyper_para import EvalSettings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Part -> what the table calls it, its unit, and its target (at 480p, where the targets differ).
NAMES = {
    "stroke": ("stroke to screen", "ms", "16"),
    "hint": ("hint to mask", "ms", "100 at 480p"),
    "refine": ("GrabCut preview", "ms", "400"),
    "propagate": ("key to first propagated mask", "ms", "1500 at 480p"),
    "fps": ("propagation, relative to the tracker", "", "at least 0.9"),
    "seek": ("seek to a random frame", "ms", "300"),
    "memory": ("server memory", "MB", "below 1500"),
}


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    part: str
    clip: str
    values: list[float]  # in the unit of NAMES
    note: str = ""

    def format(self) -> str:
        """Format as a line of a Markdown table."""
        name, unit, target = NAMES[self.part]
        digits = 2 if self.part == "fps" else 0 if min(self.values) >= 100 else 1
        middle, high = np.percentile(self.values, [50, 95])
        texts = [f"{middle:.{digits}f}", f"{high:.{digits}f}"]
        if len(self.values) == 1:
            texts[1] = ""
        name = f"{name}, {unit}" if unit else name
        count = f"{len(self.values)}{self.note}"
        return f"| {name} | {self.clip} | {texts[0]} | {texts[1]} | {target} | {count} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a table; return the exit status."""
    arguments = parse(argv)
    problem = missing_software()
    if not Path(arguments.model).is_file():
        problem = f"There are no weights {arguments.model}: name a file with --model."
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print("| what | clip | median | 95th percentile | target | values |", flush=True)
    print("|---|---|---:|---:|---|---|", flush=True)
    rows = []
    try:
        for row in _measure(arguments):
            print(row.format(), flush=True)
            rows.append(asdict(row))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        write_json(arguments.json, {"rows": rows})
    return 0


def _measure(arguments: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name, open_browser() as browser:
        for height in arguments.heights:
            yield from _measure_clip(arguments, browser, Path(name, str(height)), height)
        if arguments.long and {"seek", "memory"} & {*arguments.parts}:
            yield from _measure_long(arguments, browser, Path(name, "long"))


def _measure_clip(
    arguments: argparse.Namespace, browser: Browser, folder: Path, height: int
) -> Iterator[Row]:
    """Measure all parts that drawn clips have, in an order in which each part finds its masks."""
    clip, parts, repeats = f"{height}p", arguments.parts, arguments.repeats
    masks = write_frames(folder / "clip", arguments.frames, (height, _width(height)))
    few = max(repeats // 4, 1)
    with _serve(arguments, folder / "clip", folder / "session") as server:
        page = _open(browser, server)
        if "hint" in parts:
            yield Row("hint", clip, measures.measure_hints(page, masks[0], repeats))
        measures.draw_object(page, masks[0])
        if "refine" in parts:
            yield Row("refine", clip, measures.measure_refinements(page, repeats))
        if "propagate" in parts:
            yield Row("propagate", clip, measures.measure_first_masks(page, few))
        if "fps" in parts:
            settings = EvalSettings(
                model=arguments.model, size=arguments.size, device=arguments.device, amp=True
            )
            ours, alone = measures.measure_fps(
                page, folder / "clip", masks[0], Predictor(settings), few
            )
            ratios = [a / b for a, b in zip(ours, alone, strict=True)]
            note = f" ({np.median(ours):.2f} and {np.median(alone):.2f} frames/s)"
            yield Row("fps", clip, ratios, note)
        if "stroke" in parts:
            yield Row("stroke", clip, measures.measure_strokes(page, masks[0], repeats))
        if "seek" in parts:
            yield Row("seek", clip, measures.measure_seeks(page, repeats))
        page.page.context.close()


def _measure_long(arguments: argparse.Namespace, browser: Browser, folder: Path) -> Iterator[Row]:
    """Measure seeks and memory on the long file."""
    height = arguments.long_height
    if not arguments.long.exists():
        write_long_file(arguments.long, arguments.long_frames, (height, _width(height)))
    with _serve(arguments, arguments.long, folder / "session") as server:
        session = server.client.get("/api/session")
        clip = f"{session['height']}p, {session['num_frames']} frames"
        if "seek" in arguments.parts:
            page = _open(browser, server)
            yield Row("seek", clip, measures.measure_seeks(page, arguments.repeats))
            page.page.context.close()
        if "memory" in arguments.parts:
            memory = measures.walk(server, arguments.step)
            if memory is not None:
                yield Row("memory", clip, [memory / 1e6])


def _width(height: int) -> int:
    """Width of a clip of 16:9; even, as H.264 needs."""
    return 2 * round(height * 8 / 9)


def _serve(arguments: argparse.Namespace, clip: Path, session: Path) -> AnnotatorProcess:
    flags = ["--model", arguments.model, "--size", str(arguments.size)]
    return AnnotatorProcess(clip, session, flags=[*flags, "--device", arguments.device])


def _open(browser: Browser, server: AnnotatorProcess) -> AnnotatorPage:
    """Open the session in a window of its own."""
    return AnnotatorPage(new_context(browser), server.client.page_address, [])


if __name__ == "__main__":
    sys.exit(main())
