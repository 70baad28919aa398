"""Frames that are looked at several at once, before their turn: what comes out stays the same."""

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
from tests.test_all_methods import DISCS, FRAMES, HEIGHT, NUM_FRAMES, WIDTH, masks_on, ready
from tests.test_network import tiny_network
from util.frames import Frame
from util.hyper_para import EvalSettings
from util.masks import read_mask


class Clip(list[Frame]):
    """A drawn clip whose two objects start on a frame, and of which some frames are wanted."""

    def __init__(self, starts: int = 0, wanted: range = range(NUM_FRAMES)) -> None:
        for index, (image, labels) in enumerate(make_clip(NUM_FRAMES, 40, 56, 2, seed=1)):
            given = labels if index == starts else None
            self.append(Frame(index, f"{index:05d}", image, given, index in wanted))
        self.annotated_labels = {starts: [1, 2]}


class Counting(Tracker):
    """Notes how many frames were looked at at once."""

    groups: list[int]

    def encode_images(self, images: Any) -> list[list[Any]]:
        self.groups.append(len(images))
        return super().encode_images(images)


def follow(
    clip: Clip, batch: int, method: str = "stcn", write_all: bool = True, **asked: Any
) -> tuple[list[torch.Tensor | None], list[int]]:
    """Probabilities by frame, and how many frames were looked at at once."""
    # RDE's embedding of many frames overflows with these weights.
    settings = EvalSettings(device="cpu", encode_batch=batch, mem_every=6, **asked)
    predictor = Predictor(settings, InferenceCoreYV, tiny_network(method=method))
    groups: list[int] = []

    def start() -> Tracker:
        tracker = Counting(predictor, NUM_FRAMES, 2)
        tracker.groups = groups
        return tracker

    found = propagate(clip, clip.annotated_labels, start, settings.direction, write_all=write_all)
    by_frame = {f.frame.index: f.prob for f in found if f is not None}
    return [by_frame[index] for index in range(len(clip))], groups


@pytest.mark.parametrize("method", [*METHODS])
@pytest.mark.parametrize("direction", ["forwards", "backwards"])
def test_every_method_answers_the_same(method: str, direction: str) -> None:
    clip = Clip(0 if direction == "forwards" else NUM_FRAMES - 1)
    alone, groups = follow(clip, 1, method, direction=direction)
    assert groups == []
    ahead, groups = follow(clip, 4, method, direction=direction)
    assert groups == [4, 4, 4, 2]
    for one, other in zip(alone, ahead, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_with_several_views() -> None:
    asked: dict[str, Any] = {"scales": [1.0, 1.5], "flip": True}
    alone, _ = follow(Clip(), 1, **asked)
    ahead, groups = follow(Clip(), 5, **asked)
    assert groups == [5, 5, 4]
    for one, other in zip(alone, ahead, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "starts", "groups"),
    [
        ("stcn", 0, [3, 2]),  # 0, 3, 6; 9, 12
        ("stcn", 8, [2]),  # before it there is no object, and then come 9 and 12
        ("qdmn", 0, [3, 3, 3, 3, 2]),  # whose every frame counts
        ("qdmn", 8, [3, 2]),
    ],
)
def test_frames_that_nobody_needs_are_not_looked_at(
    method: str, starts: int, groups: list[int]
) -> None:
    clip = Clip(starts, wanted=range(0, NUM_FRAMES, 3))
    alone, _ = follow(clip, 1, method, write_all=False)
    ahead, found = follow(clip, 3, method, write_all=False)
    assert found == groups
    assert [prob is None for prob in ahead] == [prob is None for prob in alone]
    for one, other in zip(alone, ahead, strict=True):
        assert one is other is None or torch.allclose(one, other, atol=1e-5)  # type: ignore[arg-type]


def test_what_was_seen_of_a_group_is_gone_before_the_next() -> None:
    alive: list[Any] = []

    class Watching(Tracker):
        def encode_images(self, images: Any) -> list[list[Any]]:
            gc.collect()
            assert not [reference for reference in alive if reference() is not None]
            looks = super().encode_images(images)
            alive.extend(weakref.ref(each) for views in looks for each in views)
            return looks

    predictor = Predictor(EvalSettings(device="cpu", encode_batch=4), network=tiny_network())
    for _ in propagate(Clip(), Clip().annotated_labels, lambda: Watching(predictor, NUM_FRAMES, 2)):
        pass
    assert len(alive) == NUM_FRAMES


def test_frames_before_one_that_cannot_be_read_are_there() -> None:
    class Broken(Clip):
        def __getitem__(self, index: Any) -> Any:
            if index == 6:
                raise ValueError("00006.jpg is cut short.")
            return super().__getitem__(index)

    predictor = Predictor(EvalSettings(device="cpu", encode_batch=4), network=tiny_network())
    found = propagate(
        Broken(), Broken().annotated_labels, lambda: Tracker(predictor, NUM_FRAMES, 2)
    )
    assert [each.frame.index for each in itertools.islice(found, 6) if each] == [*range(6)]
    with pytest.raises(ValueError, match=r"00006\.jpg is cut short"):
        next(found)


def test_a_frame_of_another_type_is_named() -> None:
    clip = Clip()
    clip[6] = replace(clip[6], image=clip[6].image.astype(np.int16))
    predictor = Predictor(EvalSettings(device="cpu", encode_batch=4), network=tiny_network())
    found = propagate(clip, clip.annotated_labels, lambda: Tracker(predictor, NUM_FRAMES, 2))
    assert len([*itertools.islice(found, 6)]) == 6
    with pytest.raises(ValueError, match="frame 00006: An image must be uint8"):
        next(found)


def test_a_frame_of_another_size_is_named_and_those_before_it_are_there() -> None:
    clip = Clip()
    clip[6] = replace(clip[6], image=clip[6].image[:32])
    predictor = Predictor(EvalSettings(device="cpu", encode_batch=4), network=tiny_network())
    found = propagate(clip, clip.annotated_labels, lambda: Tracker(predictor, NUM_FRAMES, 2))
    assert [each.frame.index for each in itertools.islice(found, 6) if each] == [*range(6)]
    with pytest.raises(ValueError, match=r"frame 00006: Frame 6 is \(32, 56\), but those before"):
        next(found)


@pytest.mark.parametrize("method", [*METHODS])
def test_a_core_takes_either(method: str) -> None:
    """Frames as they are and frames looked at before, in turn, padded or not."""
    network, policy = ready(method)
    one, other = InferenceCore(network, policy, 5), InferenceCore(network, policy, 5)
    seen = other.encode_images(torch.stack([*FRAMES]))
    assert all(each.size == (HEIGHT, WIDTH) for each in seen)
    for t in range(NUM_FRAMES):
        masks = masks_on({0: [1, 2]}, t)
        frame: torch.Tensor | EncodedImage = FRAMES[t] if t % 3 == 1 else seen[t]
        torch.testing.assert_close(
            one.step(FRAMES[t], masks), other.step(frame, masks), rtol=1e-4, atol=1e-5
        )
    small = InferenceCore(network, policy, 5)
    small.step(FRAMES[0][:, :32], {1: DISCS[0, 0, :32]})
    with pytest.raises(ValueError, match=r"Frame 1 is \(40, 56\), but those before are \(32, 56\)"):
        small.step(seen[1])
    with pytest.raises(ValueError, match=r"Frames are \(T, 3, H, W\) together; these are \(3, 40"):
        other.encode_images(FRAMES[0])


def test_as_many_as_pay() -> None:
    def at_once(height: int, width: int, **asked: Any) -> int:
        predictor = Predictor(EvalSettings(device="cpu", **asked), network=tiny_network())
        return Tracker(predictor).encode_batch_size(np.zeros((height, width, 3), np.uint8))

    assert at_once(480, 854) == 1, "one float32 frame fills a CPU"
    assert at_once(480, 854, amp=True) == 4
    assert at_once(1080, 1920, amp=True) == at_once(2160, 3840, amp=True) == 1, "memory is dear"
    assert at_once(480, 854, amp=True, flip=True) == 2
    assert at_once(2160, 3840, encode_batch=3) == 3, "as asked for"


def test_flag(
    synthetic: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks of an eval script, whose folder goes on with another --encode_batch."""
    groups = []
    inner = Tracker.encode_images

    def encode_images(tracker: Tracker, images: Any) -> list[list[Any]]:
        groups.append(len(images))
        return inner(tracker, images)

    monkeypatch.setattr(Tracker, "encode_images", encode_images)
    flags = ["--davis_path", f"{synthetic}/DAVIS/2017", "--model", f"{tiny_weights}"]
    flags += ["--output", f"{tmp_path}/out", "--device", "cpu"]
    assert eval_davis.main([*flags, "--encode_batch", "1"]) == 0
    before = {path: read_mask(path).labels for path in (tmp_path / "out").rglob("*.png")}
    sorted(before)[-1].unlink()
    assert groups == []
    assert eval_davis.main([*flags, "--encode_batch", "5"]) == 0
    assert groups == [5, 5], "of the one video that was not complete; its last frame is alone"
    for path, labels in before.items():
        assert (read_mask(path).labels == labels).mean() > 0.99
