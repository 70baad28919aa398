"""Writing matplotlib figures to files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from util.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure that needs no display and no closing; sizes are in inches."""
    from matplotlib.figure import Figure  # here, because a command may end without drawing

    return Figure(figsize=(width, height))


def save_figure(figure: Figure, path: Path, dpi: int = 100) -> None:
    """Apply a tight layout and write the figure to a PNG atomically.

    dpi: pixels per inch.
    """
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
