"""The processes of a run that torchrun or torch.distributed.launch started."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from util.devices import pick_device

_JOIN_SECONDS = 1800
# Timeout while fast processes wait for slow ones.
_EVALUATION_TIME = timedelta(days=30)


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
