"""--encode_batch: encoding several frames in one batch does not change the output."""

from __future__ import annotations

import gc
import itertools
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import eval_davis
from datasets.synthetic import make_clip
from inference.predictor import Predictor
from inference.propagation import propagate
from inference.tracker import Tracker
from inference_core import InferenceCore
from inference_core_yv import InferenceCoreYV
from model.features import EncodedImage
from model.methods import METHODS
from tests.example_sessions import (
    DISCS,
    FRAMES,
    HEIGHT,
    NUM_FRAMES,
    WIDTH,
    masks_on,
    network_and_policy,
)
from tests.tiny_networks import tiny_network
from util.frames import Frame
from util.hyper_para import EvalSettings
from util.masks import read_mask


class Clip(list[Frame]):
    """A drawn clip with two objects, whose masks are annotated on one frame."""

    def __init__(self, start: int = 0, required: range = range(NUM_FRAMES)) -> None:
        for index, (image, labels) in enumerate(make_clip(NUM_FRAMES, 40, 56, 2, seed=1)):
            mask = labels if index == start else None
            self.append(Frame(index, f"{index:05d}", image, mask, index in required))
        self.annotated_labels = {start: [1, 2]}


class RecordingTracker(Tracker):
    """Records the sizes of the batches."""

    batches: list[int]

    def encode_images(self, images: Any) -> list[list[Any]]:
        self.batches.append(len(images))
        return super().encode_images(images)


def propagate_clip(
    clip: Clip, batch: int, method: str = "stcn", write_all: bool = True, **options: Any
) -> tuple[list[torch.Tensor | None], list[int]]:
    """Return the probabilities of all frames, and the sizes of the batches."""
    # With these weights, RDE's embedding of many frames overflows.
    settings = EvalSettings(device="cpu", encode_batch=batch, mem_every=6, **options)
    predictor = Predictor(settings, InferenceCoreYV, tiny_network(method=method))
    batches: list[int] = []

    def start() -> Tracker:
        tracker = RecordingTracker(predictor, NUM_FRAMES, 2)
        tracker.batches = batches
        return tracker

    results = propagate(clip, clip.annotated_labels, start, settings.direction, write_all=write_all)
    by_frame = {result.frame.index: result.prob for result in results if result is not None}
    return [by_frame[index] for index in range(len(clip))], batches


@pytest.mark.parametrize("method", [*METHODS])
@pytest.mark.parametrize("direction", ["forwards", "backwards"])
def test_output_of_every_method_is_the_same(method: str, direction: str) -> None:
    clip = Clip(0 if direction == "forwards" else NUM_FRAMES - 1)
    expected, batches = propagate_clip(clip, 1, method, direction=direction)
    assert batches == []
    probs, batches = propagate_clip(clip, 4, method, direction=direction)
    assert batches == [4, 4, 4, 2]
    for prob, each in zip(probs, expected, strict=True):
        torch.testing.assert_close(prob, each, rtol=1e-4, atol=1e-5)


def test_output_with_several_views_is_the_same() -> None:
    options: dict[str, Any] = {"scales": [1.0, 1.5], "flip": True}
    expected, _ = propagate_clip(Clip(), 1, **options)
    probs, batches = propagate_clip(Clip(), 5, **options)
    assert batches == [5, 5, 4]
    for prob, each in zip(probs, expected, strict=True):
        torch.testing.assert_close(prob, each, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "start", "expected_batches"),
    [
        ("stcn", 0, [3, 2]),  # frames 0, 3, 6 and 9, 12
        ("stcn", 8, [2]),  # frames 9 and 12: before frame 8, there is no object
        ("qdmn", 0, [3, 3, 3, 3, 2]),  # QDMN needs every frame
        ("qdmn", 8, [3, 2]),
    ],
)
def test_skipped_frames_are_not_encoded(
    method: str, start: int, expected_batches: list[int]
) -> None:
    clip = Clip(start, required=range(0, NUM_FRAMES, 3))
    expected, _ = propagate_clip(clip, 1, method, write_all=False)
    probs, batches = propagate_clip(clip, 3, method, write_all=False)
    assert batches == expected_batches
    for prob, each in zip(probs, expected, strict=True):
        assert (prob is None) == (each is None)
        if prob is not None and each is not None:
            assert torch.allclose(prob, each, atol=1e-5)


def test_features_of_a_batch_are_released_before_the_next() -> None:
    references: list[Any] = []

    class CheckingTracker(Tracker):
        def encode_images(self, images: Any) -> list[list[Any]]:
            gc.collect()
            assert not [reference for reference in references if reference() is not None]
            encoded = super().encode_images(images)
            references.extend(weakref.ref(each) for views in encoded for each in views)
            return encoded

    predictor = Predictor(EvalSettings(device="cpu", encode_batch=4), network=tiny_network())
    clip = Clip()
    for _ in propagate(
        clip, clip.annotated_labels, lambda: CheckingTracker(predictor, NUM_FRAMES, 2)
    ):
        pass
    assert len(references) == NUM_FRAMES


def test_frames_before_a_damaged_one_are_segmented() -> None:
    class DamagedClip(Clip):
        def __getitem__(self, index: Any) -> Any:
            if index == 6:
                raise ValueError("00006.jpg is truncated.")
            return super().__getitem__(index)

    predictor = Predictor(EvalSettings(device="cpu", encode_batch=4), network=tiny_network())
    clip = DamagedClip()
    results = propagate(clip, clip.annotated_labels, lambda: Tracker(predictor, NUM_FRAMES, 2))
    assert [each.frame.index for each in itertools.islice(results, 6) if each] == [*range(6)]
    with pytest.raises(ValueError, match=r"00006\.jpg is truncated"):
        next(results)


def test_error_names_a_frame_of_another_type() -> None:
    clip = Clip()
    clip[6] = replace(clip[6], image=clip[6].image.astype(np.int16))
    predictor = Predictor(EvalSettings(device="cpu", encode_batch=4), network=tiny_network())
    results = propagate(clip, clip.annotated_labels, lambda: Tracker(predictor, NUM_FRAMES, 2))
    assert len([*itertools.islice(results, 6)]) == 6
    with pytest.raises(ValueError, match="frame 00006: An image must be uint8"):
        next(results)


def test_frames_before_one_of_another_size_are_segmented() -> None:
    clip = Clip()
    clip[6] = replace(clip[6], image=clip[6].image[:32])
    predictor = Predictor(EvalSettings(device="cpu", encode_batch=4), network=tiny_network())
    results = propagate(clip, clip.annotated_labels, lambda: Tracker(predictor, NUM_FRAMES, 2))
    assert [each.frame.index for each in itertools.islice(results, 6) if each] == [*range(6)]
    with pytest.raises(ValueError, match=r"frame 00006: Frame 6 is \(32, 56\), but the frames"):
        next(results)


@pytest.mark.parametrize("method", [*METHODS])
def test_step_accepts_frames_and_encoded_frames(method: str) -> None:
    network, policy = network_and_policy(method)
    plain, mixed = InferenceCore(network, policy, 5), InferenceCore(network, policy, 5)
    encoded = mixed.encode_images(torch.stack([*FRAMES]))
    assert all(each.size == (HEIGHT, WIDTH) for each in encoded)
    for t in range(NUM_FRAMES):
        masks = masks_on({0: [1, 2]}, t)
        frame: torch.Tensor | EncodedImage = FRAMES[t] if t % 3 == 1 else encoded[t]
        torch.testing.assert_close(
            mixed.step(frame, masks), plain.step(FRAMES[t], masks), rtol=1e-4, atol=1e-5
        )
    small = InferenceCore(network, policy, 5)
    small.step(FRAMES[0][:, :32], {1: DISCS[0, 0, :32]})
    with pytest.raises(ValueError, match=r"Frame 1 is \(40, 56\), but the .* are \(32, 56\)"):
        small.step(encoded[1])
    with pytest.raises(ValueError, match=r"Frames must be \(T, 3, H, W\); these are \(3, 40"):
        mixed.encode_images(FRAMES[0])


def test_default_batch_size() -> None:
    def batch_size(height: int, width: int, **options: Any) -> int:
        predictor = Predictor(EvalSettings(device="cpu", **options), network=tiny_network())
        return Tracker(predictor).encode_batch_size(np.zeros((height, width, 3), np.uint8))

    assert batch_size(480, 854) == 1, "one float32 frame keeps all cores busy"
    assert batch_size(480, 854, amp=True) == 4
    assert batch_size(1080, 1920, amp=True) == 1, "a batch of large frames needs too much memory"
    assert batch_size(2160, 3840, amp=True) == 1
    assert batch_size(480, 854, amp=True, flip=True) == 2
    assert batch_size(2160, 3840, encode_batch=3) == 3, "--encode_batch"


def test_eval_script_resumes_with_another_batch_size(
    synthetic: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    original = Tracker.encode_images

    def encode_images(tracker: Tracker, images: Any) -> list[list[Any]]:
        batches.append(len(images))
        return original(tracker, images)

    monkeypatch.setattr(Tracker, "encode_images", encode_images)
    flags = ["--davis_path", f"{synthetic}/DAVIS/2017", "--model", f"{tiny_weights}"]
    flags += ["--output", f"{tmp_path}/out", "--device", "cpu"]
    assert eval_davis.main([*flags, "--encode_batch", "1"]) == 0
    before = {path: read_mask(path).labels for path in (tmp_path / "out").rglob("*.png")}
    sorted(before)[-1].unlink()
    assert batches == []
    assert eval_davis.main([*flags, "--encode_batch", "5"]) == 0
    assert batches == [5, 5], "one video was incomplete; its last frame is encoded alone"
    for path, labels in before.items():
        assert (read_mask(path).labels == labels).mean() > 0.99
