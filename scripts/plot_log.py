"""Draw the training curves of one or more runs to a PNG: loss, IoU and learning rate.

    python scripts/plot_log.py saves/run [saves/next_run ...] --output curves.png

Several runs are drawn one after the other, as stages of one training. With --compare, each run is
drawn from iteration 0. Dotted lines show where a run was resumed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.shared.paths import output_file
from util.command_line import script_parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs: <save_dir>/<id>")
    parser.add_argument("--output", type=output_file, required=True, help="PNG file to write")
    parser.add_argument(
        "--compare", action="store_true", help="draw the runs over each other, from iteration 0"
    )
    parser.add_argument(
        "--window",
        type=int,
        default=2,
        help="smooth over this number of points on both sides (default: 2)",
    )
    arguments = parser.parse_args(argv)
    if arguments.window < 0:
        parser.error(f"--window must be at least 0; it is {arguments.window}.")
    return arguments


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import numpy as np

from util.figures import new_figure, save_figure

CURVES = {"total_loss": "loss", "iou": "IoU of the last frame", "lr": "learning rate"}


def read_curves(folder: Path) -> np.ndarray:
    """Read the log of a run, log.jsonl: the iteration and the values of CURVES, (1 + curves, N).

    Raises:
        ValueError: the folder has no log, or the log lacks a curve.
    """
    path = folder / "log.jsonl"
    if not path.is_file():
        raise ValueError(f"There is no log {path}: give the folder of a run, <save_dir>/<id>.")
    points = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
            points.append([float(values[name]) for name in ("iteration", *CURVES)])
        except ValueError:  # a truncated line of a killed run
            continue
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path} has no values of {', '.join(CURVES)}: give the folder of a run."
            ) from error
    if not points:
        raise ValueError(f"{path} is empty: wait for the first line of the log.")
    return np.array(points).T


def read_resumes(folder: Path) -> list[int]:
    """Read from which iterations a run was resumed, from its environment.json."""
    path = folder / "environment.json"
    if not path.is_file():
        return []
    try:
        starts = [int(start["iteration"]) for start in json.loads(path.read_text("utf-8"))]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not list the starts of a run: {error}.") from error
    return sorted({start for start in starts if start > 0})


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Average each value with `window` values on both sides; the end values are repeated."""
    padded = np.pad(values, window, mode="edge")
    kernel = np.ones(2 * window + 1) / (2 * window + 1)
    return np.convolve(padded, kernel, mode="valid")


def main(argv: Sequence[str] | None = None) -> int:
    """Draw one panel per curve; return the exit status: 0, or 2 for wrong input."""
    arguments = parse(argv)
    figure = new_figure(8, 8)
    panels = figure.subplots(len(CURVES), 1, sharex=True)
    try:
        start = 0
        names = [run.resolve().name for run in arguments.runs]
        for number, run in enumerate(arguments.runs):
            steps, *curves = read_curves(run)
            label = names[number] if names.count(names[number]) == 1 else str(run)
            for panel, name, values in zip(panels, CURVES, curves, strict=True):
                line = panel.plot(start + steps, values, alpha=0.3)[0]
                # The learning rate changes in steps, which smoothing would blur.
                shown = values if name == "lr" else smooth(values, arguments.window)
                panel.plot(start + steps, shown, color=line.get_color(), label=label)
                for resumed in read_resumes(run):
                    panel.axvline(start + resumed, color=line.get_color(), linestyle=":")
            if not arguments.compare:
                start += int(steps[-1])
        for panel, title in zip(panels, CURVES.values(), strict=True):
            panel.set_ylabel(title)
            panel.grid(alpha=0.3)
        panels[0].legend()
        panels[-1].set_xlabel("iteration")
        save_figure(figure, arguments.output)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
