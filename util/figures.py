"""Writing matplotlib figures to files."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from util.files import atomic_path


def save_figure(figure: Figure, path: Path, dpi: int = 100) -> None:
    """Apply a tight layout, write the figure to a PNG atomically, and close it.

    dpi: pixels per inch.
    """
    try:
        figure.tight_layout()
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=dpi)
    finally:
        plt.close(figure)
