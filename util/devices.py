"""Devices, precisions and ranks: found automatically, or as asked for."""

from __future__ import annotations

import ctypes
import functools
import os
import re
import resource
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_JOIN_SECONDS = 1800
# A process with short videos waits so long for one with long ones.
_EVALUATION_TIME = timedelta(days=30)
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


@dataclass(frozen=True)
class Ranks:
    """This process among the others."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process logs and saves."""
        return self.rank == 0


def started_ranks() -> Ranks:
    """This process among those that torchrun or torch.distributed.launch started, if any."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Ranks()
    return Ranks(
        int(os.environ["RANK"]),
        int(os.environ.get("LOCAL_RANK", "0")),
        int(os.environ["WORLD_SIZE"]),
    )


def join_ranks(device_name: str = "auto", exchanges_on_cpu: bool = False) -> Ranks:
    """Join the other processes that torchrun or torch.distributed.launch started, if any.

    Args:
        exchanges_on_cpu: no tensors on GPUs will be exchanged, and processes may wait for each
            other for days.
    """
    ranks = started_ranks()
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return ranks
    device = pick_device(device_name, ranks.local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, world_size = next(rendezvous("env://"))
    store = dist.PrefixStore(_agree_on_start(store, rank, world_size), store)
    backend = "nccl" if device.type == "cuda" and not exchanges_on_cpu else "gloo"
    patience = _EVALUATION_TIME if exchanges_on_cpu else None
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=world_size, timeout=patience
    )
    return ranks


def _agree_on_start(store: dist.Store, rank: int, world_size: int) -> str:
    """A name that the processes of this start share, and those of earlier ones do not.

    torchrun keeps its store when it restarts processes, with the addresses of those that died; new
    processes that read them wait for the dead. How often a node has restarted is no name either:
    each node counts for itself. So every process calls out under a name of its own, which the first
    one answers with the name of the start until all have confirmed it.

    Raises:
        ValueError: some process did not come within half an hour.
    """
    own = uuid.uuid4().hex
    deadline = time.monotonic() + _JOIN_SECONDS
    if rank > 0:
        store.set(f"hello/{rank}", own)
        while not store.check([f"welcome/{own}"]):
            _wait(deadline)
        start = store.get(f"welcome/{own}").decode()
        store.set(f"confirmed/{start}/{rank}", "")
        return start
    waiting = {*range(1, world_size)}
    while waiting:
        for other in [*waiting]:
            if store.check([f"confirmed/{own}/{other}"]):
                waiting.remove(other)
            elif store.check([f"hello/{other}"]):
                # Perhaps of one that died: then nobody reads the answer, and a new call will come.
                store.set(f"welcome/{store.get(f'hello/{other}').decode()}", own)
        if waiting:
            _wait(deadline)
    return own


def _wait(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise ValueError("Not all processes have come: see what the others say, and start again.")
    time.sleep(0.02)


def was_restarted() -> bool:
    """Whether torchrun --max-restarts has started any of these processes again."""
    count = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    return any_over_ranks([count > 0], torch.device(_exchange_device()))[0]


def _exchange_device() -> str:
    return "cuda" if dist.is_initialized() and dist.get_backend() == "nccl" else "cpu"


def leave_ranks() -> None:
    """Undo `join_ranks`."""
    if dist.is_initialized():
        dist.destroy_process_group()


def any_over_ranks(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """For each flag, whether it is set in any process; all processes get the same answer."""
    if not dist.is_initialized():
        return [*flags]
    values = torch.tensor(flags, dtype=torch.float32, device=device)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return [value > 0 for value in values.tolist()]


ValueT = TypeVar("ValueT")


def gather_over_ranks(value: ValueT) -> list[ValueT]:
    """A value of each process (tensors on the CPU), in the order of the ranks, in every process."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def from_main(make: Callable[[], ValueT]) -> ValueT:
    """What the main process makes of something, or the ValueError or OSError that it raises.

    All processes must call it.
    """
    if not dist.is_initialized():
        return make()
    made: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            made[0] = make()
        except (ValueError, OSError) as error:
            made[1] = str(error)
    dist.broadcast_object_list(made)
    if made[1] is not None:
        raise ValueError(made[1])
    return made[0]


def same_over_ranks(value: Any) -> bool:
    """Whether all processes have the same of something; all must call it."""
    if not dist.is_initialized():
        return True
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return all(other == values[0] for other in values)


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over all processes."""
    if dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values
