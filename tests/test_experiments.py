"""scripts/experiments/ run on small data and report what they should."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import save_network
from model.methods import build_network
from model.network import NetworkSpec
from scripts.experiments import precisions, quality_gating


def test_precisions(
    synthetic: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--davis_path", str(synthetic / "DAVIS"), "--model", str(tiny_weights)]
    path = tmp_path / "precisions.json"
    flags += ["--device", "cpu", "--year", "2017", "--frames", "3", "--json", str(path)]
    assert precisions.main(flags) == 0
    rows = json.loads(path.read_text())["rows"]
    assert rows["float32"]["mean IoU"] == 1
    assert rows["exact"]["mean IoU"] > 0.99
    assert rows["mem_half"]["mean IoU"] > 0.99
    assert 0.5 < rows["half"]["mean IoU"] < 1
    assert all(row["FPS"] > 0 and len(row["IoU"]) == 2 for row in rows.values())
    assert "bfloat16" in capsys.readouterr().out
    assert precisions.main([*flags[:2], "--model", "nowhere.pth"]) == 2


def test_quality_gating(
    synthetic: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "qdmn.pth"
    torch.manual_seed(1)
    network = build_network(NetworkSpec("qdmn", "tiny"))
    network.decoder.pred.weight.data *= 100  # otherwise all masks are empty
    save_network(weights, network, {"settings": {}})
    flags = f"--davis_path {synthetic / 'DAVIS' / '2017'} --output {tmp_path / 'quality'}".split()
    flags += "--num_videos 1 --rates 0 0.9 --seeds 1 --device cpu".split()
    assert quality_gating.main([*flags, "--model", str(weights)]) == 0
    result = json.loads((tmp_path / "quality" / "quality.json").read_text())
    assert [row["rate"] for row in result["rows"]] == [0, 0.9]
    assert all(0 <= row[name] <= 1 for row in result["rows"] for name in quality_gating.MEMORIES)
    assert result["num_masks"] == len(result["masks"]) > 0
    assert {is_damaged for _, _, is_damaged in result["masks"]} == {False, True}
    assert (tmp_path / "quality" / "quality.png").stat().st_size > 1000
    assert quality_gating.main([*flags, "--model", str(tiny_weights)]) == 2
    assert "has no quality head: use weights of qdmn" in capsys.readouterr().err


def test_rank_correlation() -> None:
    increasing = [(0.1, 0.3), (0.2, 0.5), (0.9, 0.6)]
    assert quality_gating.rank_correlation(increasing) == pytest.approx(1)
    ties = [(1.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 3.0)]
    ranks = np.array([[1.5, 1.5, 3, 4], [1, 2, 3.5, 3.5]])
    expected = np.corrcoef(ranks)[0, 1]
    assert quality_gating.rank_correlation(ties) == pytest.approx(expected)
    with pytest.raises(ValueError, match="the same quality or the same IoU"):
        quality_gating.rank_correlation([(0.5, 0.1), (0.5, 0.2)])
