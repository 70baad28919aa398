"""Train a network: `python train.py --id NAME --stage 0`, alone or under torchrun."""

from __future__ import annotations

import contextlib
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from datasets.clips import TrainingClips, start_worker
from datasets.curriculum import find_data, stage_clips
from datasets.sampler import ClipBatches
from datasets.static import PUBLISHED_SETS
from model.start import start_network
from model.trainer import Trainer, share_of_update
from model.training_state import (
    checkpoint_path,
    find_newest,
    mark_newest,
    remove_leftovers,
    resume,
    save,
)
from util.devices import pick_device, pick_dtype
from util.files import claimed
from util.hyper_para import TrainSettings
from util.logger import Meter, TrainLog
from util.parse_settings import last_weights, parse_train
from util.provenance import describe_run, write_environment
from util.ranks import Ranks, from_main, join_ranks, leave_ranks, same_over_ranks, was_restarted
from util.signals import INTERRUPTED, StopRequest

# Seconds that the workers of a killed run may hold its folder.
_LOCK_PATIENCE = 15.0


def main(argv: list[str] | None = None) -> int:
    """Parse, build, run one stage after the other; returns the exit status."""
    recipe = parse_train(argv)
    try:
        ranks = join_ranks(recipe[0].device)
        data = find_data(recipe)
        is_restart = was_restarted()  # of the same command, by torchrun --max-restarts
        with StopRequest() as stop:
            for settings, part in zip(recipe, data, strict=True):
                if len(recipe) > 1 and from_main(partial(is_finished, settings, is_restart)):
                    if ranks.is_main:
                        print(f"{settings.id} is finished: {last_weights(settings)} is there.")
                    continue
                trainer = train_stage(settings, part, ranks, stop, is_restart)
                if trainer.must_stop:
                    return stop.status
    except (ValueError, OSError, FloatingPointError) as error:
        # A loader's worker hands its error over as the last line of a traceback.
        sentence = str(error).rpartition(f"\n{type(error).__name__}: ")[2].strip()
        print(f"train.py: error: {sentence}", file=sys.stderr)
        return 2
    except torch.OutOfMemoryError as error:
        print(
            f"train.py: error: {str(error).splitlines()[0]} Give a smaller --batch_size (with "
            "--global_batch an update stays as large), --crop_size or --num_frames.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        leave_ranks()
    return 0


def is_finished(settings: TrainSettings, is_restart: bool) -> bool:
    """Whether a stage of a recipe that goes on is done."""
    goes_on = is_restart or settings.load_model == "auto"
    return goes_on and last_weights(settings).exists()


def train_stage(
    settings: TrainSettings, data: list[Any], ranks: Ranks, stop: StopRequest, is_restart: bool
) -> Trainer:
    """Build everything and train one stage to its end, or until it is asked to stop."""
    device = pick_device(settings.device, ranks.local_rank)
    # Scaled float16 training is not reliable on MPS.
    use_half = not settings.no_amp and device.type != "mps"
    dtype = pick_dtype(settings.precision, device, use_half)
    torch.manual_seed(settings.seed)
    torch.backends.cudnn.benchmark = settings.benchmark
    share, _ = share_of_update(settings, ranks.world_size)
    clips = stage_clips(settings, data, share * ranks.world_size)
    found = from_main(partial(pick_checkpoint, settings, is_restart))
    network = start_network(settings, is_fresh=found is None)
    trainer = Trainer(network, settings, describe_run(settings), device, dtype, ranks)
    trainer.record |= {
        "num_processes": ranks.world_size,
        "clips_per_update": share * ranks.world_size,
        "num_samples": len(clips),
        "dataset_sizes": clips.sizes,
    }
    torch.manual_seed(settings.seed + ranks.rank)  # dropout differs between processes
    if found is not None:
        path, notes = found
        resume(trainer, path)
        for note in notes if ranks.is_main else ():
            print(f"train.py: warning: {note}", file=sys.stderr)
    if not same_over_ranks((trainer.iteration, trainer.record["dataset_sizes"], len(clips))):
        raise ValueError(
            "The processes see different checkpoints or data: have all nodes share one file "
            "system for --save_dir, and give all of them the same data."
        )
    if trainer.iteration > settings.iterations:
        raise ValueError(
            f"{found and found[0]} is at iteration {trainer.iteration} already, but the run ends at "
            f"--iterations {settings.iterations}: ask for more."
        )
    if trainer.iteration == settings.iterations:
        if ranks.is_main:
            print(f"{settings.id} is at iteration {trainer.iteration}: nothing is left to do.")
        return trainer
    with contextlib.ExitStack() as stack:
        if ranks.is_main:
            stack.enter_context(claimed(trainer.folder, _LOCK_PATIENCE))
        log = start_log(trainer) if ranks.is_main else None
        if log:
            stack.callback(log.close)
        run(trainer, clips, log, stop)
    from_main(lambda: None)  # the next stage starts from what the main process has written by now
    return trainer


def pick_checkpoint(settings: TrainSettings, is_restart: bool) -> tuple[str, list[str]] | None:
    """The checkpoint to resume from, if any, and warnings; for the main process to call.

    A restart goes on from what this run has saved by now, else from where it started.

    Raises:
        ValueError: a new run would overwrite another, or none of its checkpoints can be read.
    """
    own = checkpoint_path(settings)
    given = settings.load_model if settings.load_model != "auto" else ""
    if given and own.exists() and Path(given).resolve().parent != own.resolve().parent:
        raise ValueError(
            f"There is a run {settings.id} already, which going on from {given} would mix with "
            f"another: choose another --id, or remove {own.parent}."
        )
    if given and not is_restart:
        return given, []
    newest = find_newest(settings)
    if newest is None:
        return (given, []) if given else None
    if not (is_restart or settings.load_model):
        raise ValueError(
            f"There is a run {settings.id} already. Go on with it by --load_model {own} (or "
            f"--load_model auto), choose another --id, or remove {own.parent}."
        )
    return str(newest[0]), newest[1]


def start_log(trainer: Trainer) -> TrainLog:
    """Open the run's folder and say what will be done."""
    settings, record = trainer.settings, trainer.record
    remove_leftovers(settings)
    mark_newest(settings, trainer.iteration)
    log = TrainLog(trainer.folder, trainer.iteration, settings.iterations)
    write_environment(trainer.folder, record, trainer.iteration)
    absent = [name for name in PUBLISHED_SETS if name not in record["dataset_sizes"]]
    if settings.stage == "0" and absent:
        log.logger.info("of the published static images, these are absent: %s", ", ".join(absent))
    batch = record["clips_per_update"]
    log.logger.info(
        "run %s: %s %s, stage %s, commit %s, torch %s",
        settings.id,
        settings.method,
        settings.size,
        settings.stage,
        record["git"],
        record["torch"],
    )
    log.logger.info("data: %s, in a mixture of %d", record["dataset_sizes"], record["num_samples"])
    log.logger.info(
        "%d processes x %d passes x batch %d = %d clips an iteration, %d iterations, %.1f epochs, "
        "lr %g, %s, %s", trainer.ranks.world_size, trainer.passes, trainer.share // trainer.passes, batch,
        settings.iterations, settings.iterations * batch / record["num_samples"], settings.lr,
        trainer.device, str(trainer.dtype).removeprefix("torch."),
    )  # fmt: skip
    return log


def run(trainer: Trainer, clips: TrainingClips, log: TrainLog | None, stop: StopRequest) -> None:
    """Train from the iteration of the trainer to the end."""
    settings, ranks = trainer.settings, trainer.ranks
    iterations = range(trainer.iteration, settings.iterations)
    loader = DataLoader(
        clips,
        batch_sampler=ClipBatches(
            len(clips), trainer.share, iterations, ranks.rank, ranks.world_size, settings.seed
        ),
        num_workers=settings.num_workers,
        pin_memory=trainer.device.type == "cuda",
        worker_init_fn=start_worker,
        # Of its own: starting the loader would otherwise advance the state that dropout draws from.
        generator=torch.Generator(),
    )
    meter = Meter()
    before = time.perf_counter()
    for sample in loader:
        got_data = time.perf_counter()
        scalars, logits = trainer.step(
            sample.images, sample.labels, sample.num_objects, sample.first_masks, bool(stop.asked)
        )
        it, is_last = (
            trainer.iteration,
            trainer.iteration == settings.iterations or trainer.must_stop,
        )
        done = time.perf_counter()
        meter.add(scalars, got_data - before, done - got_data)
        if it % settings.report_interval == 0 or is_last:
            values = meter.means(trainer.average(meter.sums))
            values["lr"] = trainer.rate
            meter = Meter()
            if log:
                log.scalars(it, values)
        if log and (it % settings.image_interval == 0 or is_last):
            log.images(it, sample.images[-1], sample.labels[-1], logits[-1])
        if it % settings.save_interval == 0 or is_last or it in settings.milestones:
            save(trainer)
        if log:
            log.update(it)
        if trainer.must_stop:
            if log:
                log.logger.info("stopped at %d; saved: the same with --load_model auto goes on", it)
            return
        before = time.perf_counter()


if __name__ == "__main__":
    sys.exit(main())
