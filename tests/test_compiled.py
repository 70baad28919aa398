"""--compile: the same answers through torch.compile."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from inference.predictor import Predictor
from model.compiled import compile_parts
from model.features import EncodedImage, QueryFeatures
from tests.test_all_methods import DISCS, FRAMES
from tests.test_native import needs_compiler
from tests.test_network import tiny_network
from util.hyper_para import CompileMode, EvalSettings

NUM_FRAMES = 7


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What torch compiled, and keeps, is not for other tests."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()
    gc.collect()


def follow(method: str, mode: CompileMode) -> tuple[list[torch.Tensor], Predictor]:
    settings = EvalSettings(device="cpu", compile=mode, mem_every=1)
    predictor = Predictor(settings, network=tiny_network(method=method))
    probs = []
    for start, size in ((0, 40), (3, 32)):  # groups of three frames, two, one and one; two sizes
        core = predictor.start(NUM_FRAMES)
        looks = core.encode_images(FRAMES[start : start + 3, :, :size]) + core.encode_images(
            FRAMES[3:5, :, :size]
        )
        looks += core.encode_images(FRAMES[5:6, :, :size])
        frames: list[EncodedImage | torch.Tensor] = [*looks, FRAMES[6, :, :size]]
        for t, frame in enumerate(frames):
            masks = {o: DISCS[o - 1, 0, :size] for o in ((1, 2) if start else (1,))}
            probs.append(core.step(frame, masks if t == 0 else None))
    return probs, predictor


@needs_compiler
@pytest.mark.parametrize(("method", "mode"), [("imsfr", "reduce-overhead"), ("gsfm", "default")])
def test_the_same_answers(method: str, mode: CompileMode) -> None:
    plain, _ = follow(method, "")
    counters = torch._dynamo.utils.counters
    counters.clear()
    compiled, predictor = follow(method, mode)
    assert counters["stats"]["unique_graphs"] >= 4, "look, project, remember, decode"
    assert predictor.network.decoder.pred.packing is None, "torch does not see into packed ones"
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_results_are_copied_from_where_graphs_leave_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for a graph of a GPU: each run writes over what the one before gave."""
    place = torch.zeros(2)

    class Part(torch.nn.Module):
        def forward(self, query: QueryFeatures, values: torch.Tensor) -> Any:
            place.copy_(values)
            return replace(query, key=place, thin=place), place, None

    monkeypatch.setattr(torch, "compile", lambda function, mode: function)
    part = Part()
    compile_parts(part, [(part, "forward")], "reduce-overhead")
    query = QueryFeatures(*(torch.full((1,), float(n)) for n in range(5)))
    one, tensor, nothing = part(query, torch.tensor([1.0, 2.0]))
    part(query, torch.tensor([3.0, 4.0]))
    assert tensor.tolist() == [1, 2]
    assert nothing is None
    assert one.key is one.thin is tensor, "one copy of each"
    assert one.feat4 is query.feat4, "what was handed in is where it was"


@needs_compiler
def test_a_compiled_network_is_not_copied() -> None:
    network = tiny_network().for_inference(torch.device("cpu"), torch.float32, False, "default")
    for make in (copy.deepcopy, pickle.dumps):
        with pytest.raises(ValueError, match="A compiled network cannot be copied"):
            make(network)


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.compiled.has_compiler", lambda: False)
    with pytest.raises(ValueError, match=r"--compile needs a C\+\+ compiler"):
        Predictor(EvalSettings(device="cpu", compile="default"), network=tiny_network())
