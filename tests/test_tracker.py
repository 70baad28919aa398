"""Tracker: frames in order, test-time augmentation, label maps, and imports of the Python API."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import inference.labels
from datasets.synthetic import make_clip
from inference.clip_session import ClipSession
from inference.labels import label_map
from inference.predictor import Predictor
from inference.tracker import Tracker
from inference.views import View, make_views
from inference_core import InferenceCore
from tests.test_clip_session import SIZE, box
from util.hyper_para import EvalSettings

ROOT = Path(__file__).resolve().parents[1]
PYTHON_API = (
    "clip_session", "labels", "predictor", "probability_files", "propagation", "tracker", "views",
)  # fmt: skip


@pytest.fixture(scope="module")
def predictor(tiny_weights: Path) -> Predictor:
    return Predictor(EvalSettings(model=str(tiny_weights), device="cpu", mem_every=2))


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return [image for image, _ in make_clip(7, *SIZE, num_objects=2, seed=5)]


def with_settings(predictor: Predictor, **changes: Any) -> Predictor:
    """The same network and policy with other settings."""
    settings = dataclasses.replace(predictor.settings, **changes)
    other = Predictor.__new__(Predictor)
    other.__dict__ = {**predictor.__dict__, "settings": settings}
    return other


def test_read_only_arrays_of_pil_are_segmented_without_a_warning(
    predictor: Predictor, frames: list[np.ndarray]
) -> None:
    image = np.asarray(Image.fromarray(frames[0]))
    mask = np.asarray(Image.fromarray(box(1, 4, 4)))
    assert not image.flags.writeable
    tracker = Tracker(with_settings(predictor, size=0))
    torch.set_warn_always(True)  # otherwise only the first one of the process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tracker.segment(image, mask)
    finally:
        torch.set_warn_always(False)


def test_the_python_api_does_not_import_datasets() -> None:
    """Also not indirectly: another project may have its own package `datasets`."""
    imports = ", ".join(f"inference.{name}" for name in PYTHON_API)
    names = "sorted({name.partition('.')[0] for name in sys.modules})"
    code = f"import sys, {imports}\nprint(*{names})"
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    packages = process.stdout.split()
    assert "inference" in packages
    assert "datasets" not in packages


def test_frames_are_resized_and_masks_resized_back(
    predictor: Predictor, frames: list[np.ndarray]
) -> None:
    small = with_settings(predictor, size=32)
    tracker = Tracker(small)
    mask = box(7, 10, 10)
    masks = [tracker.segment(frames[0], mask), *(tracker.segment(f) for f in frames[1:4])]
    assert {labels.shape for labels in masks} == {SIZE}
    overlap = ((masks[0] == 7) & (mask == 7)).sum() / ((masks[0] == 7) | (mask == 7)).sum()
    assert overlap > 0.8  # it was resized to 32 rows and back
    tracker.segment(frames[4], box(9, 20, 40))
    assert tracker.labels == [7, 9]
    tracker.remove_object(7)
    assert 7 not in tracker.segment(frames[5])
    for wrong in (mask[:-1], mask.astype(np.int64), mask > 0):
        with pytest.raises(ValueError, match=r"The mask is .* the size of the frame"):
            tracker.segment(frames[6], wrong)
    for image in (frames[6][..., 0], frames[6] / 255, np.dstack([frames[6]] * 2)):
        with pytest.raises(ValueError, match="RGB"):
            tracker.segment(image)
    assert tracker.segment(frames[6][..., ::-1]).shape == SIZE  # a view with negative strides


def test_what_is_no_array_is_refused(predictor: Predictor, frames: list[np.ndarray]) -> None:
    tracker = Tracker(predictor)
    for image in (None, [[1, 2]], frames[0][:0]):
        with pytest.raises(ValueError, match=r"The frame is .*: pass"):
            tracker.segment(image)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="The mask is of type list"):
        tracker.segment(frames[0], [0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="The frames are of type NoneType"):
        ClipSession(predictor, None)  # type: ignore[arg-type]


def test_frames_of_another_size_are_refused(predictor: Predictor, frames: list[np.ndarray]) -> None:
    tracker = Tracker(with_settings(predictor, size=32))
    tracker.segment(frames[0], box(7, 10, 10))
    doubled = frames[1].repeat(2, 0).repeat(2, 1)  # the same working size
    height, width = SIZE
    sentence = rf"The frame is {2 * width}x{2 * height} .* earlier frames are {width}x{height}"
    with pytest.raises(ValueError, match=sentence):
        tracker.segment(doubled)
    assert tracker.segment(frames[1]).shape == SIZE


def test_seconds_include_the_work_of_the_device(
    predictor: Predictor, frames: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check for NaNs waits for the device."""
    isfinite = torch.isfinite

    def slow(tensor: torch.Tensor) -> torch.Tensor:
        time.sleep(0.05)
        return isfinite(tensor)

    monkeypatch.setattr(torch, "isfinite", slow)
    tracker = Tracker(predictor)
    for index in range(4):
        tracker.step(frames[index], box(1, 4, 4) if index == 0 else None)
    assert tracker.seconds >= 4 * 0.05


def test_all_views_have_the_same_objects(predictor: Predictor, frames: list[np.ndarray]) -> None:
    """Also if an object is too small to appear in one of them."""
    mask = np.zeros(SIZE, np.uint8)
    mask[10, 10:27] = np.arange(1, 18)  # one pixel each
    tracker = Tracker(with_settings(predictor, scales=[1.0, 0.25]))
    tracker.step(frames[0], mask)
    assert tracker.labels == [*range(1, 18)]
    assert all(core.labels == tracker.labels for core in tracker._sessions)
    prob = tracker.step(frames[1])
    assert prob is not None
    assert prob.shape == (18, *SIZE)


def test_inference_core_cannot_remove_objects(tiny_weights: Path, frames: list[np.ndarray]) -> None:
    settings = EvalSettings(model=str(tiny_weights), device="cpu")
    tracker = Tracker(Predictor(settings, InferenceCore))
    tracker.segment(frames[0], box(1, 0, 0))
    with pytest.raises(ValueError, match="InferenceCoreYV"):
        tracker.remove_object(1)


def test_views_are_the_product_of_scales_and_flips() -> None:
    settings = EvalSettings(scales=[0.5, 1.0], flip=True)
    assert make_views(settings) == [View(0.5), View(0.5, True), View(1.0), View(1.0, True)]
    assert make_views(EvalSettings()) == [View()]
    # With --size, frames have the largest scale, so that none is first reduced and then upsampled.
    settings = EvalSettings(size=100, scales=[1.0, 2.0])
    assert settings.shorter_side == 200
    assert make_views(settings) == [View(0.5), View(1.0)]


def test_flip_is_symmetric(predictor: Predictor, frames: list[np.ndarray]) -> None:
    """A mirrored clip has mirrored probabilities."""
    both = with_settings(predictor, flip=True)
    original, of_mirrored, without_flip = Tracker(both), Tracker(both), Tracker(predictor)
    for index, frame in enumerate(frames[:5]):
        mask = box(1, 10, 4) if index == 0 else None
        mirrored_mask = None if mask is None else np.ascontiguousarray(mask[:, ::-1])
        prob = original.step(frame, mask)
        mirrored = of_mirrored.step(np.ascontiguousarray(frame[:, ::-1]), mirrored_mask)
        alone = without_flip.step(frame, mask)
        assert prob is not None
        assert mirrored is not None
        assert alone is not None
        torch.testing.assert_close(prob, mirrored.flip(-1), atol=1e-5, rtol=0)
        torch.testing.assert_close(prob.sum(0), torch.ones(SIZE))
        differs = index == 0 or not torch.allclose(prob, alone, atol=1e-4)
        assert differs, "the mirrored view has an effect"


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


def test_label_map_resizes_few_objects_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prob = torch.softmax(4 * torch.randn(41, 6, 9, generator=torch.manual_seed(0)), 0)
    prob[30] = prob[3]  # of equal probabilities, the first label is chosen
    labels = [*range(215, 255)]
    resized = F.interpolate(prob[None], size=(13, 20), mode="bilinear", align_corners=False)[0]
    expected = np.array([0, *labels])[resized.argmax(0).numpy()]
    num_channels = []

    def interpolate(tensor: torch.Tensor, **options: Any) -> torch.Tensor:
        num_channels.append(tensor.shape[1])
        return F.interpolate(tensor, **options)

    fake = type("F", (), {"interpolate": staticmethod(interpolate)})
    monkeypatch.setattr(inference.labels, "F", fake)
    result = label_map(prob, labels, (13, 20))
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, expected)
    assert sum(num_channels) == 41
    assert max(num_channels) <= 16
