"""scripts/export_weights.py: half precision, averages and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.checkpoint import load_network, read_file, save_network
from model.methods import build_network
from model.network import NetworkSpec
from scripts.export_weights import main


def save(path: Path, seed: int, size: str = "tiny") -> Path:
    torch.manual_seed(seed)
    save_network(path, build_network(NetworkSpec(size=size)), {"iteration": seed})
    return path


def test_exported_weights_are_in_half_precision(tmp_path: Path) -> None:
    source, target = save(tmp_path / "a.pth", 1), tmp_path / "out" / "half.pth"
    assert main([str(source), str(target)]) == 0
    before, after = load_network(source).state_dict(), load_network(target).state_dict()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-3, atol=1e-6)
    stored = read_file(target)["weights"]
    assert stored["decoder.pred.weight"].dtype == torch.float16
    assert stored["key_encoder.backbone.bn1.running_var"].dtype == torch.float32
    assert read_file(target)["record"] == {"iteration": 1, "averaged": ["a.pth"]}


def test_several_files_are_averaged(tmp_path: Path) -> None:
    sources = [save(tmp_path / f"{seed}.pth", seed) for seed in (1, 2, 3)]
    assert main([*map(str, sources), str(tmp_path / "mean.pth")]) == 0
    name = "decoder.compress.conv1.weight"
    expected = torch.stack([load_network(path).state_dict()[name] for path in sources]).mean(0)
    mean = load_network(tmp_path / "mean.pth").state_dict()[name]
    torch.testing.assert_close(mean, expected, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("fault", ["missing", "another network"])
def test_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    first, second = save(tmp_path / "a.pth", 1), tmp_path / "b.pth"
    if fault == "another network":
        save(second, 1, size="small")
    target = tmp_path / "c.pth"
    assert main([str(first), str(second), str(target)]) == 2
    message = "There is no file" if fault == "missing" else "contains a different network"
    assert message in capsys.readouterr().err
    assert not target.exists()


def test_weights_too_large_for_half_precision_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = build_network(NetworkSpec(size="tiny"))
    torch.nn.init.constant_(network.decoder.pred.weight, 1e6)
    save_network(tmp_path / "a.pth", network, {})
    assert main([str(tmp_path / "a.pth"), str(tmp_path / "b.pth")]) == 2
    assert "decoder.pred.weight does not fit into half precision" in capsys.readouterr().err
