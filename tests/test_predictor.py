"""Predictor: sessions with the settings of an eval script."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from inference.predictor import Predictor
from inference_core_yv import InferenceCoreYV
from inference_memory_bank import EveryN
from model.checkpoint import save_network
from tests.tiny_networks import tiny_network
from util.hyper_para import EvalSettings


def test_predictor_starts_sessions_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pth"
    save_network(path, tiny_network(), {})
    settings = EvalSettings(
        model=str(path), device="cpu", top=0, mem_every=2, include_last=True, amp=True
    )
    predictor = Predictor(settings, InferenceCoreYV)
    core = predictor.start(7)
    assert isinstance(core, InferenceCoreYV)
    assert (core.top_k, core.num_frames) == (None, 7)
    assert core.policy == EveryN(2, include_last=True)
    assert core.network.dtype == torch.bfloat16
    image = torch.randint(256, (3, 20, 30), dtype=torch.uint8)
    assert torch.equal(predictor.normalise(image), tiny_network().normalise(image))
    prob = core.step(predictor.normalise(image), {1: torch.ones(20, 30)})
    assert prob.dtype == torch.float32
    assert prob.argmax(0).eq(1).all()
    assert predictor.start().labels == []
    assert predictor.start().num_frames is None

    settings.amp, settings.top = False, 20
    predictor = Predictor(settings)
    assert predictor.network.dtype == torch.float32
    assert predictor.start().top_k == 20
    settings.model = str(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match=re.escape(f"There is no file {settings.model}")):
        Predictor(settings)
