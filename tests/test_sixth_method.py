"""A sixth method, added from outside in under 60 lines: a part of its own, a row, and presets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import eval_davis
import train
from inference.predictor import Predictor
from model.checkpoint import load_for_inference
from model.methods import METHODS, STCN, Method, Widths
from model.network import Network, NetworkSpec
from util.hyper_para import EvalSettings
from util.presets import EVAL_METHOD_PRESETS, METHOD_PRESETS, STAGE_PRESETS

# --- the method


class Sharpen(nn.Module):
    """The part: every feature beside the mean of all positions."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.strength * (x - x.mean((2, 3), keepdim=True))


def build_sharp(spec: NetworkSpec, widths: Widths) -> Network:
    network = STCN.build(spec, widths)
    network.key_encoder.feature_filter = Sharpen()
    return network


@pytest.fixture
def sharp(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Method("sharp", {"tiny": STCN.sizes["tiny"]}, build_sharp, renames=())
    monkeypatch.setitem(METHODS, "sharp", row)
    monkeypatch.setitem(METHOD_PRESETS, "sharp", {"lr": 1e-2})
    for stage in "03":
        monkeypatch.setitem(STAGE_PRESETS, ("sharp", stage), {"batch_size": 2})
    monkeypatch.setitem(EVAL_METHOD_PRESETS, "sharp", {"memory": "every_n", "mem_every": 2})


# --- that it is one like the others


@pytest.mark.usefixtures("sharp")
def test_it_trains_resumes_and_segments(synthetic: Path, tmp_path: Path) -> None:
    flags = "--method sharp --id s --stage 03 --size tiny --backbone_weights none -i 3 --no_amp "
    flags += "--crop_size 32 --num_workers 0 --device cpu"
    for name, folder in (("static", "static"), ("davis", "DAVIS"), ("yv", "YouTube")):
        flags += f" --{name}_root {synthetic / folder}"
    assert train.main([*flags.split(), "--save_dir", str(tmp_path)]) == 0
    weights = tmp_path / "s_s03" / "s_s03_3.pth"
    network = load_for_inference(weights)
    assert network.spec.method == "sharp"
    assert network.state_dict()["key_encoder.feature_filter.strength"] != 0
    assert Predictor(EvalSettings(model=str(weights))).settings.mem_every == 2
    davis = str(synthetic / "DAVIS" / "2017")
    output = tmp_path / "masks"
    command = ["--model", str(weights), "--davis_path", davis, "--output", str(output)]
    assert eval_davis.main(command) == 0
    assert [*output.rglob("*.png")]


def test_it_takes_under_60_lines() -> None:
    text = Path(__file__).read_text()
    part = text.split("# --- the method")[1].split("# --- that it is")[0]
    assert len(part.splitlines()) < 60
