"""Confidence, agreement and keys of propagated frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.synthetic import make_clip
from inference.clip_session import ClipSession
from inference.frame_results import FrameResult, agreements, confidences, pool_key
from inference.predictor import Predictor
from tests.test_clip_session import NUM_FRAMES, SIZE, box
from tests.tiny_networks import tiny_network
from util.hyper_para import EvalSettings


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(EvalSettings(device="cpu", mem_every=2), network=tiny_network())


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return [image for image, _ in make_clip(NUM_FRAMES, *SIZE, num_objects=2, seed=5)]


def probabilities(*objects: torch.Tensor) -> torch.Tensor:
    """Probabilities (O+1, h, w) of objects; the background is the remainder."""
    prob = torch.stack(objects)
    return torch.cat([1 - prob.sum(0, keepdim=True), prob])


def test_the_results_are_those_of_propagate(predictor: Predictor, frames: list[np.ndarray]) -> None:
    clip = ClipSession(predictor, frames)
    clip.add_mask(3, box(1, 4, 4) + box(4, 24, 40))
    clip.add_mask(9, box(1, 20, 8))
    for direction in ("forwards", "backwards", "both"):
        results = [*clip.propagate_results(direction)]
        if direction == "both":
            assert results[:NUM_FRAMES] == [None] * NUM_FRAMES  # the backward propagation
            results = results[NUM_FRAMES:]
        for result, (index, labels) in zip(results, clip.propagate(direction), strict=True):
            assert result is not None
            assert result.index == index
            np.testing.assert_array_equal(result.labels, labels)
            assert all(0 <= value <= 1 for value in result.confidence.values())


def test_keys_and_labels_of_the_measures(predictor: Predictor, frames: list[np.ndarray]) -> None:
    clip = ClipSession(predictor, frames)
    clip.add_mask(3, box(1, 4, 4) + box(4, 24, 40))
    clip.add_mask(9, box(1, 20, 8))

    def run(direction: str) -> dict[int, FrameResult]:
        results = clip.propagate_results(direction)
        return {result.index: result for result in results if result is not None}

    forwards, both = run("forwards"), run("both")
    assert forwards[2].key is None
    assert forwards[2].confidence == {}
    assert {*forwards[5].confidence} == {1, 4}
    assert forwards[3].confidence[1] == pytest.approx(1, abs=1e-3)
    assert not any(result.agreement for result in forwards.values())
    key = forwards[5].key
    assert key is not None
    assert key.dtype == np.float16
    assert key.shape[1:] == (SIZE[0] // 16, SIZE[1] // 16)
    both_key = both[5].key
    assert both_key is not None
    np.testing.assert_array_equal(key, both_key)
    # Object 4 is annotated on frame 3 only, so only one direction segments it after that.
    assert {index for index, result in both.items() if 1 in result.agreement} == {*range(3, 10)}
    assert {index for index, result in both.items() if 4 in result.agreement} == {3}
    assert both[3].agreement[4] == 1


def test_confidence_is_the_expected_iou() -> None:
    p = torch.full((10, 10), 1e-6)
    p[2:6, 2:6] = 0.8
    p[6, 2:6] = 0.4
    expected = 16 * 0.8 / (16 + 4 * 0.4)
    assert confidences(probabilities(p), [7])[7] == pytest.approx(expected, abs=1e-4)
    certain = (p > 0.5).float()
    assert confidences(probabilities(certain), [7]) == {7: 1}


def test_confidence_of_an_empty_mask() -> None:
    absent = torch.full((480, 854), 1e-3)  # a sum of 400 pixels
    fading = absent.clone()
    fading[100:110, 100:110] = 0.4
    values = confidences(probabilities(absent, fading), [1, 2])
    assert values[1] == pytest.approx(1, abs=0.01)
    assert values[2] == pytest.approx(0.6)
    assert confidences(torch.ones(1, 4, 4), []) == {}


def test_faint_probabilities_do_not_lower_the_confidence_of_a_small_object() -> None:
    p = torch.full((480, 854), 1e-3)
    p[10:14, 10:14] = 0.95
    assert confidences(probabilities(p), [1])[1] == pytest.approx(0.95, abs=0.01)


def test_equal_probabilities_count_for_one_object() -> None:
    half = torch.full((2, 2), 0.5)
    values = confidences(probabilities(half, half), [1, 2])
    assert values == {1: pytest.approx(0.5), 2: pytest.approx(0.5)}


def test_agreement() -> None:
    left, right = torch.zeros(4, 8), torch.zeros(4, 8)
    left[:, :4], right[:, 2:6] = 0.9, 0.9
    nothing = torch.zeros(4, 8)
    first = probabilities(left, nothing), [3, 5]
    second = probabilities(right, nothing, nothing), [3, 5, 6]
    assert agreements(first, second) == {3: pytest.approx(8 / 24), 5: 1}


def test_pooled_keys() -> None:
    assert pool_key(torch.ones(8, 30, 54)).shape == (8, 15, 27)
    assert pool_key(torch.ones(8, 54, 30)).shape == (8, 27, 15)
    assert pool_key(torch.ones(8, 4, 100)).shape == (8, 4, 27)
    small = torch.randn(8, 3, 5)
    np.testing.assert_allclose(pool_key(small), small.numpy(), atol=1e-2)


def test_quality_is_that_of_the_method(frames: list[np.ndarray]) -> None:
    network = tiny_network(method="qdmn")
    settings = EvalSettings(device="cpu", memory="quality")
    clip = ClipSession(Predictor(settings, network=network), frames)
    clip.add_mask(0, box(1, 4, 4))
    results = [*clip.propagate_results()]
    assert any(result is not None and {*result.quality} == {1} for result in results)


def test_errors_are_raised_at_the_call(
    predictor: Predictor, frames: list[np.ndarray], tmp_path: Path
) -> None:
    clip = ClipSession(predictor, frames, scratch=tmp_path)
    with pytest.raises(ValueError, match="There are no masks"):
        clip.propagate_results()
    clip.add_mask(NUM_FRAMES - 1, box(1, 4, 4))
    with pytest.raises(ValueError, match="no direction 'sideways'"):
        clip.propagate_results("sideways")
    clip.add_mask(0, box(1, 4, 4))
    results = clip.propagate_results("both")
    next(results)
    assert [*tmp_path.iterdir()]
    del results  # stops the propagation
    assert not [*tmp_path.iterdir()]
