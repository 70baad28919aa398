"""3x3 convolutions of stride 1 on CPUs, with a quarter of the multiplications: see winograd.cpp.

The C++ is compiled once for a machine, at the first use (some seconds), and kept in the user's
cache. Where there is no compiler, or what it made does not compute what torch does, `library` gives
None, says so once, and everything runs on torch's own convolutions.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

_SOURCE = Path(__file__).with_suffix(".cpp")
_OPTIONS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
_COMPILERS = ("c++", "g++", "clang++")
_COMPILE_SECONDS = 300

logger = logging.getLogger(__name__)


class _Convolution(ctypes.Structure):
    """The C++ struct of the same name."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "weight", "bias", "add", "y", "scratch")),
        *((name, ctypes.c_int64) for name in ("batch", "height", "width", "channels", "out")),
        *((name, ctypes.c_int64) for name in ("add_batch", "relu_before", "relu_after")),
        *((name, ctypes.c_int64) for name in ("is_half", "multiplies_half", "threads")),
    ]


class Library:
    """What the compiled C++ offers.

    Args:
        path: of the shared library.
    """

    def __init__(self, path: Path) -> None:
        self._functions = ctypes.CDLL(str(path))
        whole, pointer, call = ctypes.c_int64, ctypes.c_void_p, ctypes.POINTER(_Convolution)
        for name, result, arguments in (
            ("lanes", whole, []),
            ("has_half", whole, []),
            ("packed_size", whole, [whole, whole]),
            ("pack", None, [pointer, whole, whole, pointer, whole]),
            ("scratch", whole, [call]),
            ("run", None, [call]),
        ):
            function = getattr(self._functions, f"winograd_{name}")
            function.restype, function.argtypes = result, arguments
        self.lanes: int = self._functions.winograd_lanes()
        self._has_half = bool(self._functions.winograd_has_half())

    def suits(self, weight: torch.Tensor) -> bool:
        """Whether weights (out, in, 3, 3) have numbers of channels that this machine can take."""
        out, channels = weight.shape[:2]
        return out % self.lanes == 0 and channels % self.lanes == 0 and out >= 64 <= channels

    def pack(self, weight: torch.Tensor, precise: bool = False) -> torch.Tensor:
        """Weights (out, in, 3, 3), float32 or bfloat16 -> what `convolve` takes: four times as
        large.

        precise: bfloat16 is multiplied as float32. Otherwise the transformed input is rounded to
        bfloat16 too, where the machine multiplies it, and errors are about three times those of a
        direct convolution.
        """
        out, channels = weight.shape[:2]
        pairs = weight.dtype == torch.bfloat16 and self._has_half and not precise
        weight = weight.float().contiguous(memory_format=torch.contiguous_format)
        packed = torch.empty(self._functions.winograd_packed_size(out, channels))
        self._functions.winograd_pack(_pointer(weight), out, channels, _pointer(packed), pairs)
        return packed.bfloat16() if pairs else packed

    def convolve(
        self,
        x: torch.Tensor,
        packed: torch.Tensor,
        out_channels: int,
        bias: torch.Tensor | None = None,
        add: torch.Tensor | None = None,
        relu_before: bool = False,
        relu_after: bool = False,
    ) -> torch.Tensor:
        """[relu](conv([relu](x)) + bias + add), with padding 1.

        Args:
            x: (B, C, h, w), float32 or bfloat16.
            packed: from `pack`, of weights of x's type.
            bias: (out_channels,) float32.
            add: (B, out_channels, h, w), or (1, ...) for all of the batch; of x's type.

        Returns:
            (B, out_channels, h, w), channels-last, of x's type.
        """
        batch, channels, height, width = x.shape
        x = x.contiguous(memory_format=torch.channels_last)
        if add is not None:
            add = add.contiguous(memory_format=torch.channels_last)
        y = torch.empty(
            (batch, out_channels, height, width), dtype=x.dtype, memory_format=torch.channels_last
        )
        call = _Convolution(
            _pointer(x), _pointer(packed), _pointer(bias), _pointer(add), _pointer(y), None,
            batch, height, width, channels, out_channels,
            1 if add is None else add.shape[0], relu_before, relu_after,
            x.dtype == torch.bfloat16, packed.dtype == torch.bfloat16, torch.get_num_threads(),
        )  # fmt: skip
        scratch = torch.empty(self._functions.winograd_scratch(ctypes.byref(call)))
        call.scratch = _pointer(scratch)
        self._functions.winograd_run(ctypes.byref(call))
        return y


@functools.cache
def library() -> Library | None:
    """The compiled library, or None where this machine cannot have it."""
    try:
        made = Library(_build())
        _check(made)
    except (OSError, ValueError) as error:
        logger.warning(
            "Convolutions run in torch's own, which take two to three times as long: %s", error
        )
        return None
    return made


def _build() -> Path:
    """The library for this machine: from the cache, or compiled now.

    Raises:
        OSError, ValueError: it cannot be had, and why.
    """
    if not sys.platform.startswith("linux"):
        raise ValueError("the faster ones are built on Linux alone.")
    folder = _cache()
    path = folder / f"winograd-{_fingerprint()}.so"
    if path.exists():
        return path
    compilers = [os.environ.get("CXX", ""), *_COMPILERS]
    compiler = next((found for name in compilers if name and (found := shutil.which(name))), None)
    if compiler is None:
        raise ValueError("there is no C++ compiler (install g++, or name one in CXX).")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        made = Path(name, path.name)
        try:
            subprocess.run(
                [compiler, *_OPTIONS, str(_SOURCE), "-o", str(made)],
                check=True,
                capture_output=True,
                text=True,
                timeout=_COMPILE_SECONDS,
            )
        except subprocess.SubprocessError as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise ValueError(f"{compiler} does not build {_SOURCE.name}: {said[0]}") from error
        made.replace(path)  # at once, whatever other processes do
    return path


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
    parts = [_SOURCE.read_text(), *_OPTIONS, os.environ.get("CXX", ""), *cpu]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _check(made: Library) -> None:
    """Raise ValueError where a library does not compute what torch does."""
    generator = torch.Generator().manual_seed(0)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 1e-1)):
        x, weight = (
            torch.randn(shape, generator=generator).to(dtype)
            for shape in ((1, 64, 5, 7), (80, 64, 3, 3))
        )
        with torch.no_grad():
            result = made.convolve(x, made.pack(weight / 24), 80).float()
            expected = F.conv2d(x.float(), weight.float() / 24, padding=1)
        if not torch.allclose(result, expected, atol=tolerance, rtol=tolerance):
            raise ValueError(f"those built here are wrong by {(result - expected).abs().max():g}.")


def _pointer(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
