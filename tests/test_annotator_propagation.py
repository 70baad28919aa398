"""What makes the first mask of a propagation appear soon."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from annotator.options import parse
from annotator.propagation import Propagator
from annotator.store import Store
from annotator.video_clip import open_clip
from inference.predictor import Predictor
from inference.tracker import Tracker
from tests import annotator_desk
from util.hyper_para import EvalSettings

frames = annotator_desk.frames


@pytest.fixture
def propagator(frames: Path, tiny_weights: Path, tmp_path: Path) -> Propagator:
    clip = open_clip(frames)
    store = Store(tmp_path / "session", len(clip), clip.size, clip.path)
    settings = EvalSettings(model=str(tiny_weights), device="cpu", size=32)
    return Propagator(store, clip, lambda: Predictor(settings), lambda event: None, tmp_path)


@pytest.fixture
def segmented(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Fill a list with an item for each segmented frame: whether it has a mask."""
    masks: list[bool] = []
    original = Tracker.segment

    def segment(tracker: Tracker, image: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        labels = original(tracker, image, mask)
        masks.append(mask is not None)
        return labels

    monkeypatch.setattr(Tracker, "segment", segment)
    return masks


def test_the_network_has_segmented_before_the_first_propagation(
    propagator: Propagator, segmented: list[bool]
) -> None:
    propagator.warm_up()
    deadline = time.monotonic() + 30
    while len(segmented) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert segmented == [True, False]


def test_warming_up_ends_with_the_server(propagator: Propagator, segmented: list[bool]) -> None:
    propagator.stop()
    propagator.warm_up().join(30)
    assert segmented == []


def test_no_frame_waits_for_a_batch(tiny_weights: Path) -> None:
    settings = parse(["--model", str(tiny_weights), "--device", "cpu"]).settings
    assert Predictor(settings).encode_batch_size(64 * 64) == 1
    settings = parse(["--encode_batch", "3"]).settings
    assert settings.encode_batch == 3
