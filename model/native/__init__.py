"""C++ for CPUs, compiled once for a machine at its first use (some seconds), and kept in the
user's cache.

Where there is no compiler, or what it made does not compute what torch does, torch computes
everything itself, and a warning says so once.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

_FOLDER = Path(__file__).parent
_SOURCES = ("winograd.cpp", "best_rows.cpp", "enlarge.cpp")
_HEADERS = ("vectors.h",)
_OPTIONS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
_COMPILERS = ("c++", "g++", "clang++")
_COMPILE_SECONDS = 300


def build() -> ctypes.CDLL:
    """The library for this machine: from the cache, or compiled now.

    Raises:
        OSError, ValueError: it cannot be had, and why.
    """
    if not sys.platform.startswith("linux"):
        raise ValueError("they are built on Linux alone.")
    path = _cache() / f"native-{_fingerprint()}.so"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _compile(path)
        return ctypes.CDLL(str(path))
    except (PermissionError, FileNotFoundError, NotADirectoryError):  # for this process alone, then
        with tempfile.TemporaryDirectory() as name:
            path = Path(name, path.name)
            _compile(path)
            return ctypes.CDLL(str(path))


def _compile(path: Path) -> None:
    compilers = [os.environ.get("CXX", ""), *_COMPILERS]
    compiler = next((found for name in compilers if name and (found := shutil.which(name))), None)
    if compiler is None:
        raise ValueError("there is no C++ compiler (install g++, or name one in CXX).")
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        made = Path(name, path.name)
        sources = [str(_FOLDER / source) for source in _SOURCES]
        try:
            subprocess.run(
                [compiler, *_OPTIONS, *sources, "-o", str(made)],
                check=True,
                capture_output=True,
                text=True,
                timeout=_COMPILE_SECONDS,
            )
        except subprocess.SubprocessError as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise ValueError(f"{compiler} does not build them: {said[0]}") from error
        made.replace(path)  # at once, whatever other processes do


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "vos"


def _fingerprint() -> str:
    """Of all that a compiled library depends on: homes are shared by machines of many kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    kinds = ("flags", "Features", "model name", "CPU part")
    cpu = sorted({line for line in lines if line.startswith(kinds)})
    sources = [(_FOLDER / name).read_text() for name in (*_SOURCES, *_HEADERS)]
    parts = [*sources, *_OPTIONS, os.environ.get("CXX", ""), *cpu]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def pointer(tensor: torch.Tensor | None) -> int | None:
    """Address of a tensor's first element; the caller sees to its layout."""
    return None if tensor is None else tensor.data_ptr()
