"""Which frame to annotate next: pure functions on arrays.

A frame is worth an annotation if its masks are unreliable and if it looks unlike all annotated
frames, because then memory has nothing to read. The score of a frame is the product of both, see
`suggest`. Shapes: CK channels of a key, h w positions, P = h * w, M candidates.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from model.matching import l2_similarity, to_rows

Reason = Literal[
    "low confidence", "the two directions disagree", "looks unlike any annotated frame"
]

# Most candidates, evenly spaced, and most annotated frames that they are compared with.
MAX_CANDIDATES, MAX_ANNOTATED = 300, 100
# Largest shorter and longer side of the keys that are compared.
_KEY_SIDES = (8, 14)
# Exponent of the expected error in the score; that of the dissimilarity is 1.
_ERROR_EXPONENT = 0.5
# Share of the clip that a suggestion suppresses at most, on each side of it.
_WINDOW = 1 / 20
# Expected error of a mask that is perfectly confident: otherwise its frame has a score of 0.
_SMALLEST_ERROR = 1e-3


class FrameMeasures(NamedTuple):
    """Measures of one propagated frame by label, as in FrameResult; each in [0, 1].

    quality and agreement may lack labels, or be empty.
    """

    confidence: Mapping[int, float]
    quality: Mapping[int, float] = {}
    agreement: Mapping[int, float] = {}


class Suggestion(NamedTuple):
    """A frame to annotate."""

    frame: int
    reason: Reason
    label: int  # the least reliable object; 0 if the frame looks unlike any annotated frame
    score: float  # of all suggestions, the first one has the highest


class _Error(NamedTuple):
    """Expected error of a frame."""

    mean: float  # over the objects, in [0, 1]
    label: int  # object with the largest error; 0 without objects
    reason: Reason


def composite_key(key: np.ndarray, masks: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """Weight a key by the masks: key * (alpha * max_o mask + 1 - alpha).

    Bekuzarov et al., XMem++, ICCV 2023: positions of objects count more than the background.

    Args:
        key: (CK, h, w).
        masks: (O, H, W) in [0, 1], of any size; they are averaged to (h, w).
        alpha: 0 ignores the masks, 1 ignores the background.

    Returns:
        float32 (CK, h, w).
    """
    if not len(masks):
        return key.astype(np.float32) * np.float32(1 - alpha)
    nearest = torch.from_numpy(np.ascontiguousarray(masks.max(0), np.float32))[None]  # (1, H, W)
    pooled = F.adaptive_avg_pool2d(nearest, key.shape[1:]).numpy()  # (1, h, w)
    return key.astype(np.float32) * (alpha * pooled + 1 - alpha)


def dissimilarity(key: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Dissimilarity of one frame to others: D(i, j) = mean ReLU(S_ij - S_ji).

    Equation of XMem++ (ICCV 2023), with S_ij(p, q) = -|k_i(p) - k_j(q)|^2 / sqrt(CK), STCN's
    similarity. Its term of the query, which softmax cancels in a read, must be kept here: without
    it, D would depend on the norms of the keys. With it, S_ji is the transpose of S_ij, so D(i, j)
    = D(j, i), and D(i, i) = 0.

    Args:
        key: (CK, h, w).
        others: (M, CK, h, w).

    Returns:
        (M,), at least 0.
    """
    rows = to_rows(torch.from_numpy(others).float())  # (M, P, CK)
    query = to_rows(torch.from_numpy(key).float()[None])  # (1, P, CK)
    own = l2_similarity.offset(query)  # (1, 1, P)
    assert own is not None
    result = []
    for row in rows.split(16):
        # (16, P, P): query positions q of `key`, positions p of the others.
        similarity = l2_similarity(row, query.expand(len(row), -1, -1)) + own.transpose(1, 2)
        result.append((similarity - similarity.transpose(1, 2)).relu_().mean((1, 2)))
    return torch.cat(result).numpy()


def farthest(distances: np.ndarray, weights: np.ndarray) -> int:
    """Weighted farthest-first choice: argmax over j of w_j * min over i of D(i, j).

    Args:
        distances: (given frames, M), D(i, j).
        weights: (M,), above 0; below 0 for frames that may not be chosen.
    """
    # Without the constant, all frames would be equal where all distances are 0.
    return int(((distances.min(0) + 1e-12) * weights).argmax())


def suggest(
    measures: Mapping[int, FrameMeasures],
    keys: Mapping[int, np.ndarray],
    annotated: Collection[int],
    num: int = 5,
) -> list[Suggestion]:
    """Suggest the frames whose annotation is expected to improve the masks of the clip most.

    The score of a frame is D * sqrt(E). D is its smallest dissimilarity to an annotated frame. E is
    its expected error: 1 minus the lowest of confidence, quality and agreement, averaged over the
    objects, and over the frames around a candidate if only some frames are candidates. The frame
    with the highest score is suggested, then counts as annotated, and so on (farthest-first). A
    suggestion suppresses its neighbours: up to half of its distance to the nearest annotated frame,
    and a twentieth of the clip.

    The same input gives the same result. Time and memory are bounded: candidates are at most 300
    frames, evenly spaced.

    Args:
        measures: of the propagated frames, by frame index.
        keys: (CK, h, w) each, all of one shape: query keys by frame index, or composite keys. Only
            these frames are suggested. Keys of annotated frames are needed, or of frames near them.
        annotated: frames with masks of a person.
        num: number of suggestions; there are fewer if all other frames are suppressed.

    Returns:
        Suggestions, the best one first; empty if nothing is annotated or nothing is propagated.
    """
    frames = _spread(sorted({*measures} & {*keys} - {*annotated}), MAX_CANDIDATES)
    given = sorted({*annotated})
    if not frames or not given or num < 1:
        return []
    pooled = np.stack([_pool(keys[frame]) for frame in frames])  # (M, CK, h, w)
    with_keys = np.array(sorted(keys))
    nearest = {int(with_keys[np.abs(with_keys - frame).argmin()]) for frame in given}
    references = [keys[frame] for frame in _spread(sorted(nearest), MAX_ANNOTATED)]
    distances = np.stack([dissimilarity(_pool(key), pooled) for key in references])
    errors = _errors(frames, measures)
    weights = np.array([max(error.mean, _SMALLEST_ERROR) for error in errors]) ** _ERROR_EXPONENT
    typical = distances.min(0).mean() or 1.0, weights.mean()
    is_free = np.ones(len(frames), bool)
    length = max(*measures, *given) + 1
    found: list[Suggestion] = []
    while is_free.any() and len(found) < num:
        at = farthest(distances, np.where(is_free, weights, -1))
        unlikeness = float(distances[:, at].min())
        reason, label = errors[at].reason, errors[at].label
        if unlikeness / typical[0] > weights[at] / typical[1] or label == 0:
            reason, label = "looks unlike any annotated frame", 0
        score = round(float(unlikeness * weights[at]), 4)
        found.append(Suggestion(frames[at], reason, label, score))
        gap = min(abs(frames[at] - frame) for frame in given)
        window = max(1, min(gap // 2, round(_WINDOW * length)))
        is_free &= np.abs(np.array(frames) - frames[at]) > window
        given.append(frames[at])
        distances = np.concatenate([distances, dissimilarity(pooled[at], pooled)[None]])
    return found


def _spread(frames: Sequence[int], most: int) -> list[int]:
    """Choose at most `most` frames, evenly spaced in the list."""
    if len(frames) <= most:
        return [*frames]
    return [frames[i] for i in np.linspace(0, len(frames) - 1, most).round().astype(int)]


def _pool(key: np.ndarray) -> np.ndarray:
    """Average a key (CK, h, w) to float32 (CK, <=8, <=14); portrait: (CK, <=14, <=8)."""
    height, width = key.shape[1:]
    limits = _KEY_SIDES if height <= width else _KEY_SIDES[::-1]
    size = (min(height, limits[0]), min(width, limits[1]))
    return F.adaptive_avg_pool2d(torch.from_numpy(key.astype(np.float32)), size).numpy()


def _errors(frames: Sequence[int], measures: Mapping[int, FrameMeasures]) -> list[_Error]:
    """Expected error of each candidate: the mean over the frames that are nearest to it."""
    positions = np.array(frames)
    borders = (positions[1:] + positions[:-1]) / 2
    sums, counts = np.zeros(len(frames)), np.zeros(len(frames))
    for frame, values in measures.items():
        at = int(np.searchsorted(borders, frame))
        sums[at] += _error(values).mean
        counts[at] += 1
    return [
        _error(measures[frame])._replace(mean=mean)
        for frame, mean in zip(frames, (sums / counts).tolist(), strict=True)
    ]


def _error(values: FrameMeasures) -> _Error:
    """Expected error of one frame."""
    if not values.confidence:
        return _Error(0, 0, "low confidence")
    by_label: dict[int, tuple[float, Reason]] = {}
    for label, confidence in values.confidence.items():
        reliability = min(confidence, values.quality.get(label, 1.0))
        agreement = values.agreement.get(label, 1.0)
        reason: Reason = "low confidence"
        if agreement < reliability:
            reliability, reason = agreement, "the two directions disagree"
        by_label[label] = min(max(1 - reliability, 0.0), 1.0), reason
    label = max(by_label, key=lambda label: (by_label[label][0], -label))
    mean = sum(error for error, _ in by_label.values()) / len(by_label)
    return _Error(mean, label, by_label[label][1])
