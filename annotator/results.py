"""What propagations say about their masks, stored for the choice of the next frame to annotate."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from annotator.store import Store
from annotator.suggestions import composite_key
from inference.frame_results import FrameResult

# Keys are stored of at most this many frames, evenly spaced: each takes 50 KB.
MAX_KEYS = 600


def put_result(store: Store, frame: int, result: FrameResult) -> None:
    """Store confidences, qualities, agreements and the composite key of a segmented frame."""
    scores = {
        "confidence": result.confidence,
        "quality": result.quality,
        "agreement": result.agreement,
    }
    step = -(-store.num_frames // MAX_KEYS)
    key = None
    if result.key is not None and frame % step == 0:
        key = composite_key(result.key, (result.labels > 0)[None])
    with store.writing() as db:
        db.execute(
            "INSERT OR REPLACE INTO results (frame, scores, key, key_shape) VALUES (?, ?, ?, ?)",
            (
                frame,
                json.dumps(scores),
                None if key is None else key.astype(np.float16).tobytes(),
                None if key is None else json.dumps(key.shape),
            ),
        )


def stored_results(store: Store) -> Iterator[tuple[int, dict[str, dict[int, float]]]]:
    """Yield frame indices and {"confidence", "quality", "agreement"} by label, ascending."""
    with store.reading() as db:
        rows = db.execute("SELECT frame, scores FROM results ORDER BY frame").fetchall()
    for frame, text in rows:
        scores = json.loads(text)
        yield frame, {n: {int(k): v for k, v in values.items()} for n, values in scores.items()}


def stored_keys(store: Store) -> Iterator[tuple[int, np.ndarray]]:
    """Yield frame indices and composite keys, float16 (CK, h, w), of the frames that have one."""
    with store.reading() as db:
        rows = db.execute(
            "SELECT frame, key, key_shape FROM results WHERE key IS NOT NULL ORDER BY frame"
        ).fetchall()
    for frame, data, shape in rows:
        yield frame, np.frombuffer(data, np.float16).reshape(json.loads(shape))
