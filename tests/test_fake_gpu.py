"""The code for CUDA on a pretended GPU: one device everywhere, and bounds of waits and kernels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from inference_core import InferenceCore
from scripts.benchmarks import bench_gpu_work
from scripts.benchmarks.bench_gpu_work import (
    make_predictor,
    segment_arrays,
    segment_on_gpu,
    train,
)
from scripts.benchmarks.fake_gpu import GPU, FakeGpu
from util.hyper_para import EvalSettings

METHODS = ["stcn", "gsfm", "qdmn", "rde", "imsfr"]


@pytest.fixture
def gpu() -> Iterator[FakeGpu]:
    """A pretended GPU, on which the test runs."""
    with FakeGpu().run() as gpu:
        yield gpu


@pytest.fixture(autouse=True)
def _small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_gpu_work, "HEIGHT", 48)
    monkeypatch.setattr(bench_gpu_work, "WIDTH", 70)


def test_devices_cannot_be_mixed(gpu: FakeGpu) -> None:
    with pytest.raises(RuntimeError, match="two devices, cuda:0 and cpu"):
        torch.ones(2, device=GPU) + torch.ones(2)


def pinned() -> torch.Tensor:
    return torch.ones(4).pin_memory()


# function of a (2, 3) tensor of ones on the GPU -> waits, copies, kernels
COUNTS: list[tuple[Callable[[torch.Tensor], object], tuple[int, int, int]]] = [
    (lambda x: x[0].t().reshape(3, 1).expand(3, 2), (0, 0, 0)),
    (lambda x: torch.empty_like(x), (0, 0, 0)),
    (lambda x: (x + 1).relu_(), (0, 0, 2)),
    (lambda x: x.double(), (0, 0, 1)),
    (lambda x: x.sum().item(), (1, 1, 1)),
    (lambda x: x.tolist(), (1, 1, 0)),
    (lambda x: bool((x > 0).all()), (1, 1, 2)),
    (lambda x: x.cpu().sum().item(), (1, 1, 0)),
    (lambda x: x.to("cpu", non_blocking=True), (0, 1, 0)),
    (lambda x: x.nonzero(), (1, 0, 1)),
    (lambda x: x[x > 0], (1, 0, 2)),
    (lambda x: x[x[:, 0].long()], (0, 0, 2)),
    (lambda x: torch.tensor([1, 2], device=GPU), (1, 1, 0)),
    (lambda x: torch.ones(4).to(GPU, non_blocking=True), (1, 1, 0)),
    (lambda x: pinned().to(GPU), (1, 1, 0)),
    (lambda x: pinned()[:2].to(GPU, non_blocking=True), (0, 1, 0)),
    (lambda x: x * torch.tensor(2.0), (0, 0, 1)),
    (lambda x: torch.ones(4).sum().item(), (0, 0, 0)),
]


@pytest.mark.parametrize("number", range(len(COUNTS)))
def test_counts(gpu: FakeGpu, number: int) -> None:
    function, expected = COUNTS[number]
    x = torch.ones(2, 3, device=GPU)
    with gpu.measure() as work:
        function(x)
    assert (work.waits, work.copies, work.kernels) == expected, work.operations


def test_peak_of_live_tensors(gpu: FakeGpu) -> None:
    kept = torch.ones(1000, device=GPU)
    with gpu.measure() as work:
        for _ in range(3):
            view = (kept + 1)[:10]
            del view
    assert work.peak_bytes == 8000
    with gpu.measure() as work:
        del kept
        torch.ones(10, device=GPU)
    assert work.peak_bytes == 4000


@pytest.mark.parametrize("method", METHODS)
def test_a_session_does_not_wait(gpu: FakeGpu, method: str) -> None:
    works = [*segment_on_gpu(gpu, make_predictor(method, "tiny"), 3, num_frames=5)]
    for work in works[2:-1]:
        # QDMN decides about a frame when it stores the next one. If the caller has not waited for
        # the frame's results by then, the session waits for its quality.
        waits = {"wait: event": 1} if method == "qdmn" else {}
        assert {k: v for k, v in work.operations.items() if k.startswith("wait")} == waits


@pytest.mark.parametrize("method", METHODS)
def test_a_tracker_waits_once_per_frame(gpu: FakeGpu, method: str) -> None:
    works = [*segment_arrays(gpu, make_predictor(method, "tiny"), 3, num_frames=5)]
    assert all(work.waits == 1 for work in works[2:]), [work.operations for work in works]


VARIANTS: dict[str, EvalSettings] = {
    "views": EvalSettings(scales=[1.0, 0.7], flip=True),
    "half precision": EvalSettings(precision="float16"),
    "half memory": EvalSettings(mem_half=True),
    "capacity": EvalSettings(mem_capacity=4, mem_every=1),
    "kernel": EvalSettings(use_km=True),
    "all rows": EvalSettings(top=0),
    "YouTube": EvalSettings(dataset="youtube"),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_all_tensors_are_on_one_device(gpu: FakeGpu, method: str, variant: str) -> None:
    predictor = make_predictor(method, "tiny", VARIANTS[variant])
    works = [*segment_arrays(gpu, predictor, 2, num_frames=5, annotated=(0, 2))]
    assert len(works) == 5


@pytest.mark.parametrize("method", METHODS)
def test_the_session_for_davis(gpu: FakeGpu, method: str) -> None:
    predictor = make_predictor(method, "tiny")
    predictor.session_type = InferenceCore
    assert len([*segment_on_gpu(gpu, predictor, num_objects=2, num_frames=3)]) == 3


@pytest.mark.parametrize("method", METHODS)
def test_a_training_step_waits_once(gpu: FakeGpu, method: str) -> None:
    *_, work = train(gpu, method, "tiny", num_steps=2)
    assert work.waits == 1, work.operations


@pytest.mark.parametrize(("method", "most"), [("stcn", 110)])
def test_kernels_of_a_frame(gpu: FakeGpu, method: str, most: int) -> None:
    works = [*segment_on_gpu(gpu, make_predictor(method, "base"), 3, num_frames=3)]
    assert works[2].kernels < most, works[2].operations


def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "work.json"
    argv = ["--methods", "stcn", "--objects", "2", "--size", "tiny", "--frames", "3"]
    assert bench_gpu_work.main([*argv, "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [(row["run"], row["waits"]) for row in rows] == [
        ("session", 0), ("tracker", 1), ("training", 1)
    ]  # fmt: skip
    assert all(row["kernels"] > 20 and row["peak_bytes"] > 10_000 for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == 5
    with pytest.raises(SystemExit):
        bench_gpu_work.main(["--frames", "2"])
