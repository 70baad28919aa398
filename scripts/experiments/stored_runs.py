"""Propagations of a clip from the ground truth of some frames, stored in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from annotator.suggestions import FrameMeasures, composite_key
from evaluation.metrics import evaluate_frame
from inference.clip_session import ClipSession
from inference.predictor import Predictor
from scripts.experiments.directions import AnnotatedClip
from util.files import atomic_path, write_json

# Annotated frames, ascending.
Frames = tuple[int, ...]


class Run(NamedTuple):
    """Result of one propagation over T frames."""

    scores: np.ndarray  # (T,), J&F
    foreground: np.ndarray  # (T, h, w) uint8, share of the pixels of a position in a mask; 255: all
    measures: dict[int, FrameMeasures]  # by frame

    @property
    def mean(self) -> float:
        """Mean J&F over all frames but the first and the last."""
        return float(self.scores[1:-1].mean())


class Runs:
    """Propagations of one clip, each computed once.

    Args:
        clip: with the ground truth of all frames.
        predictor: makes the sessions.
        direction: "both" or "forwards".
        folder: for a file per propagation, and one of query keys.
    """

    def __init__(
        self, clip: AnnotatedClip, predictor: Predictor, direction: str, folder: Path
    ) -> None:
        self.clip, self._predictor, self._direction = clip, predictor, direction
        self._folder = folder / clip.name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._runs: dict[Frames, Run] = {}

    def __len__(self) -> int:
        return len(self.clip.frames)

    def run(self, annotated: Frames) -> Run:
        """Propagate the ground truth of some frames, or read the stored propagation."""
        if annotated not in self._runs:
            path = self._folder / f"{'_'.join(map(str, annotated))}.npz"
            if not path.exists():
                self._write(path, self._propagate(annotated))
            self._runs[annotated] = _read(path)
        return self._runs[annotated]

    def composite_keys(self, annotated: Frames) -> dict[int, np.ndarray]:
        """Composite keys (CK, h, w) of all frames, with the masks of a propagation.

        The query keys are those of the first propagation.
        """
        foreground = self.run(annotated).foreground
        with np.load(self._folder / "keys.npz") as content:
            keys = content["keys"]
        return {
            index: composite_key(key, foreground[index][None] / 255)
            for index, key in enumerate(keys)
        }

    def _propagate(self, annotated: Frames) -> Run:
        clip = self.clip
        session = ClipSession(self._predictor, clip.frames)
        for index in annotated:
            mask = clip.mask(index, clip.labels)
            if mask.any():
                session.add_mask(index, mask)
        keys: list[np.ndarray] = []
        scores, foreground, measures = [], [], {}
        for result in session.propagate_results(self._direction):
            if result is None:
                continue
            pairs = evaluate_frame(result.labels, clip.ground_truth(result.index), clip.labels)
            scores.append(np.mean(pairs))
            assert result.key is not None, "the first frame has all objects"
            keys.append(result.key)
            is_object = torch.from_numpy(result.labels > 0).float()[None]  # (1, H, W)
            pooled = F.adaptive_avg_pool2d(is_object, result.key.shape[1:])[0]
            foreground.append((pooled * 255).round().byte().numpy())
            measures[result.index] = FrameMeasures(
                result.confidence, result.quality, result.agreement
            )
        if not (self._folder / "keys.npz").exists():
            _save(self._folder / "keys.npz", keys=np.stack(keys))
        return Run(np.array(scores), np.stack(foreground), measures)

    def _write(self, path: Path, run: Run) -> None:
        measures = json.dumps(run.measures)
        _save(path, scores=run.scores, foreground=run.foreground, measures=np.array(measures))


def _save(path: Path, **arrays: Any) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _read(path: Path) -> Run:
    with np.load(path) as content:
        scores, foreground = content["scores"], content["foreground"]
        measures = json.loads(str(content["measures"]))
    return Run(
        scores,
        foreground,
        {
            int(frame): FrameMeasures(*({int(k): v for k, v in part.items()} for part in parts))
            for frame, parts in measures.items()
        },
    )


def open_folder(folder: Path, settings: Mapping[str, object]) -> Path:
    """Make the folder of propagations with these settings, or check that it has them.

    Raises:
        ValueError: it holds propagations with other settings.
    """
    path = folder / "settings.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key, value in settings.items() if before.get(key) != value]
        if changed:
            raise ValueError(
                f"{folder} has propagations with other settings ({', '.join(changed)}): choose "
                "another --output, or delete it."
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)
    return folder
