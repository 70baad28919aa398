"""Batch sampler: one endless stream of epochs, split over the processes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Seeds the order of an epoch in place of a sample index: samples are seeded by
# (seed, epoch, index), and an index is always smaller.
_ORDER = 2**32


class ClipBatches:
    """Batches of (epoch, index); the global batches do not depend on the number of processes.

    The stream is a new permutation of the data set in every epoch. Iteration i takes the next
    `batch_size * world_size` samples, and each rank takes a consecutive part of them: two processes
    with a batch size of 4 share the samples of one process with a batch size of 8.

    Args:
        num_samples: length of the data set.
        batch_size: samples per process and iteration.
        iterations: half-open range of iterations; a resumed run starts at its next iteration.
        rank: rank of this process.
        world_size: number of processes.
        seed: seed of the permutations.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        iterations: range,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.iterations = iterations
        self.rank = rank
        self.world_size = world_size
        self.seed = seed

    def __len__(self) -> int:
        return len(self.iterations)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, int)
        for iteration in self.iterations:
            start = (iteration * self.world_size + self.rank) * self.batch_size
            batch = []
            for position in range(start, start + self.batch_size):
                if position // self.num_samples != epoch:
                    epoch = position // self.num_samples
                    order = np.random.default_rng((self.seed, epoch, _ORDER)).permutation(
                        self.num_samples
                    )
                batch.append((epoch, int(order[position % self.num_samples])))
            yield batch
