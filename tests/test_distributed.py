"""Training by several processes equals training by one with a larger batch."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from model.methods import METHODS
from model.start import start_network
from model.trainer import Trainer
from tests.training_runs import parse_one
from util.ranks import Ranks

ROOT = Path(__file__).resolve().parents[1]
ITERATIONS = 20


def arguments(synthetic: Path, saves: Path, name: str, batch_size: int) -> list[str]:
    """Options of a run that contains the whole warm-up of the hard examples."""
    return [
        "--id", name, "--static_root", str(synthetic / "static"), "--save_dir", str(saves),
        "--batch_size", str(batch_size), "--iterations", str(ITERATIONS), "--lr", "1e-4",
        "--start_warm", "5", "--end_warm", "15", "--report_interval", "1", "--no_amp",
        "--size", "tiny", "--crop_size", "32", "--num_workers", "0", "--backbone_weights", "none",
        "--device", "cpu",
    ]  # fmt: skip


def read_curves(folder: Path) -> dict[str, list[float]]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [p.value for p in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def launch(
    launcher: str, port: int, synthetic: Path, saves: Path, processes: int = 2, *options: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, "-m", launcher, f"--nproc_per_node={processes}",
            f"--master_port={port}", "train.py", *arguments(synthetic, saves, "run", 2), *options,
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def test_two_processes_equal_one(synthetic: Path, tmp_path: Path) -> None:
    """With both launchers at once, because importing torch takes most of the time."""
    launchers = ("torch.distributed.run", "torch.distributed.launch")
    started = {
        name: launch(name, port, synthetic, tmp_path / name)
        for name, port in zip(launchers, free_ports(2), strict=True)
    }
    try:
        assert train.main(arguments(synthetic, tmp_path, "run", 4)) == 0
        for launcher, process in started.items():
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, f"{launcher}: {errors[-3000:]}"
            assert "strides" not in errors, "DDP warns about them"
    finally:
        for process in started.values():
            process.terminate()
            process.wait(30)

    alone = tmp_path / "run"
    one = read_curves(alone)
    weights = torch.load(alone / f"run_{ITERATIONS}.pth", weights_only=True)["weights"]
    for launcher in launchers:
        folder = tmp_path / launcher / "run"
        two = read_curves(folder)
        for name in ("total_loss", "loss_1", "loss_2", "iou"):
            assert len(one[f"train/{name}"]) == ITERATIONS
            assert two[f"train/{name}"] == pytest.approx(one[f"train/{name}"], abs=1e-5)
        trained = torch.load(folder / f"run_{ITERATIONS}.pth", weights_only=True)["weights"]
        for name, tensor in weights.items():
            torch.testing.assert_close(trained[name], tensor, rtol=0, atol=1e-4)

        # Only the main process writes.
        files = sorted(path.name.split(".")[0] for path in folder.iterdir())
        weights_and_checkpoint = [f"run_{ITERATIONS}", f"run_{ITERATIONS}_checkpoint"]
        assert [name for name in files if name not in ("environment", "changes_0", "")] == [
            "events", "log", "log", *weights_and_checkpoint, "run_checkpoint",
        ]  # fmt: skip
        log = (folder / "log.txt").read_text()
        assert "2 processes x 1 passes x batch 2 = 4 clips per iteration" in log
        assert log.count(f" iteration {ITERATIONS} ") == 1


@pytest.mark.parametrize("method", [*METHODS])
def test_gradients_have_the_strides_that_ddp_expects(method: str, tmp_path: Path) -> None:
    argv = ["--id", "run", "--method", method, "--stage", "3", "--size", "tiny", "--device", "cpu"]
    settings = parse_one([*argv, "--backbone_weights", "none", "--save_dir", str(tmp_path)])
    network = start_network(settings)
    store, length = torch.distributed.HashStore(), settings.num_frames
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        # Two ranks, so that the trainer uses DDP; the group has one.
        trainer = Trainer(network, settings, {}, torch.device("cpu"), torch.float32, Ranks(0, 0, 2))
        image = torch.randint(0, 255, (1, length, 3, 32, 32), dtype=torch.uint8)
        labels = torch.randint(0, 3, (1, length, 32, 32), dtype=torch.uint8)
        trainer.step(image, labels, torch.tensor([2]))
    finally:
        torch.distributed.destroy_process_group()
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.stride() == parameter.stride(), name


def test_global_batch_does_not_depend_on_the_number_of_processes(
    synthetic: Path, tmp_path: Path
) -> None:
    """One process in two passes of 2 clips, two processes with 2 clips each, four with one."""
    options = ("--global_batch", "4")
    started = {
        count: launch(
            "torch.distributed.run", port, synthetic, tmp_path / str(count), count, *options
        )
        for count, port in zip((2, 4), free_ports(2), strict=True)
    }
    try:
        assert train.main([*arguments(synthetic, tmp_path / "1", "run", 2), *options]) == 0
        for count, process in started.items():
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, f"{count}: {errors[-3000:]}"
    finally:
        for process in started.values():
            process.terminate()
            process.wait(30)
    curves = {count: read_curves(tmp_path / str(count) / "run") for count in (1, 2, 4)}
    for count, split in ((1, "1 processes x 2 passes x batch 2"), (4, "4 processes x 1 passes x")):
        log = (tmp_path / str(count) / "run" / "log.txt").read_text()
        assert split in log
        assert "= 4 clips per iteration" in log
    for name in ("total_loss", "loss_1", "loss_2"):
        one = curves[1][f"train/{name}"]
        assert len(one) == ITERATIONS
        assert curves[2][f"train/{name}"] == pytest.approx(one, abs=1e-5)
        assert curves[4][f"train/{name}"] == pytest.approx(one, abs=1e-5)
