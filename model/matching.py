"""Similarity, softmax, readout and soft aggregation: once, for training and inference alike.

Memory is kept as rows: key (B, N, CK), value (B, N, C), query_key (B, P, CK), so that a top-k read
gathers contiguous rows. C is O x CV: objects that share keys share one affinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from util.devices import full_precision

Similarity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Bytes of similarities held at once by an inference read, whatever the memory's length.
_BLOCK_BYTES = 32 * 2**20


def l2_similarity(key: torch.Tensor, query_key: torch.Tensor) -> torch.Tensor:
    """STCN's negative squared distance (NeurIPS 2021, eq. 4), less what softmax drops.

    Args:
        key: (B, N, CK).
        query_key: (B, P, CK).

    Returns:
        (B, P, N): (2 k_n . q_p - |k_n|^2) / sqrt(CK), in float32.
    """
    with full_precision(key.device):
        key, query_key = key.float(), query_key.float()
        scale = 1 / math.sqrt(key.shape[-1])
        # vector_norm reduces without a copy of the keys, which would grow with the memory.
        norm = torch.linalg.vector_norm(key, dim=-1).square().mul(-scale)[:, None]  # (B, 1, N)
        return torch.baddbmm(norm, query_key, key.transpose(1, 2), alpha=2 * scale)


def dot_similarity(key: torch.Tensor, query_key: torch.Tensor) -> torch.Tensor:
    """The scaled dot product of STM (Oh et al., ICCV 2019) and QDMN; shapes as `l2_similarity`."""
    with full_precision(key.device):
        key, query_key = key.float(), query_key.float()
        return query_key @ key.transpose(1, 2) / math.sqrt(key.shape[-1])


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
    num_rows, num_queries = key.shape[1], query_key.shape[1]
    if torch.is_grad_enabled():
        block = num_queries  # autograd keeps every block anyway
    else:
        block = max(1, _BLOCK_BYTES // (4 * num_rows * key.shape[0]))
    best = None if kernel is None else _best_positions(key, query_key, similarity)
    parts = []
    for start in range(0, num_queries, block):
        positions = slice(start, min(start + block, num_queries))
        scores = similarity(key, query_key[:, positions])  # (B, block, N)
        if kernel is not None and best is not None:
            scores += _log_kernel(best, positions, kernel)
        parts.append(_read_block(scores, value, top_k))
        del scores  # free for the next block's
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _read_block(scores: torch.Tensor, value: torch.Tensor, top_k: int | None) -> torch.Tensor:
    """`read` of some positions, from their similarities (B, block, N)."""
    if top_k is None or top_k >= scores.shape[2]:
        return torch.softmax(scores, -1).to(value.dtype) @ value
    best, rows = scores.topk(top_k, dim=-1, sorted=False)  # (B, block, k)
    return gather_rows(value, rows, torch.softmax(best, -1))


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
