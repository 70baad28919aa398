"""Similarity, softmax, readout and soft aggregation: once, for training and inference alike.

Memory is kept as rows: key (B, N, CK), value (B, N, C), query_key (B, P, CK), so that a top-k read
gathers contiguous rows. C is O x CV: objects that share keys share one affinity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from model.native.best_rows import BestRows
from model.native.library import library
from util.devices import full_precision

# Bytes of similarities held at once by an inference read, whatever the memory's length.
_BLOCK_BYTES = 32 * 2**20
# Of many rows, the best lie in the best groups: see `_find_top`.
_GROUP = 64


@dataclass(frozen=True)
class Similarity:
    """How keys and queries compare: (2 k.q - |k|^2) / sqrt(CK) or k.q / sqrt(CK).

    Args:
        is_distance: STCN's negative squared distance (NeurIPS 2021, eq. 4), less what softmax
            drops; else the scaled dot product of STM (Oh et al., ICCV 2019) and QDMN.
    """

    is_distance: bool

    def scale(self, key: torch.Tensor) -> float:
        """key (B, N, CK) -> what dot products are multiplied by."""
        return (2 if self.is_distance else 1) / math.sqrt(key.shape[-1])

    def offset(self, key: torch.Tensor) -> torch.Tensor | None:
        """key (B, N, CK) -> what a row adds to all its similarities, (B, 1, N), or None."""
        if not self.is_distance:
            return None
        # vector_norm reduces without a copy of the keys, which would grow with the memory.
        norm = torch.linalg.vector_norm(key, dim=-1, dtype=torch.float32)
        return norm.square().mul(-1 / math.sqrt(key.shape[-1]))[:, None]

    def __call__(
        self, key: torch.Tensor, query_key: torch.Tensor, offset: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compare all with all.

        Args:
            key: (B, N, CK).
            query_key: (B, P, CK).
            offset: of these keys, where it is known already.

        Returns:
            (B, P, N), in float32.
        """
        with full_precision(key.device):
            key, query_key = key.float(), query_key.float()
            if not self.is_distance:
                return query_key @ key.transpose(1, 2) / math.sqrt(key.shape[-1])
            offset = self.offset(key) if offset is None else offset
            assert offset is not None
            return torch.baddbmm(offset, query_key, key.transpose(1, 2), alpha=self.scale(key))


l2_similarity = Similarity(is_distance=True)
dot_similarity = Similarity(is_distance=False)


# Width of the grid of positions, and sigma in positions.
Kernel = tuple[int, float]


def read(
    key: torch.Tensor,
    value: torch.Tensor,
    query_key: torch.Tensor,
    top_k: int | None = None,
    similarity: Similarity = l2_similarity,
    kernel: Kernel | None = None,
) -> torch.Tensor:
    """Read the memory at every query position.

    Args:
        key: (B, N, CK); value: (B, N, C); query_key: (B, P, CK).
        top_k: softmax over the k most similar rows (Cheng et al., MiVOS, CVPR 2021); None for all.
        similarity: how keys and queries compare.
        kernel: weigh each row by a Gaussian around the position that it fits best (Seong et al.,
            KMN, ECCV 2020); None for not.

    Returns:
        (B, P, C) in the value's type: sum over n of softmax_n(similarity) * value_n.
    """
    if kernel is None and top_k is not None:
        finder = _finder_for(key, top_k)
        if finder is not None:
            return _read_found(finder, key, value, query_key, top_k, similarity)
    num_rows, num_queries = key.shape[1], query_key.shape[1]
    if torch.is_grad_enabled():
        block = num_queries  # autograd keeps every block anyway
    else:
        block = max(1, _BLOCK_BYTES // (4 * num_rows * key.shape[0]))
    best = None if kernel is None else _best_positions(key, query_key, similarity)
    offset = similarity.offset(key)
    parts = []
    for start in range(0, num_queries, block):
        positions = slice(start, min(start + block, num_queries))
        scores = similarity(key, query_key[:, positions], offset)  # (B, block, N)
        if kernel is not None and best is not None:
            scores += _log_kernel(best, positions, kernel)
        parts.append(_read_block(scores, value, top_k))
        del scores  # free for the next block's
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _finder_for(key: torch.Tensor, top_k: int) -> BestRows | None:
    """What finds the best rows of a long memory without holding all similarities, where it can."""
    if torch.is_grad_enabled() or key.device.type != "cpu":
        return None
    # With fewer rows, most groups would be looked at twice.
    made = library() if key.shape[1] >= 4 * top_k * _GROUP else None
    suits = made is not None and all(made.best_rows.suits(part) for part in key)
    return made.best_rows if made is not None and suits else None


def _read_found(
    finder: BestRows,
    key: torch.Tensor,
    value: torch.Tensor,
    query_key: torch.Tensor,
    top_k: int,
    similarity: Similarity,
) -> torch.Tensor:
    """`read` of a long memory."""
    offset = similarity.offset(key)
    largest = max(key.shape[1] // finder.group, top_k * finder.group)
    block = max(1, _BLOCK_BYTES // (4 * largest))
    parts = []
    for queries in query_key.split(block, 1):
        found = [
            finder.find(
                key[b],
                queries[b],
                top_k,
                similarity.scale(key),
                offset[b, 0] if offset is not None else None,
            )
            for b in range(len(key))
        ]
        best, rows = (torch.stack(tensors) for tensors in zip(*found, strict=True))
        parts.append(gather_rows(value, rows, torch.softmax(best, -1)))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _read_block(scores: torch.Tensor, value: torch.Tensor, top_k: int | None) -> torch.Tensor:
    """`read` of some positions, from their similarities (B, block, N)."""
    if top_k is None or top_k >= scores.shape[2]:
        if value.device.type == "cpu" and value.dtype == torch.float16:
            value = value.float()  # torch's products of float16 are a hundred times as slow there
        return torch.softmax(scores, -1).to(value.dtype) @ value
    best, rows = _find_top(scores, top_k)  # (B, block, k)
    return gather_rows(value, rows, torch.softmax(best, -1))


def _find_top(scores: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest of (B, block, N) and their rows, (B, block, k) both, in any order.

    The k largest lie in the k groups with the largest maxima (or tie with ones that do), so that
    of many rows all but k groups are looked at only for their maxima, which is far cheaper.
    """
    num_groups = scores.shape[2] // _GROUP
    if num_groups < 4 * top_k or torch.is_grad_enabled():
        return scores.topk(top_k, dim=-1, sorted=False)
    grouped = num_groups * _GROUP
    # Row n belongs to group n % num_groups, so that maxima run along contiguous rows.
    maxima = scores[..., :grouped].unflatten(2, (_GROUP, num_groups)).amax(2)
    groups = maxima.topk(top_k, dim=-1, sorted=False).indices  # (B, block, k)
    starts = torch.arange(0, grouped, num_groups, device=scores.device)
    rows = (groups[..., None] + starts).flatten(2)  # (B, block, k * _GROUP)
    rest = torch.arange(grouped, scores.shape[2], device=scores.device)
    rows = torch.cat([rows, rest.expand(*rows.shape[:2], -1)], 2)
    best, at = scores.gather(2, rows).topk(top_k, dim=-1, sorted=False)
    return best, rows.gather(2, at)


def _best_positions(
    key: torch.Tensor, query_key: torch.Tensor, similarity: Similarity
) -> torch.Tensor:
    """(B, N): the query position that each row of memory fits best."""
    block = max(1, _BLOCK_BYTES // (4 * query_key.shape[1] * key.shape[0]))
    parts = [similarity(part, query_key).argmax(1) for part in key.split(block, 1)]
    return torch.cat(parts, 1)


def _log_kernel(best: torch.Tensor, positions: slice, kernel: Kernel) -> torch.Tensor:
    """(B, block, N): logarithms of the Gaussians around `best` (B, N) at some positions."""
    width, sigma = kernel
    at = torch.arange(positions.start, positions.stop, device=best.device)[None, :, None]
    best = best[:, None]
    squares = ((at // width).float() - (best // width).float()).square_()
    squares += ((at % width).float() - (best % width).float()).square_()
    return squares.div_(-2 * sigma**2)


def gather_rows(value: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sums of rows: value (B, N, C), rows and weights (B, P, k) -> (B, P, C).

    `embedding_bag` is this very sum, without the (P, k, C) rows in between. MPS lacks its weighted
    form in some of the torch releases that we support.
    """
    weights = weights.to(value.dtype)
    if value.device.type == "mps":
        return _gather_by_index(value, rows, weights)
    return torch.stack(
        [
            F.embedding_bag(r, v, per_sample_weights=w, mode="sum")
            for v, r, w in zip(value, rows, weights, strict=True)
        ]
    )


def _gather_by_index(
    value: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    gathered = torch.stack([v[r] for v, r in zip(value, rows, strict=True)])  # (B, P, k, C)
    return (weights[..., None] * gathered).sum(2)


def to_rows(feature: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) -> (B, P, C); a view where the feature is channels-last."""
    return feature.flatten(2).transpose(1, 2)


def aggregate(prob: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """Soft aggregation (Oh et al., STM, ICCV 2019): logits of background and objects.

    Args:
        prob: probabilities of the objects, each for itself, in [0, 1]; objects along `dim`.

    Returns:
        float32 logits with the background first, one more along `dim`; their softmax sums to 1.
    """
    prob = prob.float()
    background = torch.prod(1 - prob, dim=dim, keepdim=True)
    prob = torch.cat([background, prob], dim)
    low, high = 1e-7, 1 - 1e-7
    if not torch.is_grad_enabled():  # of many objects, each copy is hundreds of MB
        prob.clamp_(low, high)
        return prob.div_(1 - prob).log_()
    # As clamp, with the gradient that it had when the systems were trained: also at the bounds
    # themselves, where saturated probabilities lie (newer releases of torch give 0 there).
    is_inside = (prob >= low) & (prob <= high)
    prob = torch.where(is_inside, prob, prob.detach().clamp(low, high))
    return torch.log(prob / (1 - prob))
