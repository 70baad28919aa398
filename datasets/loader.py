"""Data loader of training clips, whose worker processes always end with it."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from datasets.clips import TrainingClips
from util.signals import leave_signals_to_main

# Seconds for workers to end before they are killed.
_PATIENCE = 2.0


@contextlib.contextmanager
def load_samples(
    clips: TrainingClips,
    batches: Iterable[list[tuple[int, int]]],
    num_workers: int,
    pin_memory: bool = False,
) -> Iterator[Iterator[Any]]:
    """Yield an iterator over batches; its workers end with the block, however that ends.

    A batch is a `ClipSample` with a batch dimension before each tensor and lists of texts.

    Args:
        clips: the training data.
        batches: (epoch, index) of the samples of each batch.
        num_workers: number of worker processes; 0 loads in this process.
        pin_memory: see `DataLoader`.

    Raises:
        ValueError: a worker was killed.
    """
    loader = DataLoader(
        clips,
        batch_sampler=batches,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        # By default, the loader would advance the random state that dropout uses.
        generator=torch.Generator(),
    )
    samples = iter(loader)
    try:
        yield samples
    except (RuntimeError, ConnectionError) as error:  # the latter in the middle of a transfer
        is_worker = str(error).startswith("DataLoader worker (pid")
        if not (is_worker or isinstance(error, ConnectionError)):
            raise
        raise ValueError(
            "A data loading process was killed, possibly because the machine ran out of memory: "
            "resume with --load_model auto and a smaller --num_workers."
        ) from error
    finally:
        _end_workers(samples)


def _start_worker(_: int) -> None:
    """Prepare a worker process: one OpenCV thread, signals left to the main process.

    The workers already use all cores, so threads of OpenCV would compete with them.
    """
    cv2.setNumThreads(0)
    leave_signals_to_main()


def _end_workers(samples: Iterator[Any]) -> None:
    """End the workers of a loader.

    After an error, its traceback keeps the loader alive. At exit, `multiprocessing` would then send
    SIGTERM to the workers, which they ignore, and wait forever.
    """
    if not isinstance(samples, _MultiProcessingDataLoaderIter):
        return
    killer = threading.Timer(_PATIENCE, _kill_workers)
    for _ in range(2):
        # At any line, the signal handler of torch may raise a RuntimeError about a killed worker.
        with contextlib.suppress(RuntimeError):
            if killer.ident is None:
                killer.start()
            samples._shutdown_workers()
            killer.cancel()


def _kill_workers() -> None:
    for worker in multiprocessing.active_children():
        worker.kill()
