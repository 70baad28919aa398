"""Process ranks: one process alone, and one process of a launcher."""

from __future__ import annotations

import socket

import pytest
import torch
import torch.distributed as dist

from util.ranks import Ranks, join_ranks, leave_ranks, mean_over_ranks, run_on_main


def test_a_process_without_a_launcher_is_the_main_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    ranks = join_ranks("cpu")
    assert ranks == Ranks(rank=0, local_rank=0, world_size=1)
    assert ranks.is_main
    assert not Ranks(rank=1, world_size=2).is_main
    values = torch.tensor([1.0, 2.0])
    assert torch.equal(mean_over_ranks(values), values)
    assert run_on_main(lambda: 3) == 3
    leave_ranks()  # no effect without a process group


def test_ranks_are_read_from_the_environment_of_the_launcher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("LOCAL_RANK", raising=False)

    def fail() -> None:
        raise OSError("no such file")

    try:
        assert join_ranks("cpu") == Ranks(rank=0, local_rank=0, world_size=1)
        assert dist.is_initialized()
        values = torch.tensor([1.0, 2.0])
        assert mean_over_ranks(values).tolist() == [1.0, 2.0]
        assert run_on_main(lambda: 3) == 3
        with pytest.raises(ValueError, match="no such file"):
            run_on_main(fail)
    finally:
        leave_ranks()
    assert not dist.is_initialized()
