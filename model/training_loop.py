"""The training loop: updates, reports, sample images and saves, up to the last iteration."""

from __future__ import annotations

import time
from collections.abc import Iterable

from model.trainer import Batch, Trainer
from model.training_state import mark_newest, remove_leftovers, save
from util.logger import Meter, TrainLog
from util.provenance import write_environment
from util.signals import StopRequest


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


def run_training(
    trainer: Trainer, batches: Iterable[Batch], log: TrainLog | None, stop: StopRequest
) -> None:
    """Train to the last iteration, or until a process is requested to stop.

    Args:
        batches: one per remaining iteration.
        log: of the main process; None in all others.
    """
    settings = trainer.settings
    meter = Meter()
    start = time.perf_counter()
    for batch in batches:
        loaded = time.perf_counter()
        scalars, logits = trainer.step(*batch, stop_requested=bool(stop.received))
        iteration = trainer.iteration
        is_last = iteration == settings.iterations or trainer.must_stop
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
        if trainer.must_stop:
            if log:
                log.logger.info(
                    "stopped at iteration %d, saved; resume with --load_model auto", iteration
                )
            return
        start = time.perf_counter()
