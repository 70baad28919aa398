"""Process ranks: join and leave the processes of torchrun or torch.distributed.launch."""

from __future__ import annotations

import os
import re
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

_JOIN_SECONDS = 1800  # timeout for all processes to start
# Errors of gloo and NCCL when another process has ended.
_LOST = re.compile("gloo|NCCL|Connection (closed|reset)|Broken pipe")
# Timeout while fast processes wait for slow ones.
_EVALUATION_TIME = timedelta(days=30)


@dataclass(frozen=True)
class Ranks:
    """Rank of this process and number of processes."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which logs and saves."""
        return self.rank == 0


def _is_launched() -> bool:
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def started_ranks() -> Ranks:
    """Read the ranks that the launcher set in the environment; one process without a launcher."""
    if not _is_launched():
        return Ranks()
    return Ranks(
        int(os.environ["RANK"]),
        int(os.environ.get("LOCAL_RANK", "0")),
        int(os.environ["WORLD_SIZE"]),
    )


def join_ranks(device_name: str = "auto", exchanges_on_cpu: bool = False) -> Ranks:
    """Join the process group of the launcher; no effect without a launcher.

    Args:
        device_name: device of the run; see `pick_device`.
        exchanges_on_cpu: the processes exchange no GPU tensors and may wait days for each other.

    Raises:
        ValueError: the device is not available, or a process did not join in time.
    """
    ranks = started_ranks()
    if not _is_launched():
        return ranks
    device = pick_device(device_name, ranks.local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, world_size = next(rendezvous("env://"))
    store = dist.PrefixStore(_agree_on_start(store, rank, world_size), store)
    backend = "nccl" if device.type == "cuda" and not exchanges_on_cpu else "gloo"
    timeout = _EVALUATION_TIME if exchanges_on_cpu else None
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    return ranks


def _agree_on_start(store: dist.Store, rank: int, world_size: int) -> str:
    """Agree on a name for this start that no earlier start of the run has used.

    torchrun keeps its store when it restarts processes. The store then holds the addresses of dead
    processes, for which new ones would wait. The restart count is not a usable name, because each
    node counts on its own. Therefore each process writes a random name of its own. The main process
    answers it with the name of the start, until all processes have confirmed that name.

    Raises:
        ValueError: a process did not join within half an hour.
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
                # This may be the name of a dead process. Then nobody reads the answer, and the new
                # process will write another name.
                store.set(f"welcome/{store.get(f'hello/{other}').decode()}", own)
        if waiting:
            _wait(deadline)
    return own


def _wait(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise ValueError(
            "Not all processes have started: read the messages of the others, and start again."
        )
    time.sleep(0.02)


def was_restarted() -> bool:
    """Whether torchrun --max-restarts has restarted any of the processes."""
    count = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    return any_over_ranks([count > 0], torch.device(_exchange_device()))[0]


def _exchange_device() -> str:
    return "cuda" if dist.is_initialized() and dist.get_backend() == "nccl" else "cpu"


def leave_ranks() -> None:
    """Leave the process group; no effect without one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_lost_process(error: RuntimeError) -> bool:
    """Return True if an exchange failed because another process has ended."""
    return dist.is_initialized() and _LOST.search(str(error)) is not None


def any_over_ranks(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """For each flag, whether it is set in any process; the result is the same in all processes."""
    if not dist.is_initialized():
        return [*flags]
    values = torch.tensor(flags, dtype=torch.float32, device=device)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return [value > 0 for value in values.tolist()]


ValueT = TypeVar("ValueT")


def gather_over_ranks(value: ValueT) -> list[ValueT]:
    """Gather a value of each process (tensors on the CPU) in all processes, in order of rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def run_on_main(make: Callable[[], ValueT]) -> ValueT:
    """Call a function in the main process only and return its result in all processes.

    All processes must call this.

    Raises:
        ValueError: the function raised a ValueError or an OSError.
    """
    if not dist.is_initialized():
        return make()
    made: list[Any] = [None, None]  # result, message of the error
    if dist.get_rank() == 0:
        try:
            made[0] = make()
        except (ValueError, OSError) as error:
            made[1] = str(error)
    dist.broadcast_object_list(made)
    if made[1] is not None:
        raise ValueError(made[1])
    return made[0]


def same_over_ranks(value: object) -> bool:
    """Whether a value is equal in all processes; all processes must call this."""
    if not dist.is_initialized():
        return True
    values: list[object] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return all(other == values[0] for other in values)


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Mean of a tensor over all processes."""
    if dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values
