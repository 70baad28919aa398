"""--compile: the same answers through torch.compile."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch

from inference_core import Sessions
from tests.test_all_methods import FRAMES, masks_on
from tests.test_native import needs_compiler
from tests.test_network import tiny_network
from util.hyper_para import CompileMode, EvalSettings

NUM_FRAMES = 4


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What torch compiled, and keeps, is not for other tests."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()
    gc.collect()


def follow(method: str, mode: CompileMode) -> tuple[list[torch.Tensor], Sessions]:
    settings = EvalSettings(device="cpu", compile=mode, mem_every=1)
    sessions = Sessions(settings, network=tiny_network(method=method))
    core = sessions.start(NUM_FRAMES)
    return [core.step(FRAMES[t], masks_on({0: [1, 2]}, t)) for t in range(NUM_FRAMES)], sessions


@needs_compiler
@pytest.mark.parametrize(("method", "mode"), [("imsfr", "reduce-overhead"), ("gsfm", "default")])
def test_the_same_answers(method: str, mode: CompileMode) -> None:
    plain, _ = follow(method, "")
    counters = torch._dynamo.utils.counters
    counters.clear()
    compiled, sessions = follow(method, mode)
    assert counters["stats"]["unique_graphs"] >= 4, "look, project, remember, decode"
    assert sessions.network.decoder.pred.packing is None, "torch does not see into packed ones"
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
