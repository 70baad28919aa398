"""The training loop: updates, reports, sample images and saves, up to the last iteration."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from model.trainer import Batch, Trainer
from model.training_state import mark_newest, remove_leftovers, save
from util.logger import Meter, TrainLog
from util.provenance import write_environment
from util.ranks import gather_over_ranks
from util.signals import StopRequest

# Files that may be bad in every run, however small its data.
_MIN_BAD_FILES = 5


def start_log(trainer: Trainer, checkpoint: str) -> TrainLog:
    """Open the log of a run and describe the run in it. Only the main process calls it.

    Args:
        checkpoint: file from which the run is resumed; empty for a new run.
    """
    settings, record = trainer.settings, trainer.record
    remove_leftovers(settings)
    mark_newest(settings, trainer.iteration)
    log = TrainLog(trainer.folder, trainer.iteration, settings.iterations)
    write_environment(trainer.folder, record, trainer.iteration)
    log.logger.info(
        "run %s: %s %s, stage %s, commit %s, torch %s",
        settings.id,
        settings.method,
        settings.size,
        settings.stage,
        record["git"],
        record["torch"],
    )
    if checkpoint:
        log.logger.info("resumed from iteration %d: %s", trainer.iteration, checkpoint)
    num_samples, num_clips = record["num_samples"], record["clips_per_update"]
    log.logger.info("data: %s, %d samples per epoch", record["dataset_sizes"], num_samples)
    log.logger.info(
        "%d processes x %d passes x batch %d = %d clips per iteration",
        trainer.ranks.world_size,
        trainer.passes,
        trainer.share // trainer.passes,
        num_clips,
    )
    log.logger.info(
        "%d iterations, %.1f epochs, learning rate %g, %s, %s",
        settings.iterations,
        settings.iterations * num_clips / num_samples,
        settings.lr,
        trainer.device,
        str(trainer.dtype).removeprefix("torch."),
    )
    return log


class BadFiles:
    """Files that cannot be used for training, found by any process since the start.

    Args:
        num_samples: samples per epoch.
        max_share: see --max_bad_share.
    """

    def __init__(self, num_samples: int, max_share: float) -> None:
        self._share = max_share
        self.limit = max(_MIN_BAD_FILES, int(max_share * num_samples)) if max_share else 0
        self.problems: list[str] = []  # a sentence for each file
        self.num_replaced = 0  # samples

    def add(self, problems: Sequence[str], log: TrainLog | None) -> None:
        """Add the problems of replaced samples (lines), and log each new one."""
        self.num_replaced += len(problems)
        lines = [line for text in problems for line in text.splitlines()]
        for line in dict.fromkeys(lines):
            if line in self.problems:
                continue
            self.problems.append(line)
            if log:
                log.logger.info(
                    "bad file %d (at most %d): %s. Another sample replaces it.",
                    len(self.problems),
                    self.limit,
                    line.rstrip("."),
                )

    @property
    def are_too_many(self) -> bool:
        """Whether there are more of them than the run accepts."""
        return len(self.problems) > self.limit

    def describe(self) -> str:
        """Explain the end of a run that has too many."""
        listed = "\n- ".join(["", *self.problems]) if len(self.problems) > 1 else self.problems[0]
        return (
            f"Bad files: {len(self.problems)}, more than --max_bad_share {self._share:g} accepts "
            f"({self.limit}). The run is saved; replace the files and resume with --load_model "
            f"auto: {listed}"
        )


def run_training(
    trainer: Trainer,
    batches: Iterable[tuple[Batch, list[str]]],
    log: TrainLog | None,
    stop: StopRequest,
) -> None:
    """Train to the last iteration, or until a process is requested to stop.

    Args:
        batches: one per remaining iteration, with the problems of each sample (lines).
        log: of the main process; None in all others.

    Raises:
        ValueError: more files than --max_bad_share cannot be used. The run is saved.
    """
    settings = trainer.settings
    bad_files = BadFiles(trainer.record["num_samples"], settings.max_bad_share)
    meter = Meter()
    start = time.perf_counter()
    for batch, problems in batches:
        loaded = time.perf_counter()
        scalars, logits = trainer.step(
            *batch, stop_requested=bool(stop.received), has_bad_files=any(problems)
        )
        iteration = trainer.iteration
        if trainer.has_bad_files:
            for found in gather_over_ranks([text for text in problems if text]):
                bad_files.add(found, log)
        ends_early = trainer.must_stop or bad_files.are_too_many
        is_last = iteration == settings.iterations or ends_early
        meter.add(scalars, loaded - start, time.perf_counter() - loaded)
        if iteration % settings.report_interval == 0 or is_last:
            values = meter.means(trainer.average(meter.sums))
            values["lr"] = trainer.rate
            meter = Meter()
            if log:
                log.scalars(iteration, values)
        if log and (iteration % settings.image_interval == 0 or is_last):
            log.images(iteration, batch.images[-1], batch.labels[-1], logits[-1])
        if iteration % settings.save_interval == 0 or is_last or iteration in settings.milestones:
            save(trainer)
        if log:
            log.update(iteration)
            if is_last and bad_files.problems:
                log.logger.info(
                    "bad files: %d; samples replaced since the start: %d",
                    len(bad_files.problems),
                    bad_files.num_replaced,
                )
        if bad_files.are_too_many:
            raise ValueError(bad_files.describe() if log else "See the message of process 0.")
        if trainer.must_stop:
            if log:
                log.logger.info(
                    "stopped at iteration %d, saved; resume with --load_model auto", iteration
                )
            return
        start = time.perf_counter()
