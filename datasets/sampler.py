"""Which sample goes where: one endless stream of epochs, dealt out to the processes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Apart from the indices of samples, whose draws are keyed by (seed, epoch, index).
_ORDER = 2**32


class ClipBatches:
    """Batches of (epoch, index), the same global batches for any number of processes.

    The stream runs through a fresh permutation of the data set in every epoch. Iteration i takes
    the next `batch_size * world_size` of it, of which each rank takes its own stretch: two
    processes with a batch of 4 see, between them, what one process with a batch of 8 sees.

    Args:
        num_samples: length of the data set.
        batch_size: samples per process and iteration.
        iterations: the half-open range to give, so that a resumed run goes on where it stopped.
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
