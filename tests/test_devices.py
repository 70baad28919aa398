"""Devices, precisions and ranks, on whatever machine this is."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from inference.predictor import Predictor
from model.methods import build_network
from model.network import NetworkSpec
from util.devices import autocast, half_dtype, pick_device, pick_dtype, total_memory, tune
from util.hyper_para import EvalSettings
from util.parse_settings import parse_eval
from util.ranks import Ranks, join_ranks, leave_ranks, mean_over_ranks

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without GPUs; `have` gives it some."""
    have(monkeypatch)
    return monkeypatch


def have(monkeypatch: pytest.MonkeyPatch, num_gpus: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_auto_takes_the_best_device(machine: pytest.MonkeyPatch) -> None:
    assert pick_device() == CPU
    have(machine, mps=True)
    assert pick_device("auto") == MPS
    have(machine, num_gpus=2, mps=True)
    assert pick_device("auto") == torch.device("cuda", 0)
    assert pick_device("cpu") == CPU


def test_a_rank_takes_the_gpu_of_its_number(machine: pytest.MonkeyPatch) -> None:
    have(machine, num_gpus=2)
    assert pick_device("auto", local_rank=1) == torch.device("cuda", 1)
    assert pick_device("cuda", local_rank=1) == torch.device("cuda", 1)
    assert pick_device("cuda:0", local_rank=1) == torch.device("cuda", 0)
    with pytest.raises(ValueError, match=r"GPU 2 was asked for, but there are 2: .*nproc_per_node"):
        pick_device("auto", local_rank=2)
    with pytest.raises(ValueError, match=r"GPU 7 was asked for, but there are 2"):
        pick_device("cuda:7")


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "meta"])
def test_a_device_that_is_not_here(machine: pytest.MonkeyPatch, name: str) -> None:
    kind = name.split(":")[0]
    with pytest.raises(ValueError, match=rf"There is no {kind} device .*leave --device at auto"):
        pick_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "CPU!"])
def test_a_word_that_is_no_device(machine: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' is no device: use auto, cpu, cuda"):
        pick_device(name)


def test_precisions() -> None:
    assert half_dtype(CPU) == torch.bfloat16
    assert half_dtype(CUDA) == half_dtype(MPS) == torch.float16
    assert pick_dtype("auto", CPU, use_half=True) == torch.bfloat16
    assert pick_dtype("auto", CUDA, use_half=True) == torch.float16
    assert pick_dtype("auto", CUDA, use_half=False) == torch.float32
    assert pick_dtype("float32", CUDA, use_half=True) == torch.float32
    assert pick_dtype("bfloat16", CUDA, use_half=False) == torch.bfloat16
    with pytest.raises(ValueError, match=r"'float8' is no precision: choose from auto, float32"):
        pick_dtype("float8", CPU, use_half=False)


def test_mixed_precision_computes_in_its_type() -> None:
    a = torch.randn(4, 4)
    with autocast(CPU, torch.float32):
        assert (a @ a).dtype == torch.float32
    with autocast(CPU, torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
    assert (a @ a).dtype == torch.float32


def test_peak_memory_is_the_process_own() -> None:
    """It grows with what is allocated, stays when that goes, and ignores the process before."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[1])!r})
import numpy, torch
from util.devices import peak_memory
cpu = torch.device("cpu")
before = peak_memory(cpu)
large = numpy.ones(200 * 2**20, numpy.uint8)
during = peak_memory(cpu)
del large
print(before, during, peak_memory(cpu))
"""
    large = np.ones(2**30, np.uint8)
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    del large
    before, during, after = map(int, said.split())
    assert during - before > 150 * 2**20
    assert after - before > 150 * 2**20
    if sys.platform == "linux":
        assert before < 2**30


def test_one_process_alone_is_the_main_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    ranks = join_ranks("cpu")
    assert ranks == Ranks(rank=0, local_rank=0, world_size=1)
    assert ranks.is_main
    assert not Ranks(rank=1, world_size=2).is_main
    values = torch.tensor([1.0, 2.0])
    assert torch.equal(mean_over_ranks(values), values)
    leave_ranks()  # nothing to leave


def test_ranks_come_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    try:
        assert join_ranks("cpu") == Ranks(rank=0, local_rank=0, world_size=1)
        assert dist.is_initialized()
        values = torch.tensor([1.0, 2.0])
        assert mean_over_ranks(values).tolist() == [1.0, 2.0]
    finally:
        leave_ranks()
    assert not dist.is_initialized()


def test_tuning_for_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("benchmark", "allow_tf32"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    torch.backends.cudnn.allow_tf32 = True
    for exact, benchmark in ((False, True), (True, False), (False, False)):
        tune(CUDA, exact, benchmark)
        assert torch.backends.cudnn.benchmark == benchmark
        assert torch.backends.cudnn.allow_tf32 == (not exact and benchmark), "it only goes down"


def test_the_memory_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = total_memory.__wrapped__(CPU)
    limit = tmp_path / "memory.max"
    monkeypatch.setattr("util.devices._CONTAINER_LIMIT", limit)
    for text, expected in (("1000000\n", 10**6), ("max\n", None), (f"{2**60}\n", None)):
        limit.write_text(text)
        found = total_memory.__wrapped__(CPU)
        assert found == expected if expected else found >= whole


def test_exact_is_float32() -> None:
    settings = EvalSettings(device="cpu", exact=True, amp=True)
    with pytest.raises(ValueError, match="exact is float32"):
        Predictor(settings, network=build_network(NetworkSpec("stcn", "tiny")))
    for flags in (["--amp"], ["--precision", "bfloat16"]):
        with pytest.raises(SystemExit):
            parse_eval("davis", ["--model", "m.pth", "--output", "o", "--exact", *flags])
