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
from util.parse_settings import parse_eval
from util.presets import EVAL_METHOD_PRESETS


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


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"memory": "evry_n"}, "There is no --memory evry_n"),
        ({"size": "big"}, "--size must be int, not 'big'"),
        ({"size": None}, "--size must be int, not None"),
        ({"scales": 1.0}, "--scales must be list"),
        ({"amp": "yes"}, "--amp must be bool, not 'yes'"),
        ({"quality_reference": 5}, "--quality_reference must be str or None, not 5"),
        ({"plugin": "absent.py"}, "--plugin must be list"),
        ({"sample_share": float("nan")}, "--sample_share must be float or None, not nan"),
        ({"scales": []}, "--scales must be one or more numbers"),
        ({"size": -5}, "--size must be 0"),
        ({"quality_reference": "first"}, "There is no --quality_reference first: choose from"),
        ({"dataset": "davs"}, "There is no --dataset davs: choose from davis, davis_2016, youtube"),
        ({"top": 20, "no_top": True}, "--no_top and --top 20 contradict each other"),
        ({"overlay": True}, "A predictor has no option overlay"),
        ({"video": "a.mp4"}, "A predictor has no option video"),
        ({"plugin": ["absent.py"]}, "There is no plugin absent.py"),
    ],
)
def test_options_of_load_are_checked(
    tmp_path: Path, options: dict[str, object], sentence: str
) -> None:
    save_network(tmp_path / "tiny.pth", tiny_network(), {})
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Predictor.load(tmp_path / "tiny.pth", device="cpu", **options)


def test_an_option_that_the_method_turns_on_can_be_turned_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_network(tmp_path / "tiny.pth", tiny_network(), {})
    preset = {**EVAL_METHOD_PRESETS["stcn"], "include_last": True}
    monkeypatch.setitem(EVAL_METHOD_PRESETS, "stcn", preset)
    for value, expected in ((None, True), (False, False), (True, True)):
        predictor = Predictor.load(tmp_path / "tiny.pth", device="cpu", include_last=value)
        assert predictor.policy == EveryN(5, include_last=expected)
        assert predictor.settings.include_last == expected
    settings = parse_eval("davis", ["--output", "out", "--no-include_last"])
    assert settings.include_last is False
