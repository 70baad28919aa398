"""Batches of the training stream."""

from __future__ import annotations

import itertools

import pytest

from datasets.sampler import ClipBatches


def batches(
    num_samples: int, batch_size: int, iterations: range, rank: int = 0, world_size: int = 1,
    seed: int = 7,
) -> list[list[tuple[int, int]]]:  # fmt: skip
    return list(ClipBatches(num_samples, batch_size, iterations, rank, world_size, seed))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_global_batches_do_not_depend_on_the_number_of_processes(world_size: int) -> None:
    expected = batches(11, 8, range(9))
    parts = [batches(11, 8 // world_size, range(9), rank, world_size) for rank in range(world_size)]
    joined = [list(itertools.chain(*rank_parts)) for rank_parts in zip(*parts, strict=True)]
    assert joined == expected


@pytest.mark.parametrize(("num_samples", "batch_size"), [(12, 4), (11, 4), (3, 8), (1, 2)])
def test_each_epoch_is_a_permutation(num_samples: int, batch_size: int) -> None:
    """Also if a batch spans two epochs or more."""
    num_epochs = 6
    stream = [*itertools.chain(*batches(num_samples, batch_size, range(num_samples * num_epochs)))]
    for epoch in range(num_epochs):
        part = stream[epoch * num_samples : (epoch + 1) * num_samples]
        assert {e for e, _ in part} == {epoch}
        assert sorted(index for _, index in part) == list(range(num_samples))


def test_epochs_and_seeds_differ() -> None:
    orders = [
        tuple(index for _, index in batches(50, 50, range(1, 2), seed=seed)[0]) for seed in (0, 1)
    ]
    first = tuple(index for _, index in batches(50, 50, range(1), seed=0)[0])
    assert len({*orders, first}) == 3


@pytest.mark.parametrize("start", [0, 1, 5, 19, 20])
def test_resumed_runs_continue_the_stream(start: int) -> None:
    assert batches(7, 3, range(start, 20)) == batches(7, 3, range(20))[start:]
    second_rank = batches(7, 3, range(start, 20), 1, 2)
    assert second_rank == batches(7, 3, range(20), 1, 2)[start:]


def test_length_is_the_number_of_iterations() -> None:
    sampler = ClipBatches(5, 2, range(3, 10))
    assert len(sampler) == len(list(sampler)) == 7
    assert list(sampler) == list(sampler)
    assert all(len(batch) == 2 for batch in sampler)
