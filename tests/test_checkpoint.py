"""Files of weights of this code: save and load networks, and widen weights of stage 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from model import checkpoint
from model.checkpoint import (
    load_for_inference,
    load_network,
    read_file,
    read_weights,
    save_network,
    widen,
    write_file,
)
from model.methods import build_network
from model.network import NetworkSpec
from tests.tiny_networks import random_inputs, segment, tiny_network


@pytest.fixture
def tiny_content(tmp_path: Path) -> dict[str, Any]:
    """Content of a file of weights."""
    save_network(tmp_path / "tiny.pth", tiny_network(), {})
    return read_file(tmp_path / "tiny.pth")


def test_loaded_network_is_the_saved_one(tmp_path: Path) -> None:
    path, network = tmp_path / "new folder" / "tiny.pth", tiny_network()
    save_network(path, network, {"settings": {"lr": 1e-5}, "iteration": 7, "git": "abc"})
    for loaded in (load_network(path), load_for_inference(str(path))):
        assert loaded.spec == network.spec
        weights = loaded.state_dict()
        assert weights.keys() == network.state_dict().keys()
        assert all(torch.equal(weights[k], v) for k, v in network.state_dict().items())
    record = read_file(path)["record"]
    assert record == {"settings": {"lr": 1e-5}, "iteration": 7, "git": "abc"}


def test_half_precision_weights_load_as_float32(tmp_path: Path) -> None:
    network = tiny_network().half()
    save_network(tmp_path / "half.pth", network, {})
    _, weights = read_weights(tmp_path / "half.pth")
    for loaded in (weights, load_for_inference(tmp_path / "half.pth").state_dict()):
        for name, tensor in loaded.items():
            kind = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
            assert tensor.dtype == kind, name
            assert torch.equal(tensor, network.state_dict()[name].to(kind)), name


def test_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.pth"
    save_network(path, tiny_network(), {"iteration": 1})
    before = path.read_bytes()

    def fill_disk(content: Any, target: Path) -> None:
        Path(target).write_bytes(b"half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        save_network(path, tiny_network(), {"iteration": 2})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.pth"]


def test_error_lists_the_differences(tmp_path: Path, tiny_content: dict[str, Any]) -> None:
    weights = dict(tiny_content["weights"])
    weights["decoder.extra.weight"] = weights.pop("decoder.pred.weight")
    weights["key_encoder.key_proj.bias"] = torch.zeros(9)
    write_file(tmp_path / "odd.pth", {**tiny_content, "weights": weights})
    with pytest.raises(ValueError, match=r"The weights in .*odd.pth do not fit") as raised:
        load_for_inference(tmp_path / "odd.pth")
    message = str(raised.value)
    assert "Missing: decoder.pred.weight." in message
    assert "Extra: decoder.extra.weight." in message
    assert "Different shape: key_encoder.key_proj.bias (9,) instead of (8,)." in message


@pytest.mark.parametrize("change", [{"spec": {"colour": "red"}}, {"weights": None}])
def test_file_of_another_version_is_an_error(
    tmp_path: Path, tiny_content: dict[str, Any], change: dict[str, Any]
) -> None:
    content = {**tiny_content, **change}
    content = {key: value for key, value in content.items() if value is not None}
    write_file(tmp_path / "newer.pth", content)
    with pytest.raises(ValueError, match=r"newer.pth was written by another version of this code"):
        load_for_inference(tmp_path / "newer.pth")


@pytest.fixture
def stage0(tmp_path: Path) -> Path:
    save_network(tmp_path / "stage0.pth", tiny_network(is_single_object=True), {})
    return tmp_path / "stage0.pth"


def test_stage_0_weights_have_the_same_output_in_evaluation(stage0: Path) -> None:
    network = load_for_inference(stage0).eval()
    assert not network.spec.is_single_object
    first = network.value_encoder.backbone.conv1.weight
    assert first.shape[1] == 5
    assert not first[:, 4].any()
    image, masks = random_inputs(1, 1)
    expected = segment(tiny_network(is_single_object=True), image, masks)
    torch.testing.assert_close(segment(network, image, masks), expected, rtol=1e-5, atol=1e-5)


def test_later_stages_start_from_an_orthogonal_channel(stage0: Path) -> None:
    networks = [load_network(stage0, seed=seed) for seed in (3, 3, 4)]
    first, same_seed, other_seed = (
        n.value_encoder.backbone.conv1.weight.detach() for n in networks
    )
    trained = tiny_network(is_single_object=True).value_encoder.backbone.conv1.weight
    assert torch.equal(first[:, :4], trained)
    rows = first[:, 4].flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(8), rtol=1e-5, atol=1e-5)
    assert torch.equal(first, same_seed)
    assert not torch.allclose(first, other_seed)

    state = torch.get_rng_state()
    widen(tiny_network(is_single_object=True).state_dict(), orthogonal_seed=5)
    assert torch.equal(torch.get_rng_state(), state)  # the random numbers of a run do not change


def test_stage_0_loads_weights_of_stage_0_only(stage0: Path, tmp_path: Path) -> None:
    same = load_network(stage0, is_single_object=True)
    assert same.spec.is_single_object
    assert same.value_encoder.backbone.conv1.weight.shape[1] == 4
    save_network(tmp_path / "stage3.pth", tiny_network(), {})
    with pytest.raises(ValueError, match=r"stage3.pth was trained with several objects.*--stage 3"):
        load_network(tmp_path / "stage3.pth", is_single_object=True)


def test_stage_0_weights_of_rde_are_evaluated_as_stcn(tmp_path: Path) -> None:
    network = build_network(NetworkSpec("rde", "tiny", is_single_object=True))
    save_network(tmp_path / "s0.pth", network, {})
    with pytest.warns(UserWarning, match="weights of rde after stage 0, .* evaluated as stcn"):
        assert load_for_inference(tmp_path / "s0.pth").spec.method == "stcn"
    assert load_network(tmp_path / "s0.pth").spec == NetworkSpec("rde", "tiny")
