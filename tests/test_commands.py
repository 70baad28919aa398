"""Every command answers --help before it imports torch, numpy or other slow packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmarks.bench_startup import find_commands

ROOT = Path(__file__).resolve().parents[1]
SLOW = ("torch", "torchvision", "numpy", "cv2", "matplotlib", "scipy")
COMMANDS = find_commands(ROOT)

CODE = """
import runpy, sys
sys.path.insert(0, sys.argv[2])  # as `python COMMAND` does
slow, command = sys.argv[1].split(","), sys.argv[3]
sys.argv = [command, "--help"]
try:
    runpy.run_path(command, run_name="__main__")
except SystemExit as error:
    status = error.code
imported = [name for name in slow if name in sys.modules]
assert not imported, imported
sys.exit(status)
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_slow(command: str, tmp_path: Path) -> None:
    path = ROOT / command
    result = subprocess.run(
        [sys.executable, "-c", CODE, ",".join(SLOW), str(path.parent), str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"usage: {path.name}")


def test_importing_a_command_does_not_import_slow_parts_of_torch() -> None:
    """`torch._dynamo` takes longer to import than torch itself; torchvision.models imports it."""
    modules = [name.removesuffix(".py").replace("/", ".") for name in COMMANDS]
    code = f"""
import importlib, sys
sys.path.insert(0, {str(ROOT)!r})
import torch
before = {{*sys.modules}}
for name in {modules!r}:
    importlib.import_module(name)
slow = [m for m in ("torch._dynamo", "torchvision.models") if m in sys.modules and m not in before]
assert not slow, slow
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
