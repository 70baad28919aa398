"""Similarity, softmax, readout and soft aggregation, for training and inference alike.

Memory is stored as rows, so that a top-k read gathers contiguous rows: key (B, N, CK) and value
(B, N, C), read with query_key (B, P, CK). C is O*CV: objects that share keys share one affinity.
B may also be G, the number of key sets (see features.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from model.native.best_rows import BestRows
from model.native.library import load_library
from util.devices import full_precision

# Most bytes of similarities that an inference read holds at once, for a memory of any length.
_BLOCK_BYTES = 32 * 2**20
# Rows of a group, see `_find_top`.
_GROUP = 64


@dataclass(frozen=True)
class Similarity:
    """Similarity of keys k and query keys q: (2 k.q - |k|^2) / sqrt(CK) or k.q / sqrt(CK).

    Args:
        is_distance: if true, STCN's negative squared distance (NeurIPS 2021, eq. 4), without |q|^2,
            which softmax cancels; else the scaled dot product of STM (Oh et al., ICCV 2019) and
            QDMN.
    """

    is_distance: bool

    def scale(self, key: torch.Tensor) -> float:
        """Factor of the dot products, for keys (B, N, CK)."""
        return (2 if self.is_distance else 1) / math.sqrt(key.shape[-1])

    def offset(self, key: torch.Tensor) -> torch.Tensor | None:
        """Term of each memory row, -|k|^2 / sqrt(CK): (B, N, CK) -> (B, 1, N), or None."""
        if not self.is_distance:
            return None
        # vector_norm makes no copy of the keys, which would grow with the memory.
        norm = torch.linalg.vector_norm(key, dim=-1, dtype=torch.float32)  # (B, N)
        return norm.square().mul(-1 / math.sqrt(key.shape[-1]))[:, None]  # (B, 1, N)

    def __call__(
        self, key: torch.Tensor, query_key: torch.Tensor, offset: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute the similarity of all pairs.

        Args:
            key: (B, N, CK).
            query_key: (B, P, CK).
            offset: offset of these keys, if already computed.

        Returns:
            float32 (B, P, N).
        """
        with full_precision(key.device):
            key, query_key = key.float(), query_key.float()
            if not self.is_distance:
                return query_key @ key.transpose(1, 2) / math.sqrt(key.shape[-1])  # (B, P, N)
            offset = self.offset(key) if offset is None else offset
            assert offset is not None
            # (B, P, N)
            return torch.baddbmm(offset, query_key, key.transpose(1, 2), alpha=self.scale(key))


l2_similarity = Similarity(is_distance=True)
dot_similarity = Similarity(is_distance=False)


# (width of the feature map, sigma), both in positions
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
        key: (B, N, CK).
        value: (B, N, C).
        query_key: (B, P, CK).
        top_k: number of most similar rows in the softmax (Cheng et al., MiVOS, CVPR 2021); None
            for all rows.
        similarity: see Similarity.
        kernel: weights each memory row by a Gaussian around its most similar query position (Seong
            et al., KMN, ECCV 2020); None disables it.

    Returns:
        (B, P, C) in the value's type: sum over n of softmax_n(similarity) * value_n.
    """
    if kernel is None and top_k is not None:
        finder = _choose_finder(key, top_k)
        if finder is not None:
            return _read_with_finder(finder, key, value, query_key, top_k, similarity)
    num_rows, num_queries = key.shape[1], query_key.shape[1]
    if torch.is_grad_enabled():
        block = num_queries  # autograd keeps all blocks, so they would save no memory
    else:
        block = max(1, _BLOCK_BYTES // (4 * num_rows * key.shape[0]))
    best = None if kernel is None else _best_positions(key, query_key, similarity)  # (B, N)
    offset = similarity.offset(key)
    parts = []
    for start in range(0, num_queries, block):
        positions = slice(start, min(start + block, num_queries))
        similarities = similarity(key, query_key[:, positions], offset)  # (B, block, N)
        if kernel is not None and best is not None:
            similarities += _log_kernel(best, positions, kernel)
        parts.append(_read_block(similarities, value, top_k))
        del similarities  # frees memory for the next block
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)  # (B, P, C)


def _choose_finder(key: torch.Tensor, top_k: int) -> BestRows | None:
    """Return the C++ search for the best rows of a long memory; None if it does not apply."""
    if torch.is_grad_enabled() or key.device.type != "cpu":
        return None
    # With fewer rows, most groups would be visited twice.
    library = load_library() if key.shape[1] >= 4 * top_k * _GROUP else None
    if library is None or not all(library.best_rows.supports(part) for part in key):
        return None
    return library.best_rows


def _read_with_finder(
    finder: BestRows,
    key: torch.Tensor,
    value: torch.Tensor,
    query_key: torch.Tensor,
    top_k: int,
    similarity: Similarity,
) -> torch.Tensor:
    """`read` for a long memory."""
    offset = similarity.offset(key)
    largest = max(key.shape[1] // finder.group, top_k * finder.group)
    block = max(1, _BLOCK_BYTES // (4 * largest))
    parts = []
    for queries in query_key.split(block, 1):  # (B, block, CK)
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
        best, rows = (torch.stack(tensors) for tensors in zip(*found, strict=True))  # (B, block, k)
        parts.append(gather_rows(value, rows, torch.softmax(best, -1)))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)  # (B, P, C)


def _read_block(similarities: torch.Tensor, value: torch.Tensor, top_k: int | None) -> torch.Tensor:
    """`read` for some positions: similarities (B, block, N) -> (B, block, C)."""
    if top_k is None or top_k >= similarities.shape[2]:
        if value.device.type == "cpu" and value.dtype == torch.float16:
            value = value.float()  # on CPUs, float16 products are a hundred times slower
        return torch.softmax(similarities, -1).to(value.dtype) @ value
    best, rows = _find_top(similarities, top_k)  # (B, block, k)
    return gather_rows(value, rows, torch.softmax(best, -1))


def _find_top(similarities: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the k largest of (B, block, N) and their rows, both (B, block, k), in any order.

    The k largest lie in the k groups with the largest maxima (or equal others that do). So only
    the maxima of the groups and the rows of k groups are sorted, which is far cheaper.
    """
    num_groups = similarities.shape[2] // _GROUP
    if num_groups < 4 * top_k or torch.is_grad_enabled():
        return similarities.topk(top_k, dim=-1, sorted=False)
    grouped = num_groups * _GROUP
    # Row n is in group n % num_groups, so that maxima are taken over contiguous rows.
    # (B, block, N) -> (B, block, _GROUP, num_groups) -> (B, block, num_groups)
    maxima = similarities[..., :grouped].unflatten(2, (_GROUP, num_groups)).amax(2)
    groups = maxima.topk(top_k, dim=-1, sorted=False).indices  # (B, block, k)
    starts = torch.arange(0, grouped, num_groups, device=similarities.device)
    rows = (groups[..., None] + starts).flatten(2)  # (B, block, k * _GROUP)
    rest = torch.arange(grouped, similarities.shape[2], device=similarities.device)
    rows = torch.cat([rows, rest.expand(*rows.shape[:2], -1)], 2)  # rows after the last group
    best, at = similarities.gather(2, rows).topk(top_k, dim=-1, sorted=False)  # (B, block, k)
    return best, rows.gather(2, at)


def _best_positions(
    key: torch.Tensor, query_key: torch.Tensor, similarity: Similarity
) -> torch.Tensor:
    """Find the most similar query position of each memory row, (B, N)."""
    block = max(1, _BLOCK_BYTES // (4 * query_key.shape[1] * key.shape[0]))
    parts = [similarity(part, query_key).argmax(1) for part in key.split(block, 1)]  # (B, block)
    return torch.cat(parts, 1)


def _log_kernel(best: torch.Tensor, positions: slice, kernel: Kernel) -> torch.Tensor:
    """Logarithms of the Gaussians around `best` (B, N) at some positions, (B, block, N)."""
    width, sigma = kernel
    at = torch.arange(positions.start, positions.stop, device=best.device)[None, :, None]
    best = best[:, None]  # (B, 1, N)
    squares = ((at // width).float() - (best // width).float()).square_()  # (B, block, N)
    squares += ((at % width).float() - (best % width).float()).square_()
    return squares.div_(-2 * sigma**2)


def gather_rows(value: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Compute weighted sums of rows: value (B, N, C), rows and weights (B, P, k) -> (B, P, C).

    `embedding_bag` computes this sum without a copy of the rows, (P, k, C). On MPS, some supported
    releases of torch lack its weights.
    """
    weights = weights.to(value.dtype)
    if value.device.type == "mps":
        return _gather_by_index(value, rows, weights)
    return torch.stack(
        [
            F.embedding_bag(r, v, per_sample_weights=w, mode="sum")  # (P, C)
            for v, r, w in zip(value, rows, weights, strict=True)
        ]
    )


def _gather_by_index(
    value: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    gathered = torch.stack([v[r] for v, r in zip(value, rows, strict=True)])  # (B, P, k, C)
    return (weights[..., None] * gathered).sum(2)  # (B, P, C)


def to_rows(feature: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) -> (B, P, C), a view; it is contiguous if the feature is channels-last."""
    return feature.flatten(2).transpose(1, 2)


def aggregate(prob: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """Soft aggregation (Oh et al., STM, ICCV 2019): logits of background and objects.

    Args:
        prob: probabilities in [0, 1] of each object against its own background.
        dim: dimension of the objects.

    Returns:
        float32 logits, background first, O+1 along `dim`; their softmax sums to 1.
    """
    prob = prob.float()
    background = torch.prod(1 - prob, dim=dim, keepdim=True)
    prob = torch.cat([background, prob], dim)  # O -> O+1
    low, high = 1e-7, 1 - 1e-7
    if not torch.is_grad_enabled():  # in place: with many objects, each copy takes hundreds of MB
        prob.clamp_(low, high)
        return prob.div_(1 - prob).log_()
    # Clamp with the gradient that it had when the methods were published: not zero at the bounds,
    # where saturated probabilities are. In newer releases of torch, it is zero there.
    is_inside = (prob >= low) & (prob <= high)
    prob = torch.where(is_inside, prob, prob.detach().clamp(low, high))
    return torch.log(prob / (1 - prob))
