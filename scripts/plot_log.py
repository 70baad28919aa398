"""Draw the curves of training runs to a PNG.

    python scripts/plot_log.py saves/run [saves/next_run ...] --output curves.png

Runs are drawn one after the other, as the stages of one training.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.figures import save_figure

CURVES = {"total_loss": "loss", "iou": "IoU of the last frame", "lr": "learning rate"}


def read_scalars(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Iterations and values of one curve of a run.

    Raises:
        ValueError: the folder holds no log, or none of that curve.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}: give <save_dir>/<id>.")
    events = EventAccumulator(str(folder)).Reload()
    if f"train/{name}" not in events.Tags()["scalars"]:
        raise ValueError(
            f"{folder} holds no TensorBoard log with train/{name}: give <save_dir>/<id>."
        )
    points = events.Scalars(f"train/{name}")
    return np.array([p.step for p in points]), np.array([p.value for p in points])


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Running mean over up to `window` values to both sides."""
    padded = np.pad(values, window, mode="edge")
    kernel = np.ones(2 * window + 1) / (2 * window + 1)
    return np.convolve(padded, kernel, mode="valid")


def main(argv: list[str] | None = None) -> int:
    """Draw one panel per curve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs: <save_dir>/<id>")
    parser.add_argument("--output", type=Path, required=True, help="PNG to write")
    parser.add_argument("--window", type=int, default=2, help="points to both sides to average")
    arguments = parser.parse_args(argv)
    plt.switch_backend("Agg")  # no display is needed
    figure, panels = plt.subplots(len(CURVES), 1, figsize=(8, 8), sharex=True)
    try:
        for panel, (name, title) in zip(panels, CURVES.items(), strict=True):
            start = 0
            for run in arguments.runs:
                steps, values = read_scalars(run, name)
                line = panel.plot(start + steps, values, alpha=0.3)[0]
                # A learning rate falls in steps, which smoothing would blur.
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
    finally:
        plt.close(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
