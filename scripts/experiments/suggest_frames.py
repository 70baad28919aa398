"""Measure which choice of frames to correct improves the masks most.

    python scripts/experiments/suggest_frames.py --davis_path data/DAVIS --size 240 \\
        --output out/suggest_frames

Each clip starts with the ground truth of its first frame. Then, up to five times, a frame is chosen
and its ground truth is added, and the clip is propagated again. Frames are chosen by

- suggestions: annotator/suggestions.py, which sees the results of the propagation, no ground truth;
- uniform spacing: k corrections divide the clip into k + 1 equal parts;
- random: mean of several seeds;
- truly worst frame: the lowest J&F, which needs the ground truth of all frames.

J&F is the mean over all frames but the first and the last, as DAVIS scores. Corrected frames are
scored too: their masks are nearly perfect. If no object is on a chosen frame, the correction adds
nothing, but counts. The script writes suggest_frames.json, .md and .png. It stores each propagation
in the folder and resumes there, so that another rule for suggestions needs few new propagations.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.experiments.davis_options import davis_parser
from scripts.shared.paths import output_folder
from util.hyper_para import EvalSettings

STRATEGIES = ("suggestions", "uniform spacing", "random", "truly worst frame")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = davis_parser(__doc__, argv)
    parser.add_argument(
        "--years",
        type=int,
        nargs="+",
        choices=(2016, 2017),
        default=[2016, 2017],
        help="editions of DAVIS whose clips are measured (default: 2016 2017)",
    )
    parser.add_argument("--clips", nargs="+", help="names of the clips (default: all)")
    parser.add_argument(
        "--size", type=int, default=0, help="shorter side in pixels (default: 0, no resizing)"
    )
    parser.add_argument(
        "--direction",
        choices=("both", "forwards"),
        default="both",
        help="direction of propagation (default: both)",
    )
    parser.add_argument(
        "--corrections", type=int, default=5, help="most corrections of a clip (default: 5)"
    )
    parser.add_argument("--seeds", type=int, default=5, help="random choices (default: 5)")
    parser.add_argument(
        "--amp", action="store_true", help="half precision: float16 on GPUs, bfloat16 on CPUs"
    )
    parser.add_argument(
        "--output", type=output_folder, required=True, help="folder for results and propagations"
    )
    arguments = parser.parse_args(argv)
    for name in ("corrections", "seeds"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1; it is {getattr(arguments, name)}.")
    return arguments


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import numpy as np
import progressbar

from annotator.suggestions import suggest
from inference.predictor import Predictor
from inference_core_yv import InferenceCoreYV
from scripts.experiments.directions import AnnotatedClip, read_clips
from scripts.experiments.stored_runs import Frames, Runs, open_folder
from util.figures import new_figure, save_figure
from util.files import atomic_path, write_json
from util.provenance import describe_run


def by_suggestion(runs: Runs, annotated: Frames) -> Frames:
    """Add the frame that is suggested; nothing if none is."""
    measures, keys = runs.run(annotated).measures, runs.composite_keys(annotated)
    found = suggest(measures, keys, annotated, 1)
    return add(annotated, (suggestion.frame for suggestion in found))


def by_worst(runs: Runs, annotated: Frames) -> Frames:
    """Add the frame with the lowest J&F."""
    scores = runs.run(annotated).scores.copy()
    scores[[*annotated]] = 2
    return add(annotated, [int(scores.argmin())])


def add(annotated: Frames, frames: Iterable[int]) -> Frames:
    """Add frames to annotated ones."""
    return tuple(sorted({*annotated, *frames}))


def greedy(runs: Runs, choose: Callable[[Runs, Frames], Frames], num: int) -> list[Frames]:
    """Choose one frame after another: the annotated frames after 0 to `num` corrections."""
    chosen: list[Frames] = [(0,)]
    for _ in range(min(num, len(runs) - 1)):
        chosen.append(choose(runs, chosen[-1]))
    return chosen


def uniform(num_frames: int, num: int) -> list[Frames]:
    """First frames of equal parts of the clip, for 0 to `num` corrections."""
    return [
        add((0,), (round(part * num_frames / (k + 1)) for part in range(1, k + 1)))
        for k in range(min(num, num_frames - 1) + 1)
    ]


def random(name: str, num_frames: int, num: int, seed: int) -> list[Frames]:
    """Frames in random order, one more for each correction."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    order = rng.permutation(np.arange(1, num_frames)).tolist()
    return [add((0,), order[:k]) for k in range(min(num, len(order)) + 1)]


def measure_clip(
    runs: Runs, num: int, seeds: int, tick: Callable[[], object]
) -> dict[str, dict[str, Any]]:
    """Measure all strategies on one clip.

    Returns:
        Strategy -> {"J&F": after 0 to `num` corrections, "annotated": frames of the last one}.
    """
    name, length = runs.clip.name, len(runs)
    plans: dict[str, Callable[[], list[list[Frames]]]] = {
        "suggestions": lambda: [greedy(runs, by_suggestion, num)],
        "uniform spacing": lambda: [uniform(length, num)],
        "random": lambda: [random(name, length, num, seed) for seed in range(seeds)],
        "truly worst frame": lambda: [greedy(runs, by_worst, num)],
    }
    rows = {}
    for strategy, plan in plans.items():
        curves = []
        for frames in (chosen := plan()):
            curves.append([runs.run(annotated).mean for annotated in frames])
            tick()
        mean = np.mean(curves, 0).tolist()
        mean += mean[-1:] * (num + 1 - len(mean))  # all frames of a short clip are corrected
        rows[strategy] = {"J&F": mean, "annotated": [frames[-1] for frames in chosen]}
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, draw and write; return the exit status."""
    arguments = parse(argv)
    try:
        settings = EvalSettings(
            model=arguments.model,
            output="-",
            size=arguments.size,
            device=arguments.device,
            amp=arguments.amp,
        )
        clips = [
            clip
            for year in arguments.years
            for clip in read_clips(arguments.davis_path, year, arguments.split)
            if not arguments.clips or clip.name in arguments.clips
        ]
        if not clips:
            raise ValueError("There is no clip to measure: check --clips and --years.")
        predictor = Predictor(settings, InferenceCoreYV)
        stored = {"weights": predictor.weights_sha256}
        stored |= {name: getattr(arguments, name) for name in ("size", "amp", "direction")}
        folder = open_folder(arguments.output / "propagations", stored)
        content = measure(clips, predictor, arguments, folder)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    table = format_table(content)
    print(table)
    write_json(
        arguments.output / "suggest_frames.json",
        {"clips": content, "mean": means(content), **describe_run(predictor.settings)},
    )
    with atomic_path(arguments.output / "suggest_frames.md") as temporary:
        temporary.write_text(f"{table}\n", encoding="utf-8")
    draw(content, arguments.output / "suggest_frames.png")
    return 0


def measure(
    clips: Sequence[AnnotatedClip],
    predictor: Predictor,
    arguments: argparse.Namespace,
    folder: Path,
) -> dict[str, dict[str, Any]]:
    """Measure all clips: clip -> strategy -> results, see `measure_clip`."""
    content = {}
    # All strategies but "random" count once.
    total = len(clips) * (len(STRATEGIES) - 1 + arguments.seeds)
    with progressbar.ProgressBar(max_value=total) as bar:
        for clip in clips:
            runs = Runs(clip, predictor, arguments.direction, folder)
            content[clip.name] = measure_clip(
                runs, arguments.corrections, arguments.seeds, bar.increment
            )
    return content


def means(content: dict[str, dict[str, Any]]) -> dict[str, list[float]]:
    """Mean J&F over the clips by strategy, after 0, 1, ... corrections."""
    return {
        strategy: np.mean([rows[strategy]["J&F"] for rows in content.values()], 0).tolist()
        for strategy in STRATEGIES
    }


def format_table(content: dict[str, dict[str, Any]]) -> str:
    """Format a Markdown table: the mean over the clips, then each clip."""
    num = len(next(iter(means(content).values())))
    lines = [f"| clip | frames chosen by | {' | '.join(map(str, range(num)))} |"]
    lines.append("|---|---|" + "--:|" * num)
    mean = {strategy: {"J&F": curve} for strategy, curve in means(content).items()}
    for name, rows in [(f"mean of {len(content)}", mean), *content.items()]:
        for strategy in STRATEGIES:
            cells = (f"{100 * value:.1f}" for value in rows[strategy]["J&F"])
            lines.append(f"| {name} | {strategy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(content: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw J&F against corrections: the mean over the clips, and a small panel for each clip."""
    num_columns = 3
    num_rows = -(-len(content) // num_columns)
    figure = new_figure(11, 5.5 if num_rows <= 2 else 2.2 * num_rows)
    grid = figure.add_gridspec(num_rows, 2 + num_columns)
    panels = [(figure.add_subplot(grid[:, :2]), f"mean of {len(content)} clips", means(content))]
    for at, (name, rows) in enumerate(content.items()):
        cell = grid[at // num_columns, 2 + at % num_columns]
        curves = {strategy: rows[strategy]["J&F"] for strategy in STRATEGIES}
        panels.append((figure.add_subplot(cell), name, curves))
    for axes, title, curves in panels:
        for strategy, curve in curves.items():
            axes.plot(range(len(curve)), 100 * np.array(curve), marker="o", ms=3, label=strategy)
        axes.set_title(title, fontsize=9)
        axes.grid(alpha=0.3)
    panels[0][0].set(xlabel="corrected frames", ylabel="J&F")
    panels[0][0].legend()
    save_figure(figure, path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
