"""Similarity, the memory read and soft aggregation, against naive formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from model import matching
from model.matching import Similarity, aggregate, gather_rows, l2_similarity, read, to_rows

# (B, N, P, CK, C)
SHAPES = [(1, 5, 3, 4, 2), (1, 40, 17, 8, 6), (2, 33, 10, 8, 5)]


def random_memory(
    batch: int, num_rows: int, num_queries: int, key: int, value: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num_rows)
    return (
        torch.randn(batch, num_rows, key, generator=generator),
        torch.randn(batch, num_rows, value, generator=generator),
        torch.randn(batch, num_queries, key, generator=generator),
    )


def naive_read(
    key: torch.Tensor, value: torch.Tensor, query_key: torch.Tensor, top_k: int | None
) -> torch.Tensor:
    """Read each position with a softmax over the k most similar rows."""
    batch, num_rows, width = key.shape
    readouts = value.new_zeros(batch, query_key.shape[1], value.shape[2])
    for b in range(batch):
        for p, query in enumerate(query_key[b]):
            similarities = torch.stack(
                [(2 * key[b, n] @ query - key[b, n] @ key[b, n]) for n in range(num_rows)]
            ) / math.sqrt(width)
            weights = torch.zeros(num_rows)
            best = similarities.argsort(descending=True)[:top_k]
            weights[best] = torch.softmax(similarities[best], 0)
            readouts[b, p] = weights @ value[b]
    return readouts


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("top_k", [1, 3, 5, 6, 1000, None])
def test_read_is_a_softmax_over_the_most_similar_rows(
    shape: tuple[int, int, int, int, int], top_k: int | None
) -> None:
    key, value, query_key = random_memory(*shape)
    with torch.no_grad():
        readout = read(key, value, query_key, top_k)
    expected = naive_read(key, value, query_key, top_k)
    torch.testing.assert_close(readout, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("top_k", [4, None])
def test_blocks_of_queries_have_no_effect(
    monkeypatch: pytest.MonkeyPatch, top_k: int | None
) -> None:
    key, value, query_key = random_memory(2, 33, 20, 8, 5)
    sizes: list[int] = []

    class Recorder(Similarity):
        def __call__(self, *args: Any) -> torch.Tensor:
            similarities = super().__call__(*args)
            sizes.append(similarities.nbytes)
            return similarities

    with torch.no_grad():
        whole = read(key, value, query_key, top_k)
        limit = 4 * key.shape[0] * key.shape[1] * 7 + 1  # enough for seven queries
        monkeypatch.setattr(matching, "_BLOCK_BYTES", limit)
        in_blocks = read(key, value, query_key, top_k, Recorder(is_distance=True))
        assert len(sizes) == 3
        assert max(sizes) <= limit
        monkeypatch.setattr(matching, "_BLOCK_BYTES", 1)
        one_by_one = read(key, value, query_key, top_k)
    torch.testing.assert_close(in_blocks, whole)
    torch.testing.assert_close(one_by_one, whole)


@pytest.mark.parametrize("top_k", [3, None])
def test_large_keys_read_the_nearest_row(top_k: int | None) -> None:
    """The published softmax does not subtract the maximum, so it would be 0 / 0 or inf / inf."""
    key, value, _ = random_memory(1, 20, 1, 8, 5)
    key = key * 1e3
    nearest = torch.tensor([4, 0, 19])
    with torch.no_grad():
        readout = read(key, value, key[:, nearest], top_k)
    assert torch.isfinite(readout).all()
    torch.testing.assert_close(readout, value[:, nearest])


def test_similarity_is_the_negative_squared_distance() -> None:
    key, _, query_key = random_memory(2, 33, 10, 8, 5)
    distance = (query_key[:, :, None] - key[:, None]).square().sum(-1)  # (B, P, N)
    own = query_key.square().sum(-1, keepdim=True)  # cancelled by the softmax over n
    expected = (own - distance) / math.sqrt(8)
    similarities = l2_similarity(key, query_key)
    torch.testing.assert_close(similarities, expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = l2_similarity(key, query_key)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, similarities)


def test_gradients_of_a_read_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_BLOCK_BYTES", 1)
    ours = [t.requires_grad_() for t in random_memory(2, 6, 5, 4, 3)]
    theirs = [t.detach().clone().requires_grad_() for t in ours]
    read(ours[0], ours[1], ours[2]).square().sum().backward()
    naive_read(theirs[0], theirs[1], theirs[2], None).square().sum().backward()
    for mine, naive in zip(ours, theirs, strict=True):
        assert mine.grad is not None
        assert naive.grad is not None
        assert naive.grad.abs().max() > 0.1
        torch.testing.assert_close(mine.grad, naive.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("top_k", [4, None])
def test_bfloat16_memory(top_k: int | None) -> None:
    key, value, query_key = (t.bfloat16() for t in random_memory(2, 33, 10, 8, 5))
    with torch.no_grad():
        readout = read(key, value, query_key, top_k)
        expected = read(key.float(), value.float(), query_key.float(), top_k)
    assert readout.dtype == torch.bfloat16
    torch.testing.assert_close(readout.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("batch", [1, 2])
def test_both_ways_to_gather_rows_agree(batch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(batch, 12, 5, generator=generator)
    rows = torch.randint(12, (batch, 7, 3), generator=generator)
    weights = torch.rand(batch, 7, 3, generator=generator)
    expected = torch.zeros(batch, 7, 5)
    for b in range(batch):
        for p in range(7):
            for k in range(3):
                expected[b, p] += weights[b, p, k] * value[b, rows[b, p, k]]
    torch.testing.assert_close(gather_rows(value, rows, weights), expected)
    # The variant for MPS.
    torch.testing.assert_close(matching._gather_by_index(value, rows, weights), expected)


def test_rows_of_a_feature_map() -> None:
    feature = torch.arange(2 * 3 * 2 * 2).view(2, 3, 2, 2)
    rows = to_rows(feature)
    assert rows.shape == (2, 4, 3)
    assert rows[1, 2].tolist() == feature[1, :, 1, 0].tolist()
    channels_last = feature.float().contiguous(memory_format=torch.channels_last)
    assert to_rows(channels_last).is_contiguous()
    assert to_rows(channels_last).data_ptr() == channels_last.data_ptr()


def test_aggregation() -> None:
    # The odds of background and both objects are 0.25 / 0.75, 0.5 / 0.5 and 0.5 / 0.5.
    prob = torch.softmax(aggregate(torch.tensor([0.5, 0.5])), 0)
    torch.testing.assert_close(prob, torch.tensor([1 / 7, 3 / 7, 3 / 7]))
    # The odds are 0.2 / 0.8 and 0.8 / 0.2.
    prob = torch.softmax(aggregate(torch.tensor([0.8])), 0)
    torch.testing.assert_close(prob, torch.tensor([1 / 17, 16 / 17]))


def test_aggregated_probabilities_sum_to_one_at_the_extremes() -> None:
    values = torch.tensor([0.0, 1e-9, 0.3, 1 - 1e-9, 1.0])
    prob = torch.cartesian_prod(values, values, values).T  # (O, P)
    logits = aggregate(prob)
    assert logits.shape == (4, 125)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(torch.softmax(logits, 0).sum(0), torch.ones(125))
    one_wins = (prob > 0.9).sum(0) == 1
    assert torch.equal(logits[:, one_wins].argmax(0), 1 + prob[:, one_wins].argmax(0))
    assert (logits[:, (prob < 0.1).all(0)].argmax(0) == 0).all()


def test_aggregation_along_another_dimension_and_in_half_precision() -> None:
    prob = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    logits = aggregate(prob, dim=1)
    assert logits.shape == (2, 4, 4)
    for b in range(2):
        torch.testing.assert_close(logits[b], aggregate(prob[b]))
    half = prob.bfloat16()
    assert aggregate(half).dtype == torch.float32
    torch.testing.assert_close(aggregate(half), aggregate(half.float()))


@pytest.mark.parametrize("num_rows", [2 * 64 * 20, 4 * 64 * 20, 4 * 64 * 20 + 17, 9000])
def test_search_by_groups_finds_the_most_similar_rows(num_rows: int) -> None:
    similarities = torch.randn(2, 7, num_rows, generator=torch.manual_seed(0))
    similarities[0, 0, :3000] += 5  # many large values in the same groups
    similarities[1, 3, -19:] += 9  # the rows after the last group
    with torch.inference_mode():
        best, rows = matching._find_top(similarities, 20)
    expected = similarities.topk(20).values
    assert torch.equal(best.sort(descending=True).values, expected)
    assert torch.equal(similarities.gather(2, rows), best)
    assert all(len(set(r.tolist())) == 20 for r in rows.flatten(0, 1))
