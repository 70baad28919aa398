"""A clip that is drawn by the program, for a first try."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from annotator.clip import Clip
from datasets.synthetic import make_clip

_NUM_FRAMES, _SIZE, _NUM_OBJECTS = 60, (480, 854), 3


class DemoClip(Clip):
    """Textured objects that move over a background; equal in each start."""

    def __init__(self) -> None:
        self._clip = make_clip(_NUM_FRAMES, *_SIZE, _NUM_OBJECTS, seed=0)
        files = [Path("demo", f"{index:05d}") for index in range(_NUM_FRAMES)]
        super().__init__(Path("demo"), "demo", files, _SIZE, 24.0)

    def reopen(self) -> DemoClip:
        """See Clip."""
        return self

    def _decode(self, index: int) -> np.ndarray:
        return self._clip.frame(index)[0]
