"""The notebook runs from the first to the last cell, in a kernel of its own."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "own_video.ipynb"


@pytest.mark.parametrize(("num_frames", "changed"), [(8, "4 to 7")])
def test_the_notebook_runs(num_frames: int, changed: str) -> None:
    """Also on a shorter video, and in a folder with a space in its name."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) == 10
    for cell, old, new in (
        (code[0], "mkdtemp()", "mkdtemp(prefix='own video ')"),
        (code[1], "make_clip(40,", f"make_clip({num_frames},"),
    ):
        assert old in cell.source
        cell.source = cell.source.replace(old, new)
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    outputs = [[output.output_type for output in cell.outputs] for cell in code]
    assert "display_data" in outputs[3]  # the first frame with its mask
    assert "execute_result" in outputs[-1]
    printed = "".join(o.text for o in code[7].outputs if o.output_type == "stream")
    assert f"changed: frames {changed}" in printed
