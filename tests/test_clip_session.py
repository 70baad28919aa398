"""Clips worked on by hand: directions, corrections, removals, and views that are averaged."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.synthetic import make_clip
from inference.clip_session import ClipSession
from inference.predictor import Predictor
from inference.propagation import _forward_weight, mix
from inference.tracker import Tracker
from inference.views import View, make_views
from inference_core import InferenceCore
from inference_core_yv import InferenceCoreYV
from util.hyper_para import EvalSettings

SIZE = (48, 64)
NUM_FRAMES = 12


@pytest.fixture(scope="module")
def sessions(tiny_weights: Path) -> Predictor:
    settings = EvalSettings(model=str(tiny_weights), device="cpu", mem_every=2)
    return Predictor(settings, InferenceCoreYV)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    clip = make_clip(NUM_FRAMES, *SIZE, num_objects=2, seed=5)
    return [clip.frame(index)[0] for index in range(NUM_FRAMES)]


def box(label: int, top: int, left: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + 16, left : left + 16] = label
    return mask


def run(clip: ClipSession, direction: str = "forwards") -> dict[int, np.ndarray]:
    return dict(clip.propagate(direction))


def with_settings(predictor: Predictor, **changes: object) -> Predictor:
    settings = dataclasses.replace(predictor.settings, **changes)  # type: ignore[arg-type]
    other = Predictor.__new__(Predictor)
    other.__dict__ = {**predictor.__dict__, "settings": settings}
    return other


def test_backwards_is_forwards_through_the_reversed_clip(
    predictor: Predictor, frames: list[np.ndarray]
) -> None:
    clip, turned = ClipSession(predictor, frames), ClipSession(predictor, frames[::-1])
    clip.add_mask(NUM_FRAMES - 1, box(3, 10, 12))
    turned.add_mask(0, box(3, 10, 12))
    backwards = list(clip.propagate("backwards"))
    assert [index for index, _ in backwards] == [*range(NUM_FRAMES)][::-1]
    for (_, ours), (_, theirs) in zip(backwards, turned.propagate(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert any(labels.any() for _, labels in backwards[1:])


def test_a_correction_changes_what_follows_and_nothing_before(
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


def test_an_object_comes_and_goes(predictor: Predictor, frames: list[np.ndarray]) -> None:
    clip = ClipSession(predictor, frames)
    clip.add_mask(0, box(1, 4, 4))
    clip.add_mask(3, box(2, 24, 40))
    clip.remove_object(2, frame_index=7)
    found = run(clip)
    shown = [index for index, labels in found.items() if 2 in labels]
    assert shown[0] == 3
    assert shown[-1] == 6
    clip.add_mask(9, box(2, 8, 8))
    found = run(clip)
    assert not any(2 in found[index] for index in (7, 8))
    assert 2 in found[9]
    backwards = run(clip, "backwards")
    assert 2 in backwards[9]
    assert not any(2 in backwards[index] for index in (7, 8, 10, 11))
    assert 2 in backwards[3]


def test_both_ways_covers_frames_before_and_after_the_masks(
    predictor: Predictor, frames: list[np.ndarray]
) -> None:
    clip = ClipSession(predictor, frames)
    clip.add_mask(5, box(1, 16, 24))
    both, forwards, backwards = (run(clip, d) for d in ("both", "forwards", "backwards"))
    assert [*both] == [*range(NUM_FRAMES)]
    for index in range(NUM_FRAMES):
        one = backwards if index < 5 else forwards
        np.testing.assert_array_equal(both[index], one[index])
    assert not any(forwards[index].any() for index in range(5))


def test_between_two_masks_the_nearer_pass_counts_more() -> None:
    def prob(value: float) -> torch.Tensor:
        return torch.tensor([1 - value, value])[:, None, None]

    mixed, labels = mix((prob(0.9), [4]), (prob(0.1), [4]), {4: 0.75})
    assert labels == [4]
    assert mixed[1].item() == pytest.approx(0.7)
    assert mixed.sum(0).item() == pytest.approx(1)
    mixed, labels = mix((prob(0.9), [4]), (prob(0.8), [2]), {4: 1.0, 2: 0.0})
    assert labels == [2, 4]  # both are sure: they share
    assert mixed[:, 0, 0].tolist() == pytest.approx([0, 0.8 / 1.7, 0.9 / 1.7])


def test_the_weight_of_the_forward_pass_falls_from_its_mask_to_the_next() -> None:
    weights = [_forward_weight([2, 12], index) for index in (2, 4, 7, 11, 12, 13)]
    assert weights == pytest.approx([1, 0.8, 0.5, 0.1, 1, 1])
    assert _forward_weight([2, 12], 1) == 0


def test_two_passes_with_an_object_that_is_removed(tmp_path: Path) -> None:
    weights = Path(__file__).resolve().parents[1] / "saves" / "stcn_small.pth"
    predictor = Predictor(EvalSettings(model=str(weights), device="cpu"), InferenceCoreYV)
    drawn = [*make_clip(NUM_FRAMES, 96, 144, num_objects=2, seed=5)]
    clip = ClipSession(predictor, [image for image, _ in drawn], scratch=tmp_path)
    first, last = drawn[0][1], drawn[-1][1]
    clip.add_mask(0, first)
    clip.add_mask(NUM_FRAMES - 1, np.where(last == 1, last, 0).astype(np.uint8))
    clip.remove_object(2, frame_index=6)
    found = run(clip, "both")
    assert [index for index, labels in found.items() if 2 in labels] == [*range(6)]
    assert all(1 in labels for labels in found.values())
    clip.restore_object(2)
    assert 2 in run(clip, "both")[NUM_FRAMES - 2]
    running = clip.propagate("both")
    assert isinstance(running, Generator)
    next(running)
    assert [*tmp_path.iterdir()]
    running.close()
    assert not [*tmp_path.iterdir()]


def test_what_is_given_while_it_runs_is_for_the_next_time(
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


def test_removing_an_object_on_the_frame_of_its_mask(
    predictor: Predictor, frames: list[np.ndarray]
) -> None:
    clip = ClipSession(predictor, frames)
    clip.add_mask(0, box(1, 4, 4) + box(2, 24, 40))
    clip.add_mask(5, box(1, 8, 8))
    clip.remove_object(1, frame_index=5)
    found = run(clip)
    assert 1 in found[4]
    assert not any(1 in found[index] for index in range(5, NUM_FRAMES))
    clip.add_mask(5, box(1, 8, 8))
    assert 1 in run(clip)[5]
    clip.remove_object(2, frame_index=0)
    assert clip.labels == [1]


def test_given_frames_come_back_as_given_both_ways(
    predictor: Predictor, frames: list[np.ndarray]
) -> None:
    clip = ClipSession(predictor, frames)
    first, last = box(1, 4, 4), box(1, 28, 40)
    clip.add_mask(0, first)
    clip.add_mask(NUM_FRAMES - 1, last)
    both = run(clip, "both")
    np.testing.assert_array_equal(both[0], first)
    np.testing.assert_array_equal(both[NUM_FRAMES - 1], last)


def test_masks_on_one_frame_join(predictor: Predictor, frames: list[np.ndarray]) -> None:
    clip = ClipSession(predictor, frames)
    clip.add_mask(0, box(1, 0, 0) + box(2, 24, 24))
    clip.add_mask(0, box(2, 0, 32))
    np.testing.assert_array_equal(run(clip)[0], box(1, 0, 0) + box(2, 0, 32))


def test_wrong_use_is_refused(predictor: Predictor, frames: list[np.ndarray]) -> None:
    clip = ClipSession(predictor, frames)
    with pytest.raises(ValueError, match="No mask is given"):
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
    odd = ClipSession(predictor, [frames[0], frames[1][:-1]])
    odd.add_mask(0, box(1, 0, 0))
    with pytest.raises(ValueError, match="Frame 1 is"):
        run(odd)


# Live use, and views


def test_a_tracker_takes_frames_of_any_size(predictor: Predictor, frames: list[np.ndarray]) -> None:
    small = with_settings(predictor, size=32)
    tracker = Tracker(small)
    given = box(7, 10, 10)
    found = [tracker.segment(frames[0], given), *(tracker.segment(f) for f in frames[1:4])]
    assert {labels.shape for labels in found} == {SIZE}
    overlap = ((found[0] == 7) & (given == 7)).sum() / ((found[0] == 7) | (given == 7)).sum()
    assert overlap > 0.8  # the mask went down to 32 rows and back
    tracker.segment(frames[4], box(9, 20, 40))
    assert tracker.labels == [7, 9]
    tracker.remove_object(7)
    assert 7 not in tracker.segment(frames[5])
    for wrong in (given[:-1], given.astype(np.int64), given > 0):
        with pytest.raises(ValueError, match="one size"):
            tracker.segment(frames[6], wrong)
    for image in (frames[6][..., 0], frames[6] / 255, np.dstack([frames[6]] * 2)):
        with pytest.raises(ValueError, match="RGB"):
            tracker.segment(image)
    assert tracker.segment(frames[6][..., ::-1]).shape == SIZE  # OpenCV's order, turned


def test_the_clock_of_a_tracker_runs_until_the_answer_is_there(
    predictor: Predictor, frames: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first wait for a device is the look for NaNs."""
    plain = torch.isfinite

    def slow(tensor: torch.Tensor) -> torch.Tensor:
        time.sleep(0.05)
        return plain(tensor)

    monkeypatch.setattr(torch, "isfinite", slow)
    tracker = Tracker(predictor)
    for index in range(4):
        tracker.step(frames[index], box(1, 4, 4) if index == 0 else None)
    assert tracker.seconds >= 4 * 0.05


def test_views_that_lose_different_objects_know_the_same(
    predictor: Predictor, frames: list[np.ndarray]
) -> None:
    given = np.zeros(SIZE, np.uint8)
    given[10, 10:27] = np.arange(1, 18)  # of one pixel each
    tracker = Tracker(with_settings(predictor, scales=[1.0, 0.25]))
    tracker.step(frames[0], given)
    assert tracker.labels == [*range(1, 18)]
    assert all(core.labels == tracker.labels for core in tracker._cores)
    prob = tracker.step(frames[1])
    assert prob is not None
    assert prob.shape == (18, *SIZE)


def test_only_cores_that_let_objects_go_remove(
    tiny_weights: Path, frames: list[np.ndarray]
) -> None:
    settings = EvalSettings(model=str(tiny_weights), device="cpu")
    tracker = Tracker(Predictor(settings, InferenceCore))
    tracker.segment(frames[0], box(1, 0, 0))
    with pytest.raises(ValueError, match="InferenceCoreYV"):
        tracker.remove_object(1)


def test_views_are_the_product_of_scales_and_flips() -> None:
    settings = EvalSettings(scales=[0.5, 1.0], flip=True)
    assert make_views(settings) == [View(0.5), View(0.5, True), View(1.0), View(1.0, True)]
    assert make_views(EvalSettings()) == [View()]
    # With --size, frames come at the largest scale: nothing is enlarged that was reduced before.
    settings = EvalSettings(size=100, scales=[1.0, 2.0])
    assert settings.shorter_side == 200
    assert make_views(settings) == [View(0.5), View(1.0)]


def test_a_mirrored_view_is_the_mirrored_run(
    predictor: Predictor, frames: list[np.ndarray]
) -> None:
    """The mean of both views of a clip is that of its mirror image, mirrored."""
    both = with_settings(predictor, flip=True)
    given = box(1, 10, 4)
    ours, theirs, plain = Tracker(both), Tracker(both), Tracker(predictor)
    for index, frame in enumerate(frames[:5]):
        mask = given if index == 0 else None
        turned = None if mask is None else np.ascontiguousarray(mask[:, ::-1])
        prob = ours.step(frame, mask)
        mirrored = theirs.step(np.ascontiguousarray(frame[:, ::-1]), turned)
        alone = plain.step(frame, mask)
        assert prob is not None
        assert mirrored is not None
        assert alone is not None
        torch.testing.assert_close(prob, mirrored.flip(-1), atol=1e-5, rtol=0)
        torch.testing.assert_close(prob.sum(0), torch.ones(SIZE))
        differs = index == 0 or not torch.allclose(prob, alone, atol=1e-4)
        assert differs  # the second view says something


def test_scales_are_averaged(predictor: Predictor, frames: list[np.ndarray]) -> None:
    alone = [Tracker(with_settings(predictor, scales=[scale])) for scale in (1.0, 1.5)]
    together = Tracker(with_settings(predictor, scales=[1.0, 1.5]))
    for index, frame in enumerate(frames[:4]):
        mask = box(1, 10, 4) if index == 0 else None
        parts = [tracker.step(frame, mask) for tracker in alone]
        prob = together.step(frame, mask)
        assert prob is not None
        expected = torch.stack([part for part in parts if part is not None]).mean(0)
        torch.testing.assert_close(prob, expected)
