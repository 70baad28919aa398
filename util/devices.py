"""Devices and precisions: found automatically, or as asked for."""

from __future__ import annotations

import ctypes
import functools
import os
import re
import resource
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container's own, on Linux
# Of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
PRECISIONS = ("auto", *_DTYPES)


def pick_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU; a rank takes the GPU of its number.

    Raises:
        ValueError: the device asked for is not to be had here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{name!r} is no device: use auto, cpu, cuda, cuda:0 or mps.") from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise ValueError(
            f"There is no {device.type} device that torch {torch.__version__} can use on this "
            "machine: leave --device at auto, or install a build of torch with it."
        )
    if device.type == "cuda":
        index = local_rank if device.index is None else device.index
        if index >= torch.cuda.device_count():
            raise ValueError(
                f"GPU {index} was asked for, but there are {torch.cuda.device_count()}: start no "
                "more processes than GPUs (--nproc_per_node), or look at CUDA_VISIBLE_DEVICES."
            )
        device = torch.device("cuda", index)
    return device


def half_dtype(device: torch.device) -> torch.dtype:
    """The half precision that suits a device: float16 on GPUs (as published), bfloat16 on CPUs."""
    return torch.bfloat16 if device.type == "cpu" else torch.float16


def pick_dtype(precision: str, device: torch.device, use_half: bool) -> torch.dtype:
    """`auto` is the device's half precision where `use_half`, else float32.

    Raises:
        ValueError: no such precision.
    """
    if precision == "auto":
        return half_dtype(device) if use_half else torch.float32
    if precision not in _DTYPES:
        raise ValueError(f"{precision!r} is no precision: choose from {', '.join(PRECISIONS)}.")
    return _DTYPES[precision]


def peak_memory(device: torch.device) -> int:
    """Bytes at the peak so far: what torch had allocated on a GPU (CUDA); elsewhere the resident
    set of this process, Python and all libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        # On Linux getrusage goes on from the peak of the process that started this one.
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)[0]) * 1024
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


@functools.cache
def total_memory(device: torch.device) -> int:
    """Bytes that a device has, used ones included; on a CPU no more than its container may use."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(_CONTAINER_LIMIT.read_text()))
    except (OSError, ValueError):  # none, or "max"
        return total


def tune(device: torch.device, exact: bool = False, benchmark: bool = False) -> None:
    """Set up this process for inference on a device.

    Args:
        exact: no TF32 in convolutions on GPUs, which is torch's default; for the whole process.
        benchmark: cuDNN tries its algorithms first.
    """
    torch.backends.cudnn.benchmark = benchmark
    if exact:
        torch.backends.cudnn.allow_tf32 = False
    if device.type == "cpu":
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have the C library keep what it frees for what comes next.

    Otherwise glibc hands large arrays back to the system at every release and gets them as fresh
    pages, which must be cleared: up to a tenth of a frame's time. What is kept is used again by
    this process alone, and cannot be given back.
    """
    change = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if change is not None:
        change(_M_MMAP_MAX, 0)
        change(_M_TRIM_THRESHOLD, -1)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Mixed precision around a forward pass; nothing for float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def full_precision(device: torch.device) -> AbstractContextManager:
    """Mixed precision off, within a forward pass."""
    # MPS does not know autocast in the oldest torch we support, and "meta" has none.
    if device.type in ("mps", "meta") and not torch.is_autocast_enabled():
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
