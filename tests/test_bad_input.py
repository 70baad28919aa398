"""Wrong input to commands that run as processes: one sentence on stderr and no traceback.

The messages themselves are tested where they are made: tests/test_refused_options.py,
tests/test_readers.py, tests/test_checkpoint.py and the tests of the eval scripts and of training.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("eval_generic.py --output out --mem_evry 5", "did you mean --mem_every?"),
        ("eval_generic.py --output out --data_path nowhere", "nowhere"),
        ("train.py --id x --stage 3 --davis_root nowhere --yv_root nowhere", "nowhere"),
        (
            "scripts/benchmarks/bench_inference.py --output out --height 20 --width 20",
            "at least 32 pixels",
        ),
    ],
)
def test_wrong_input_ends_in_a_sentence(command: str, message: str, tmp_path: Path) -> None:
    """Commands are started in another folder than the repository."""
    script, *arguments = command.split()
    process = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 2, process.stderr
    assert message in process.stderr
    assert "error: " in process.stderr
    assert "Traceback" not in process.stderr
    assert not [*tmp_path.iterdir()]
