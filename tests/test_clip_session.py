"""ClipSession: directions, corrections and removals."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.synthetic import make_clip
from inference.clip_session import ClipSession
from inference.predictor import Predictor
from inference.propagation import _forward_weight, mix
from inference_core_yv import InferenceCoreYV
from util.hyper_para import EvalSettings

SIZE = (48, 64)
NUM_FRAMES = 12


@pytest.fixture(scope="module")
def predictor(tiny_weights: Path) -> Predictor:
    settings = EvalSettings(model=str(tiny_weights), device="cpu", mem_every=2)
    return Predictor(settings, InferenceCoreYV)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    clip = make_clip(NUM_FRAMES, *SIZE, num_objects=2, seed=5)
    return [clip.frame(index)[0] for index in range(NUM_FRAMES)]


def box(label: int, top: int, left: int) -> np.ndarray:
    """Mask of SIZE with one object of 16x16 pixels."""
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + 16, left : left + 16] = label
    return mask


def run(clip: ClipSession, direction: str = "forwards") -> dict[int, np.ndarray]:
    """Label maps by frame index."""
    return dict(clip.propagate(direction))


def test_backwards_equals_forwards_on_the_reversed_clip(
    predictor: Predictor, frames: list[np.ndarray]
) -> None:
    clip, reversed_clip = ClipSession(predictor, frames), ClipSession(predictor, frames[::-1])
    clip.add_mask(NUM_FRAMES - 1, box(3, 10, 12))
    reversed_clip.add_mask(0, box(3, 10, 12))
    backwards = list(clip.propagate("backwards"))
    assert [index for index, _ in backwards] == [*range(NUM_FRAMES)][::-1]
    for (_, labels), (_, expected) in zip(backwards, reversed_clip.propagate(), strict=True):
        np.testing.assert_array_equal(labels, expected)
    assert any(labels.any() for _, labels in backwards[1:])


def test_a_correction_changes_only_later_frames(
    predictor: Predictor, frames: list[np.ndarray]
) -> None:
    clip = ClipSession(predictor, frames)
    clip.add_mask(0, box(1, 4, 4) + box(2, 24, 40))
    before = run(clip)
    clip.add_mask(6, box(1, 20, 8))
    after = run(clip)
    for index in range(6):
        np.testing.assert_array_equal(before[index], after[index])
    assert all((before[index] != after[index]).any() for index in range(6, NUM_FRAMES))
    np.testing.assert_array_equal(after[6] == 1, box(1, 20, 8) == 1)
    clip.clear_mask(6)
    for index, labels in run(clip).items():
        np.testing.assert_array_equal(labels, before[index])


def test_an_object_is_added_removed_and_added_again(
    predictor: Predictor, frames: list[np.ndarray]
) -> None:
    clip = ClipSession(predictor, frames)
    clip.add_mask(0, box(1, 4, 4))
    clip.add_mask(3, box(2, 24, 40))
    clip.remove_object(2, frame_index=7)
    indices = [index for index, labels in run(clip).items() if 2 in labels]
    assert indices[0] == 3
    assert indices[-1] == 6
    clip.add_mask(9, box(2, 8, 8))
    masks = run(clip)
    assert not any(2 in masks[index] for index in (7, 8))
    assert 2 in masks[9]
    backwards = run(clip, "backwards")
    assert 2 in backwards[9]
    assert not any(2 in backwards[index] for index in (7, 8, 10, 11))
    assert 2 in backwards[3]


def test_both_ways_segments_frames_before_and_after_the_mask(
    predictor: Predictor, frames: list[np.ndarray]
) -> None:
    clip = ClipSession(predictor, frames)
    clip.add_mask(5, box(1, 16, 24))
    both, forwards, backwards = (run(clip, d) for d in ("both", "forwards", "backwards"))
    assert [*both] == [*range(NUM_FRAMES)]
    for index in range(NUM_FRAMES):
        expected = backwards if index < 5 else forwards
        np.testing.assert_array_equal(both[index], expected[index])
    assert not any(forwards[index].any() for index in range(5))


def test_the_mean_of_two_directions_is_weighted() -> None:
    def prob(value: float) -> torch.Tensor:
        return torch.tensor([1 - value, value])[:, None, None]

    mixed, labels = mix((prob(0.9), [4]), (prob(0.1), [4]), {4: 0.75})
    assert labels == [4]
    assert mixed[1].item() == pytest.approx(0.7)
    assert mixed.sum(0).item() == pytest.approx(1)
    mixed, labels = mix((prob(0.9), [4]), (prob(0.8), [2]), {4: 1.0, 2: 0.0})
    assert labels == [2, 4]  # their sum exceeds 1
    assert mixed[:, 0, 0].tolist() == pytest.approx([0, 0.8 / 1.7, 0.9 / 1.7])


def test_the_forward_weight_falls_linearly_between_two_masks() -> None:
    weights = [_forward_weight([2, 12], index) for index in (2, 4, 7, 11, 12, 13)]
    assert weights == pytest.approx([1, 0.8, 0.5, 0.1, 1, 1])
    assert _forward_weight([2, 12], 1) == 0


def test_both_ways_with_a_removed_object(tmp_path: Path) -> None:
    weights = Path(__file__).resolve().parents[1] / "saves" / "stcn_small.pth"
    predictor = Predictor(EvalSettings(model=str(weights), device="cpu"), InferenceCoreYV)
    drawn = [*make_clip(NUM_FRAMES, 96, 144, num_objects=2, seed=5)]
    clip = ClipSession(predictor, [image for image, _ in drawn], scratch=tmp_path)
    first, last = drawn[0][1], drawn[-1][1]
    clip.add_mask(0, first)
    clip.add_mask(NUM_FRAMES - 1, np.where(last == 1, last, 0).astype(np.uint8))
    clip.remove_object(2, frame_index=6)
    masks = run(clip, "both")
    assert [index for index, labels in masks.items() if 2 in labels] == [*range(6)]
    assert all(1 in labels for labels in masks.values())
    clip.restore_object(2)
    assert 2 in run(clip, "both")[NUM_FRAMES - 2]
    running = clip.propagate("both")
    assert isinstance(running, Generator)
    next(running)
    assert [*tmp_path.iterdir()]
    running.close()
    assert not [*tmp_path.iterdir()]


def test_changes_during_a_propagation_take_effect_in_the_next_one(
    predictor: Predictor, frames: list[np.ndarray]
) -> None:
    clip = ClipSession(predictor, frames)
    clip.add_mask(0, box(1, 4, 4))
    before = run(clip)
    for index, labels in clip.propagate():
        np.testing.assert_array_equal(labels, before[index])
        if index == 1:
            clip.add_mask(9, box(2, 24, 40))
            clip.remove_object(1, frame_index=10)
    assert 2 in run(clip)[9]
    assert 1 not in run(clip)[10]


def test_an_object_is_removed_on_the_frame_of_its_mask(
    predictor: Predictor, frames: list[np.ndarray]
) -> None:
    clip = ClipSession(predictor, frames)
    clip.add_mask(0, box(1, 4, 4) + box(2, 24, 40))
    clip.add_mask(5, box(1, 8, 8))
    clip.remove_object(1, frame_index=5)
    masks = run(clip)
    assert 1 in masks[4]
    assert not any(1 in masks[index] for index in range(5, NUM_FRAMES))
    clip.add_mask(5, box(1, 8, 8))
    assert 1 in run(clip)[5]
    clip.remove_object(2, frame_index=0)
    assert clip.labels == [1]


def test_both_ways_keeps_the_annotations(predictor: Predictor, frames: list[np.ndarray]) -> None:
    clip = ClipSession(predictor, frames)
    first, last = box(1, 4, 4), box(1, 28, 40)
    clip.add_mask(0, first)
    clip.add_mask(NUM_FRAMES - 1, last)
    both = run(clip, "both")
    np.testing.assert_array_equal(both[0], first)
    np.testing.assert_array_equal(both[NUM_FRAMES - 1], last)


def test_masks_on_one_frame_are_merged(predictor: Predictor, frames: list[np.ndarray]) -> None:
    clip = ClipSession(predictor, frames)
    clip.add_mask(0, box(1, 0, 0) + box(2, 24, 24))
    clip.add_mask(0, box(2, 0, 32))
    np.testing.assert_array_equal(run(clip)[0], box(1, 0, 0) + box(2, 0, 32))


def test_invalid_arguments_are_refused(predictor: Predictor, frames: list[np.ndarray]) -> None:
    clip = ClipSession(predictor, frames)
    with pytest.raises(ValueError, match="There are no masks"):
        run(clip)
    with pytest.raises(ValueError, match="no frame 12"):
        clip.add_mask(12, box(1, 0, 0))
    with pytest.raises(ValueError, match="uint8"):
        clip.add_mask(0, box(1, 0, 0).astype(int))
    with pytest.raises(ValueError, match="no object"):
        clip.add_mask(0, np.zeros(SIZE, np.uint8))
    clip.add_mask(0, box(1, 0, 0))
    with pytest.raises(ValueError, match="no object 2"):
        clip.remove_object(2, frame_index=3)
    with pytest.raises(ValueError, match="sideways"):
        clip.propagate("sideways")
    with pytest.raises(TypeError):
        clip.add_mask(2.5, box(1, 0, 0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Frame 0 is .* float32"):
        ClipSession(predictor, [frames[0].astype(np.float32)])
    mixed = ClipSession(predictor, [frames[0], frames[1][:-1]])
    mixed.add_mask(0, box(1, 0, 0))
    with pytest.raises(ValueError, match=r"Frame 1 is .* need the same size"):
        run(mixed)
