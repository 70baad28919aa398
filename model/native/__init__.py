"""C++ functions for CPUs.

They are compiled at their first use on a machine, in a second or two, and stored in the user's
cache. If there is no compiler, or their results differ from torch's, torch's own functions are used
instead, after one warning.
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
_SOURCES = ("winograd.cpp", "best_rows.cpp", "upsample.cpp")
_HEADERS = ("vectors.h",)
_OPTIONS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
_COMPILERS = ("c++", "g++", "clang++")
_COMPILE_SECONDS = 300


def build() -> ctypes.CDLL:
    """Load the library for this machine from the cache; compile it if it is not there.

    Raises:
        OSError, ValueError: it cannot be compiled or loaded.
    """
    if not sys.platform.startswith("linux"):
        raise ValueError("it supports Linux only.")
    name = f"native-{_fingerprint()}.so"
    try:
        path = _cache() / name
        if not _is_undamaged(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _compile(path)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError):  # the cache cannot be written: compile for this process alone
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            _compile(path)
            return ctypes.CDLL(str(path))


def _compile(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        compiled = Path(name, path.name)
        sources = [str(_FOLDER / source) for source in _SOURCES]
        command = [*_find_compiler(), *_OPTIONS, *sources, "-o", str(compiled)]
        try:
            subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=_COMPILE_SECONDS
            )
        except subprocess.CalledProcessError as error:
            lines = error.stderr.splitlines()
            messages = (
                [line for line in lines if "error" in line]
                or lines
                or [f"exit code {error.returncode}."]
            )
            raise ValueError(f"{command[0]} cannot compile it: {messages[0].strip()}") from error
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"{command[0]} took over {_COMPILE_SECONDS} s.") from error
        _digest_of(path).write_text(sha256(compiled))
        compiled.replace(path)  # atomic, so that other processes never load an incomplete file


def _find_compiler() -> list[str]:
    """Return the command of the C++ compiler: the environment variable CXX, or the first found."""
    chosen = shlex.split(os.environ.get("CXX", ""))
    if chosen and shutil.which(chosen[0]) is None:
        raise ValueError(
            f"the environment variable CXX names {chosen[0]}, which is not on the PATH."
        )
    default = next((path for name in _COMPILERS if (path := shutil.which(name))), None)
    if not chosen and default is None:
        raise ValueError(
            "there is no C++ compiler: install g++, or set the environment variable CXX."
        )
    return chosen or [str(default)]


def _is_undamaged(path: Path) -> bool:
    """Return True if a library is as it was written: loading half of one kills the process."""
    try:
        return sha256(path) == _digest_of(path).read_text()
    except FileNotFoundError:
        return False


def _digest_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _cache() -> Path:
    """Return the folder for compiled libraries.

    Raises:
        RuntimeError: the user has no home folder.
    """
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "vos"


def _fingerprint() -> str:
    """Hash everything that a compiled library depends on.

    The CPU is part of it, since different machines can share one home folder.
    """
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
    """Set result and argument types of functions: (name, result, arguments) each."""
    for name, result, arguments in functions:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


def pointer(tensor: torch.Tensor | None) -> int | None:
    """Address of a tensor's first element; the caller ensures its layout. None stays None."""
    return None if tensor is None else tensor.data_ptr()
