"""Propagations of a clip from the ground truth of some frames, stored in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.metrics import evaluate_frame
from inference.clip_session import ClipSession
from inference.predictor import Predictor
from scripts.experiments.directions import AnnotatedClip
from util.files import atomic_path, write_json

# Annotated frames, ascending.
Frames = tuple[int, ...]
# Propagations of one clip by annotated frames, as in its file.
Stored = dict[str, dict[str, Any]]


class Runs:
    """Propagations of one clip, stored in a folder.

    Args:
        clip: with the ground truth of all frames.
        predictor: makes the sessions.
        direction: "both" or "forwards".
        folder: for <clip>.json and <clip>.npz, the query keys.
    """

    def __init__(
        self, clip: AnnotatedClip, predictor: Predictor, direction: str, folder: Path
    ) -> None:
        self.clip, self._predictor, self._direction = clip, predictor, direction
        self.num_frames = len(clip.frames)
        self._json, self._npz = folder / f"{clip.name}.json", folder / f"{clip.name}.npz"
        self._runs: Stored = {}
        self.keys: dict[int, np.ndarray] = {}  # frame -> query key of the first propagation
        if self._json.exists() and self._npz.exists():
            self._runs = json.loads(self._json.read_text(encoding="utf-8"))
            with np.load(self._npz) as content:
                self.keys = dict(zip(content["frames"].tolist(), content["keys"], strict=True))

    def run(self, annotated: Frames) -> dict[str, Any]:
        """Propagate the ground truth of some frames, or read the stored propagation.

        Returns:
            "J&F": mean; "frames": J&F of each frame; "measures": those of each frame, by frame.
        """
        name = " ".join(map(str, annotated))
        if name not in self._runs:
            self._runs[name] = self._propagate(annotated)
            write_json(self._json, self._runs)
        return self._runs[name]

    def _propagate(self, annotated: Frames) -> dict[str, Any]:
        clip = self.clip
        session = ClipSession(self._predictor, clip.frames)
        for index in annotated:
            mask = clip.mask(index, clip.labels)
            if mask.any():
                session.add_mask(index, mask)
        scores, measures, keys = [0.0] * self.num_frames, {}, {}
        for result in session.propagate_results(self._direction):
            if result is None:
                continue
            pairs = evaluate_frame(result.labels, clip.ground_truth(result.index), clip.labels)
            scores[result.index] = float(np.mean(pairs))
            measures[result.index] = [result.confidence, result.quality, result.agreement]
            if result.key is not None:
                keys[result.index] = result.key
        if not self.keys:
            self.keys = keys
            with atomic_path(self._npz) as temporary, temporary.open("wb") as file:
                np.savez(file, frames=[*keys], keys=np.stack([*keys.values()]))
        # JSON has text keys only; a round trip makes new and stored results equal.
        content = {"J&F": float(np.mean(scores[1:-1])), "frames": scores, "measures": measures}
        return json.loads(json.dumps(content))


def open_folder(folder: Path, settings: Mapping[str, object]) -> Path:
    """Make the folder of propagations with these settings, or check that it has them.

    Raises:
        ValueError: it holds propagations with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key, value in settings.items() if before.get(key) != value]
        if changed:
            raise ValueError(
                f"{folder} has propagations with other settings ({', '.join(changed)}): choose "
                "another --output, or delete it."
            )
    write_json(path, settings)
    return folder
