"""Files that are not weights, and damaged files."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model.checkpoint import load_for_inference, load_network, read_file, save_network
from model.trainer import Trainer
from model.training_state import checkpoint_path, find_newest, resume, save
from tests.tiny_networks import tiny_network
from util.hyper_para import TrainSettings
from util.ranks import Ranks

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello\n",
        b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        b'{"weights": []}',
        b"PK\x03\x04 not a zip file",
        b"compute\nthis\n",
        bytes(200),
    ],
)
def test_other_kinds_of_files_are_errors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    message = rf"weights.pth is not a checkpoint that torch can read \({len(content)} bytes\)"
    with pytest.raises(ValueError, match=message):
        load_for_inference(path)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
def test_truncated_file_is_an_error(tmp_path: Path, share: float, is_zip: bool) -> None:
    path = tmp_path / "truncated.pth"
    torch.save({"a": torch.ones(5000)}, path, _use_new_zipfile_serialization=is_zip)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"truncated.pth is not a checkpoint .* truncated or"):
        load_for_inference(path)


def flip_bit(path: Path, tensor: torch.Tensor) -> None:
    """Flip one bit of a tensor in a file."""
    content = bytearray(path.read_bytes())
    in_memory = tensor.as_strided((tensor.numel(),), (1,))  # channels-last or not
    content[content.index(in_memory.numpy().tobytes()) + 5] ^= 4
    path.write_bytes(content)


def test_flipped_bit_in_a_tensor_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "run_0.pth"
    network = tiny_network()
    save_network(path, network, {})
    load_for_inference(path)
    flip_bit(path, network.decoder.pred.weight.detach())
    for load in (load_for_inference, load_network, read_file):
        with pytest.raises(ValueError, match=r"run_0.pth is damaged: the checksum of \S+ is wrong"):
            load(path)


def test_run_does_not_resume_from_a_flipped_bit(tmp_path: Path) -> None:
    settings = TrainSettings(id="run", size="tiny", save_dir=str(tmp_path), device="cpu")
    trainer = Trainer(tiny_network(), settings, {"settings": {}}, CPU, torch.float32, Ranks())
    save(trainer)
    path = trainer.folder / "run_0_checkpoint.pth"
    flip_bit(path, trainer.network.decoder.pred.weight.detach())
    with pytest.raises(ValueError, match=r"run_0_checkpoint.pth is damaged"):
        resume(trainer, path)
    with pytest.raises(ValueError, match=r"No checkpoint .*/run_0_checkpoint.pth is damaged"):
        find_newest(settings)


class _Trap:
    """Pickled as a call."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call = (call, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("call", [os.mkdir, exec])
def test_pickled_code_is_not_run(tmp_path: Path, call: Callable[..., Any], is_zip: bool) -> None:
    marker = tmp_path / "marker"
    argument = str(marker) if call is os.mkdir else f"import os; os.mkdir({str(marker)!r})"
    path = tmp_path / "evil.pth"
    torch.save({"w": _Trap(call, argument)}, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match=r"evil.pth contains pickled Python objects.*not loaded"):
        load_for_inference(path)
    path.write_bytes(pickle.dumps({"w": _Trap(call, argument)}))
    with pytest.raises(ValueError, match=r"evil.pth contains pickled Python objects"):
        load_for_inference(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists()  # so the call would have had an effect


def test_pickled_module_is_an_error(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ValueError, match=r"torch.save\(model.state_dict\(\), path\)"):
        load_for_inference(tmp_path / "module.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(3), "contains a Tensor, not a dictionary of weights"),
        ([torch.ones(3)], "contains a list, not a dictionary of weights"),
        ({}, "contains nothing, not a state_dict"),
        ({0: torch.ones(3)}, "is not a checkpoint of a known method"),
        ({"it": 5, "network": {}}, "contains it, network, not a state_dict: .*without _checkpoint"),
    ],
)
def test_other_contents_are_errors(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=f"odd.pth {message}"):
        load_for_inference(tmp_path / "odd.pth")


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(ValueError, match=re.escape(f"There is no file {path}: give the path")):
            load_network(path)


def test_training_checkpoint_is_not_a_file_of_weights(tmp_path: Path) -> None:
    settings = TrainSettings(id="run", size="tiny", save_dir=str(tmp_path), device="cpu")
    trainer = Trainer(tiny_network(), settings, {"settings": {}}, CPU, torch.float32, Ranks())
    save(trainer)
    with pytest.raises(ValueError, match="is a checkpoint to resume training from: give the"):
        load_for_inference(checkpoint_path(trainer.settings))
    weights = load_for_inference(trainer.folder / "run_0.pth").state_dict()
    assert torch.equal(weights["decoder.pred.weight"], tiny_network().decoder.pred.weight)
    with pytest.raises(ValueError, match=r"run_0.pth is not a checkpoint to resume from"):
        resume(trainer, trainer.folder / "run_0.pth")
