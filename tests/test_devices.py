"""Devices and precisions, independent of the devices of this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.predictor import Predictor
from model.methods import build_network
from model.network import NetworkSpec
from util.devices import autocast, half_dtype, pick_device, pick_dtype, total_memory, tune
from util.hyper_para import EvalSettings
from util.parse_settings import parse_eval

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without GPUs; `set_devices` adds some."""
    set_devices(monkeypatch)
    return monkeypatch


def set_devices(monkeypatch: pytest.MonkeyPatch, num_gpus: int = 0, mps: bool = False) -> None:
    """Make torch report these devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_auto_selects_the_fastest_device(machine: pytest.MonkeyPatch) -> None:
    assert pick_device() == CPU
    set_devices(machine, mps=True)
    assert pick_device("auto") == MPS
    set_devices(machine, num_gpus=2, mps=True)
    assert pick_device("auto") == torch.device("cuda", 0)
    assert pick_device("cpu") == CPU


def test_a_rank_selects_the_gpu_of_its_index(machine: pytest.MonkeyPatch) -> None:
    set_devices(machine, num_gpus=2)
    assert pick_device("auto", local_rank=1) == torch.device("cuda", 1)
    assert pick_device("cuda", local_rank=1) == torch.device("cuda", 1)
    assert pick_device("cuda:0", local_rank=1) == torch.device("cuda", 0)
    with pytest.raises(ValueError, match=r"There is no GPU 2, torch finds 2: .*nproc_per_node"):
        pick_device("auto", local_rank=2)
    with pytest.raises(ValueError, match=r"There is no GPU 7, torch finds 2"):
        pick_device("cuda:7")


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "meta"])
def test_an_unavailable_device(machine: pytest.MonkeyPatch, name: str) -> None:
    kind = name.split(":")[0]
    with pytest.raises(ValueError, match=rf"finds no {kind} device .*use --device auto"):
        pick_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "CPU!"])
def test_an_unknown_device(machine: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' is not a device: use auto, cpu, cuda"):
        pick_device(name)


def test_precisions() -> None:
    assert half_dtype(CPU) == torch.bfloat16
    assert half_dtype(CUDA) == half_dtype(MPS) == torch.float16
    assert pick_dtype("auto", CPU, use_half=True) == torch.bfloat16
    assert pick_dtype("auto", CUDA, use_half=True) == torch.float16
    assert pick_dtype("auto", CUDA, use_half=False) == torch.float32
    assert pick_dtype("float32", CUDA, use_half=True) == torch.float32
    assert pick_dtype("bfloat16", CUDA, use_half=False) == torch.bfloat16
    with pytest.raises(ValueError, match=r"'float8' is not a precision: choose from auto, float32"):
        pick_dtype("float8", CPU, use_half=False)


def test_mixed_precision_computes_in_its_dtype() -> None:
    a = torch.randn(4, 4)
    with autocast(CPU, torch.float32):
        assert (a @ a).dtype == torch.float32
    with autocast(CPU, torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
    assert (a @ a).dtype == torch.float32


def test_peak_memory_excludes_the_parent_process() -> None:
    """It grows with an allocation and stays when the memory is freed."""
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
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    del large
    before, during, after = map(int, output.split())
    assert during - before > 150 * 2**20
    assert after - before > 150 * 2**20
    if sys.platform == "linux":
        assert before < 2**30


def test_tuning_for_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("benchmark", "allow_tf32"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    torch.backends.cudnn.allow_tf32 = True
    for exact, benchmark in ((False, True), (True, False), (False, False)):
        tune(CUDA, exact, benchmark)
        assert torch.backends.cudnn.benchmark == benchmark
        assert torch.backends.cudnn.allow_tf32 == (not exact and benchmark), (
            "exact only disables it"
        )


def test_total_memory_respects_the_limit_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = total_memory.__wrapped__(CPU)
    limit = tmp_path / "memory.max"
    monkeypatch.setattr("util.devices._CONTAINER_LIMIT", limit)
    for text, expected in (("1000000\n", 10**6), ("max\n", None), (f"{2**60}\n", None)):
        limit.write_text(text)
        limited = total_memory.__wrapped__(CPU)
        assert limited == expected if expected else limited >= total


def test_exact_requires_float32() -> None:
    settings = EvalSettings(device="cpu", exact=True, amp=True)
    with pytest.raises(ValueError, match="exact needs float32"):
        Predictor(settings, network=build_network(NetworkSpec("stcn", "tiny")))
    for flags in (["--amp"], ["--precision", "bfloat16"]):
        with pytest.raises(SystemExit):
            parse_eval("davis", ["--model", "m.pth", "--output", "o", "--exact", *flags])
