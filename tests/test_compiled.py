"""--compile: torch.compile does not change the output."""

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
from tests.example_sessions import DISCS, FRAMES
from tests.test_native import needs_compiler
from tests.tiny_networks import tiny_network
from util.hyper_para import CompileMode, EvalSettings

NUM_FRAMES = 7


@pytest.fixture(autouse=True)
def reset_compiler() -> Iterator[None]:
    """Remove the compiled code of each test."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()
    gc.collect()


def segment_videos(method: str, mode: CompileMode) -> tuple[list[torch.Tensor], Predictor]:
    """Segment two videos of different sizes; return all probabilities and the predictor."""
    settings = EvalSettings(device="cpu", compile=mode, mem_every=1)
    predictor = Predictor(settings, network=tiny_network(method=method))
    probs = []
    for start, size in ((0, 40), (3, 32)):
        core = predictor.start(NUM_FRAMES)
        encoded = []
        for group in (range(start, start + 3), range(3, 5), range(5, 6)):
            encoded += core.encode_images(FRAMES[[*group], :, :size])
        frames: list[EncodedImage | torch.Tensor] = [*encoded, FRAMES[6, :, :size]]
        for t, frame in enumerate(frames):
            masks = {o: DISCS[o - 1, 0, :size] for o in ((1, 2) if start else (1,))}
            probs.append(core.step(frame, masks if t == 0 else None))
    return probs, predictor


@needs_compiler
@pytest.mark.parametrize(("method", "mode"), [("imsfr", "reduce-overhead"), ("gsfm", "default")])
def test_compiled_network_has_the_same_output(method: str, mode: CompileMode) -> None:
    expected, _ = segment_videos(method, "")
    counters = torch._dynamo.utils.counters
    counters.clear()
    compiled, predictor = segment_videos(method, mode)
    assert counters["stats"]["unique_graphs"] >= 4, "encode, project, memorise, decode"
    assert predictor.network.decoder.pred.packing is None, (
        "torch cannot compile packed convolutions"
    )
    for result, each in zip(compiled, expected, strict=True):
        torch.testing.assert_close(result, each, rtol=1e-4, atol=1e-5)


def test_results_of_cuda_graphs_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module replaces a CUDA graph: each run overwrites the result of the previous one."""
    memory = torch.zeros(2)

    class Part(torch.nn.Module):
        def forward(self, query: QueryFeatures, values: torch.Tensor) -> Any:
            memory.copy_(values)
            return replace(query, key=memory, thin=memory), memory, None

    monkeypatch.setattr(torch, "compile", lambda function, mode: function)
    part = Part()
    compile_parts(part, [(part, "forward")], "reduce-overhead")
    query = QueryFeatures(*(torch.full((1,), float(n)) for n in range(5)))
    first, tensor, nothing = part(query, torch.tensor([1.0, 2.0]))
    part(query, torch.tensor([3.0, 4.0]))
    assert tensor.tolist() == [1, 2]
    assert nothing is None
    assert first.key is first.thin is tensor, "each tensor is copied once"
    assert first.feat4 is query.feat4, "arguments are not copied"


@needs_compiler
def test_copying_a_compiled_network_is_an_error() -> None:
    network = tiny_network().for_inference(torch.device("cpu"), torch.float32, False, "default")
    for copy_network in (copy.deepcopy, pickle.dumps):
        with pytest.raises(ValueError, match="A compiled network cannot be copied"):
            copy_network(network)


def test_missing_compiler_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.compiled.has_compiler", lambda: False)
    with pytest.raises(ValueError, match=r"--compile needs a C\+\+ compiler"):
        Predictor(EvalSettings(device="cpu", compile="default"), network=tiny_network())
