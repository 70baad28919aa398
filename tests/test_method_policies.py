"""Memory policies of the methods: defaults, and policies combined with other methods."""

from __future__ import annotations

import pytest
import torch

from inference.predictor import make_policy
from inference_core import InferenceCore
from inference_memory_bank import (
    POLICIES,
    EveryN,
    IsogenousSampling,
    MemoryPolicy,
    QualityGated,
    SamCompression,
)
from model.methods import build_network
from model.network import NetworkSpec
from util.hyper_para import EvalSettings
from util.parse_settings import of_method


def test_default_policies_of_the_methods() -> None:
    def policy(method: str, **options: object) -> MemoryPolicy:
        network = build_network(NetworkSpec(method, "tiny"))
        return make_policy(network, of_method(EvalSettings(**options), method))  # type: ignore[arg-type]

    assert policy("stcn") == EveryN(5)
    assert policy("gsfm", mem_every=2, include_last=True) == EveryN(2, include_last=True)
    sam = policy("rde")
    assert isinstance(sam, SamCompression)
    assert (sam.mode, sam.mem_every) == ("two-frames-compress", 3)
    assert policy("rde", mode="gt").mode == "gt"  # type: ignore[attr-defined]
    assert policy("rde", dataset="youtube").mem_every == 4
    assert policy("qdmn") == QualityGated(5, mem_capacity=22)
    youtube = QualityGated(5, 0.75, "prediction", mem_capacity=12)
    assert policy("qdmn", dataset="youtube") == youtube
    assert policy("imsfr") == IsogenousSampling(6, sample_keep="1,-5:")
    assert policy("imsfr", dataset="davis_2016") == IsogenousSampling(6, False, 8, 0.1, "0,-2:")
    assert policy("imsfr", dataset="youtube") == IsogenousSampling(3)


@pytest.mark.parametrize("method", ["stcn", "gsfm", "qdmn", "rde", "imsfr"])
@pytest.mark.parametrize("memory", [*POLICIES])
def test_policies_work_with_all_methods_that_have_the_parts(method: str, memory: str) -> None:
    network = build_network(NetworkSpec(method, "tiny")).eval()
    settings = of_method(EvalSettings(memory=memory), method)
    lacking = {"quality": method != "qdmn", "sam": method != "rde"}.get(memory, False)
    if lacking:
        part = {"quality": "a quality head", "sam": "a compressor"}[memory]
        with pytest.raises(ValueError, match=f"--memory {memory} needs {part}.*{method} has none"):
            make_policy(network, settings)
        return
    core = InferenceCore(network, make_policy(network, settings), top_k=4)
    generator = torch.Generator().manual_seed(0)
    for t in range(12):
        frame = torch.randn(3, 32, 48, generator=generator)
        masks = {7: torch.zeros(32, 48).index_fill(1, torch.arange(20), 1)} if t == 0 else None
        prob = core.step(frame, masks, is_last=t == 11)
        assert torch.allclose(prob.sum(0), torch.ones(32, 48), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "method", "message"),
    [
        ({"mode": "gt"}, "stcn", "--mode does nothing with --memory every_n, the default of stcn; "
         "it belongs to sam"),
        ({"include_last": True}, "rde", "--include_last does nothing with --memory sam"),
        ({"quality_threshold": 0.5}, "imsfr", "--quality_threshold .* it belongs to quality"),
        ({"sample_seed": 3, "memory": "every_n"}, "imsfr", "every_n; it belongs to isogenous"),
    ],
)  # fmt: skip
def test_options_without_effect_are_errors(options: dict, method: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of_method(EvalSettings(**options), method)
