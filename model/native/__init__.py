"""C++ for CPUs, compiled once for a machine at its first use (a second or two), and kept in
the user's cache.

Where there is no compiler, or what it made does not compute what torch does, torch computes
everything itself, and a warning says so once.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from util.files import sha256

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
    name = f"native-{_fingerprint()}.so"
    try:
        path = _cache() / name
        if not _is_whole(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _compile(path)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError):  # no cache to write to: for this process alone, then
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            _compile(path)
            return ctypes.CDLL(str(path))


def _compile(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        made = Path(name, path.name)
        sources = [str(_FOLDER / source) for source in _SOURCES]
        command = [*_find_compiler(), *_OPTIONS, *sources, "-o", str(made)]
        try:
            subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=_COMPILE_SECONDS
            )
        except subprocess.CalledProcessError as error:
            lines = error.stderr.splitlines()
            said = (
                [line for line in lines if "error" in line]
                or lines
                or [f"it ends with {error.returncode}."]
            )
            raise ValueError(f"{command[0]} does not build them: {said[0].strip()}") from error
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"{command[0]} took over {_COMPILE_SECONDS} s.") from error
        _digest_of(path).write_text(sha256(made))
        made.replace(path)  # at once, whatever other processes do


def _find_compiler() -> list[str]:
    """The command that compiles: the user's CXX, or what there is."""
    asked = shlex.split(os.environ.get("CXX", ""))
    if asked and shutil.which(asked[0]) is None:
        raise ValueError(f"there is no {asked[0]}, which CXX names as the C++ compiler.")
    found = next((path for name in _COMPILERS if (path := shutil.which(name))), None)
    if not asked and found is None:
        raise ValueError("there is no C++ compiler (install g++, or name one in CXX).")
    return asked or [str(found)]


def _is_whole(path: Path) -> bool:
    """Whether a library is there as it was written: loading half of one kills the process."""
    try:
        return sha256(path) == _digest_of(path).read_text()
    except FileNotFoundError:
        return False


def _digest_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _cache() -> Path:
    """Raises RuntimeError where the user has no home."""
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
    parts = [*sources, *_OPTIONS, os.environ.get("CXX", ""), *platform.libc_ver(), *cpu]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def declare(library: ctypes.CDLL, *functions: tuple[str, Any, list[Any]]) -> None:
    """Tell ctypes of functions what they return and what they take."""
    for name, result, arguments in functions:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


def pointer(tensor: torch.Tensor | None) -> int | None:
    """Address of a tensor's first element; the caller sees to its layout."""
    return None if tensor is None else tensor.data_ptr()
