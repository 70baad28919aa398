"""Selection of devices and precisions, memory sizes, and mixed precision."""

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
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")  # memory limit of a container on Linux
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # parameters of mallopt(3)
PRECISIONS = ("auto", *_DTYPES)


def pick_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """Select a device.

    Args:
        name: "auto" selects CUDA if available, else MPS, else the CPU.
        local_rank: index of the GPU, for names without an index.

    Raises:
        ValueError: the name is unknown, or the device is not available.
    """
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"{name!r} is not a device: use auto, cpu, cuda, cuda:0 or mps."
        ) from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise ValueError(
            f"torch {torch.__version__} finds no {device.type} device on this machine: use "
            f"--device auto, or install a build of torch that supports {device.type}."
        )
    if device.type == "cuda":
        index = local_rank if device.index is None else device.index
        if index >= torch.cuda.device_count():
            raise ValueError(
                f"There is no GPU {index}, torch finds {torch.cuda.device_count()}: start at most "
                "one process per GPU (--nproc_per_node), or check CUDA_VISIBLE_DEVICES."
            )
        device = torch.device("cuda", index)
    return device


def half_dtype(device: torch.device) -> torch.dtype:
    """Half precision of a device: float16 on GPUs (as published), bfloat16 on CPUs."""
    return torch.bfloat16 if device.type == "cpu" else torch.float16


def pick_dtype(precision: str, device: torch.device, use_half: bool) -> torch.dtype:
    """Select a precision by its name in PRECISIONS.

    Args:
        use_half: "auto" selects `half_dtype(device)` if true, else float32.

    Raises:
        ValueError: the name is unknown.
    """
    if precision == "auto":
        return half_dtype(device) if use_half else torch.float32
    if precision not in _DTYPES:
        raise ValueError(f"{precision!r} is not a precision: choose from {', '.join(PRECISIONS)}.")
    return _DTYPES[precision]


def peak_memory(device: torch.device) -> int:
    """Peak memory of this process so far, in bytes.

    On CUDA, it is the memory that torch allocated on the GPU. Elsewhere, it is the resident set,
    Python and all libraries included.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        # On Linux, getrusage starts at the peak of the parent process; VmHWM does not.
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)[0]) * 1024
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


@functools.cache
def total_memory(device: torch.device) -> int:
    """Total memory of a device in bytes; on a CPU, at most the limit of the container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(_CONTAINER_LIMIT.read_text()))
    except (OSError, ValueError):  # no container, or a limit of "max"
        return total


def tune(device: torch.device, exact: bool = False, benchmark: bool = False) -> None:
    """Configure this process for inference on a device.

    Args:
        exact: disable TF32 in convolutions on GPUs, which torch enables by default.
        benchmark: let cuDNN time its algorithms and select the fastest.
    """
    torch.backends.cudnn.benchmark = benchmark
    if exact:
        torch.backends.cudnn.allow_tf32 = False
    if device.type == "cpu":
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Make the C library reuse freed memory instead of returning it to the system.

    By default, glibc returns large arrays at every release and allocates them again as new pages,
    which the system must clear: up to a tenth of a frame's time. The kept memory serves only this
    process, and there is no way to return it.
    """
    change = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if change is not None:
        change(_M_MMAP_MAX, 0)
        change(_M_TRIM_THRESHOLD, -1)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor from the CPU to a device; to a GPU from pinned memory, without waiting."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class HostCopy:
    """A copy of a tensor to the CPU that waits for a GPU only when it is read.

    Args:
        tensor: a tensor on any device.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        is_on_gpu = tensor.device.type == "cuda"
        self._copy = tensor.to("cpu", non_blocking=is_on_gpu)  # torch pins its memory
        self._end: torch.cuda.Event | None = None
        if is_on_gpu:
            self._end = torch.cuda.Event()
            self._end.record(torch.cuda.current_stream(tensor.device))

    @property
    def is_complete(self) -> bool:
        """True if `read` will not wait."""
        return self._end is None or self._end.query()

    def read(self) -> torch.Tensor:
        """Return the copy."""
        if self._end is not None:
            self._end.synchronize()
        return self._copy


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Enable mixed precision for a forward pass; no effect for float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def full_precision(device: torch.device) -> AbstractContextManager:
    """Disable mixed precision inside a forward pass."""
    # The oldest supported torch has no autocast for MPS; the "meta" device has none at all.
    if device.type in ("mps", "meta") and not torch.is_autocast_enabled():
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
