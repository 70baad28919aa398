"""Draw the training curves of one or more runs to a PNG: loss, IoU and learning rate.

    python scripts/plot_log.py saves/run [saves/next_run ...] --output curves.png

Several runs are drawn one after the other, as stages of one training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.command_line import script_parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs: <save_dir>/<id>")
    parser.add_argument("--output", type=Path, required=True, help="PNG file to write")
    parser.add_argument(
        "--window",
        type=int,
        default=2,
        help="smooth over this number of points on both sides (default: 2)",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import numpy as np

from util.figures import new_figure, save_figure

CURVES = {"total_loss": "loss", "iou": "IoU of the last frame", "lr": "learning rate"}


def read_scalars(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one curve of a run from its TensorBoard log: iterations and values, (N,) each.

    Raises:
        ValueError: the folder has no log, or the log has no such curve.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}: give <save_dir>/<id>.")
    events = EventAccumulator(str(folder)).Reload()
    if f"train/{name}" not in events.Tags()["scalars"]:
        raise ValueError(
            f"{folder} has no TensorBoard log with train/{name}: give <save_dir>/<id>."
        )
    points = events.Scalars(f"train/{name}")
    return np.array([p.step for p in points]), np.array([p.value for p in points])


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
        for panel, (name, title) in zip(panels, CURVES.items(), strict=True):
            start = 0
            for run in arguments.runs:
                steps, values = read_scalars(run, name)
                line = panel.plot(start + steps, values, alpha=0.3)[0]
                # The learning rate changes in steps, which smoothing would blur.
                shown = values if name == "lr" else smooth(values, arguments.window)
                panel.plot(start + steps, shown, color=line.get_color(), label=run.name)
                start += int(steps[-1])
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
