"""Train a network: `python train.py --id NAME --stage 0`, in one process or under torchrun."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partial

from util.parse_settings import last_weights, parse_train, run_folder

if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse_train()

import torch

from datasets.clips import ReplacingClips, TrainingClips
from datasets.curriculum import StageData, absent_data, find_data, stage_clips
from datasets.loader import load_samples
from datasets.sampler import ClipBatches
from model.start import start_network
from model.trainer import Batch, Trainer, share_of_update
from model.training_loop import run_training, start_log
from model.training_state import pick_checkpoint, resume
from util.devices import pick_device, pick_dtype
from util.files import lock_folder
from util.hyper_para import TrainSettings
from util.provenance import describe_run
from util.ranks import (
    Ranks,
    is_lost_process,
    join_ranks,
    leave_ranks,
    run_on_main,
    same_over_ranks,
    was_restarted,
)
from util.signals import INTERRUPTED, StopRequest, end_process

# Seconds for which the workers of a killed run may hold the lock of its folder.
_LOCK_TIMEOUT = 15.0


def main(argv: list[str] | None = None) -> int:
    """Parse, build and train one stage after the other; return the exit status."""
    recipe = parse_train(argv)
    try:
        ranks = join_ranks(recipe[0].device)
        stages = find_data(recipe, ranks.is_main)
        is_restart = was_restarted()  # by torchrun --max-restarts
        with StopRequest() as stop:
            for settings, data in zip(recipe, stages, strict=True):
                if len(recipe) > 1 and run_on_main(partial(is_finished, settings, is_restart)):
                    if ranks.is_main:
                        print(f"{settings.id} is finished: {last_weights(settings)} exists.")
                    continue
                with contextlib.ExitStack() as stack:
                    trainer = train_stage(settings, data, ranks, stop, is_restart, stack)
                if trainer.must_stop:
                    return stop.status
    except (ValueError, OSError, FloatingPointError) as error:
        # The message of an error in a data loader's worker is the last line of a traceback.
        sentence = str(error).rpartition(f"\n{type(error).__name__}: ")[2].strip()
        print(f"train.py: error: {sentence}", file=sys.stderr)
        return 2
    except torch.OutOfMemoryError as error:
        print(
            f"train.py: error: {str(error).splitlines()[0]} Give a smaller --batch_size (an update "
            "keeps its size with --global_batch), --crop_size or --num_frames.",
            file=sys.stderr,
        )
        return 2
    except RuntimeError as error:
        if not is_lost_process(error):
            raise
        print(
            "train.py: error: Another process of the run has ended: read its message.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        leave_ranks()
    return 0


def is_finished(settings: TrainSettings, is_restart: bool) -> bool:
    """Return True if a resumed recipe has already finished this stage."""
    is_resumed = is_restart or settings.load_model == "auto"
    return is_resumed and last_weights(settings).exists()


def lock_run(settings: TrainSettings, stack: contextlib.ExitStack) -> None:
    """Lock the folder of a run until the stack is closed."""
    stack.enter_context(lock_folder(run_folder(settings), _LOCK_TIMEOUT))


def lock_former(settings: TrainSettings, stack: contextlib.ExitStack) -> bool:
    """Lock the folder of a run if it exists, and return True if it does.

    A run that is about to end may still write checkpoints to it. A new run makes its folder later:
    a start that fails leaves nothing behind.
    """
    exists = run_folder(settings).exists()
    if exists:
        lock_run(settings, stack)
    return exists


def train_stage(
    settings: TrainSettings,
    data: StageData,
    ranks: Ranks,
    stop: StopRequest,
    is_restart: bool,
    stack: contextlib.ExitStack,
) -> Trainer:
    """Build everything and train one stage to its end, or until a stop is requested.

    Args:
        stack: holds the lock of the run's folder until it is closed.
    """
    device = pick_device(settings.device, ranks.local_rank)
    # Training with scaled float16 gradients is not reliable on MPS.
    use_half = not settings.no_amp and device.type != "mps"
    dtype = pick_dtype(settings.precision, device, use_half)
    torch.manual_seed(settings.seed)
    torch.backends.cudnn.benchmark = settings.benchmark
    clips_per_update = share_of_update(settings, ranks.world_size)[0] * ranks.world_size
    clips = stage_clips(settings, data, clips_per_update)
    is_locked = run_on_main(partial(lock_former, settings, stack))
    checkpoint = run_on_main(partial(pick_checkpoint, settings, is_restart))
    network = start_network(settings, is_fresh=checkpoint is None)
    record = {
        **describe_run(settings),
        "num_processes": ranks.world_size,
        "clips_per_update": clips_per_update,
        "num_samples": len(clips),
        "dataset_sizes": clips.sizes,
    }
    trainer = Trainer(network, settings, record, device, dtype, ranks)
    torch.manual_seed(settings.seed + ranks.rank)  # dropout differs between processes
    if checkpoint is not None:
        path, problems = checkpoint
        resume(trainer, path)
        for problem in problems if ranks.is_main else ():
            print(f"train.py: warning: {problem}", file=sys.stderr)
    check_start(trainer, checkpoint[0] if checkpoint else "")
    if trainer.iteration == settings.iterations:
        if ranks.is_main:
            print(f"{settings.id} has finished all {trainer.iteration} iterations.")
        return trainer
    with contextlib.ExitStack() as log_stack:
        log = None
        if ranks.is_main:
            if not is_locked:
                lock_run(settings, stack)
            log = start_log(trainer, checkpoint[0] if checkpoint else "")
            log_stack.callback(log.close)
            absent = absent_data(settings.stage, clips.sizes)
            if absent:
                log.logger.info("training without these data sets: %s", ", ".join(absent))
        batches = log_stack.enter_context(load_batches(trainer, clips))
        run_training(trainer, batches, log, stop)
    run_on_main(lambda: None)  # the next stage needs the files of the main process
    return trainer


def check_start(trainer: Trainer, path: str) -> None:
    """Check that all processes start alike and not after the last iteration.

    Args:
        path: the checkpoint, if the run is resumed.

    Raises:
        ValueError: the processes differ, or the checkpoint is later than the last iteration.
    """
    record, settings = trainer.record, trainer.settings
    if not same_over_ranks((trainer.iteration, record["dataset_sizes"], record["num_samples"])):
        raise ValueError(
            "The processes have different checkpoints or data: all nodes must share one file "
            "system for --save_dir and have the same data."
        )
    if trainer.iteration > settings.iterations:
        raise ValueError(
            f"{path} is at iteration {trainer.iteration}, but the run ends at --iterations "
            f"{settings.iterations}: give a larger number."
        )


@contextlib.contextmanager
def load_batches(
    trainer: Trainer, clips: TrainingClips
) -> Iterator[Iterator[tuple[Batch, list[str]]]]:
    """Load the batches of the remaining iterations, with the errors of files that were replaced."""
    settings, ranks = trainer.settings, trainer.ranks
    iterations = range(trainer.iteration, settings.iterations)
    keys = ClipBatches(
        len(clips), trainer.share, iterations, ranks.rank, ranks.world_size, settings.seed
    )
    with load_samples(
        ReplacingClips(clips, settings.seed),
        keys,
        settings.num_workers,
        pin_memory=trainer.device.type == "cuda",
    ) as samples:
        yield (
            (
                Batch(sample.images, sample.labels, sample.num_objects, sample.first_masks),
                sample.problems,
            )
            for sample in samples
        )


if __name__ == "__main__":
    end_process(main)
