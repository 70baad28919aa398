"""Save and resume a run: weights alone, and checkpoints with the full training state.

The folder of a run contains <id>_<iteration>.pth (weights), <id>_<iteration>_checkpoint.pth (the
last checkpoints and the milestones), and <id>_checkpoint.pth, a link to the newest checkpoint.
"""

from __future__ import annotations

import glob
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from model.checkpoint import FORMAT, read_file, save_network, upgrade_tensor_name, write_file
from model.network import NetworkSpec
from model.trainer import Trainer
from util.hyper_para import TrainSettings
from util.parse_settings import run_folder
from util.provenance import Record, list_changes
from util.ranks import gather_over_ranks

# Option in an earlier version of this code -> its present name.
_FORMER_SETTINGS = {"trunk_lr": "backbone_lr", "trunk_weights": "backbone_weights"}

# Options that may differ when a run is resumed; all others must be equal.
_MAY_CHANGE = {
    "load_network", "load_model", "save_dir", "static_root", "bl_root", "davis_root", "yv_root",
    "device", "num_workers", "benchmark", "report_interval", "image_interval", "save_interval",
    "keep_last", "milestones", "debug", "iterations", "id", "backbone_weights", "compile", "no_amp",
    "precision", "plugin", "max_bad_share",
    # The record has clips_per_update, which must be equal.
    "batch_size", "global_batch",
}  # fmt: skip


def checkpoint_path(settings: TrainSettings) -> Path:
    """Return the path of <id>_checkpoint.pth, the newest checkpoint of a run."""
    return run_folder(settings) / f"{settings.id}_checkpoint.pth"


def save(trainer: Trainer) -> None:
    """Write weights and a checkpoint, and delete checkpoints beyond --keep_last.

    All processes must call it, since each has its own random state; the main process writes.
    """
    random_states = [state.clone() for state in gather_over_ranks(_random_state(trainer))]
    if not trainer.ranks.is_main:
        return
    record = {**trainer.record, "iteration": trainer.iteration}
    stem = f"{trainer.settings.id}_{trainer.iteration}"
    save_network(trainer.folder / f"{stem}.pth", trainer.network, record)
    path = trainer.folder / f"{stem}_checkpoint.pth"
    write_file(
        path,
        {
            "format": f"{FORMAT}-training",
            "spec": asdict(trainer.network.spec),
            "record": record,
            "iteration": trainer.iteration,
            "weights": trainer.network.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "scaler": trainer.scaler.state_dict(),
            "random_states": random_states,
            "device": trainer.device.type,
        },
    )
    _link(path, checkpoint_path(trainer.settings))
    kept = {trainer.iteration, *trainer.settings.milestones}
    numbered = _numbered(trainer.settings)
    for iteration in _by_age(numbered)[trainer.settings.keep_last :]:
        if iteration not in kept:
            numbered[iteration].unlink()


def _link(path: Path, name: Path) -> None:
    """Give a file a second name atomically; copy it if the file system has no links."""
    temporary = name.with_name(f".{name.stem}.{secrets.token_hex(6)}{name.suffix}")
    try:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
        temporary.replace(name)
    finally:
        temporary.unlink(missing_ok=True)


def _numbered(settings: TrainSettings) -> dict[int, Path]:
    """Map iterations to the checkpoints of a run."""
    name = re.compile(re.escape(settings.id) + r"_(\d+)_checkpoint\.pth")
    folder = run_folder(settings)
    matches = {path: name.fullmatch(path.name) for path in folder.glob("*_checkpoint.pth")}
    return {int(match[1]): path for path, match in matches.items() if match}


def _by_age(numbered: dict[int, Path]) -> list[int]:
    """Sort iterations from the last written to the first.

    After resuming from an earlier checkpoint, the last written is not the highest iteration.
    """
    return sorted(numbered, key=lambda i: (numbered[i].stat().st_mtime_ns, i), reverse=True)


def mark_newest(settings: TrainSettings, iteration: int) -> None:
    """Make `find_newest` prefer the resumed checkpoint to later ones, which are abandoned."""
    path = _numbered(settings).get(iteration)
    if path is not None:
        path.touch()
        _link(path, checkpoint_path(settings))


def _random_state(trainer: Trainer) -> torch.Tensor:
    """Return the state of the default generator, which dropout uses, on the trainer's device."""
    if trainer.device.type == "cuda":
        return torch.cuda.get_rng_state(trainer.device)
    if trainer.device.type == "mps":
        return torch.mps.get_rng_state()
    return torch.get_rng_state()


def _set_random_state(trainer: Trainer, states: list[torch.Tensor]) -> None:
    if trainer.ranks.rank >= len(states):
        return  # the saved run had fewer processes
    state = states[trainer.ranks.rank]
    if trainer.device.type == "cuda":
        torch.cuda.set_rng_state(state, trainer.device)
    elif trainer.device.type == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.set_rng_state(state)


def find_newest(settings: TrainSettings) -> tuple[Path, list[str]] | None:
    """Find the newest undamaged checkpoint of a run.

    Returns:
        Its path, and a sentence for each newer checkpoint that is damaged; None if there is none.

    Raises:
        ValueError: all checkpoints are damaged.
    """
    numbered = _numbered(settings)
    paths = [numbered[iteration] for iteration in _by_age(numbered)]
    if checkpoint_path(settings).exists():
        paths.append(checkpoint_path(settings))
    problems = []
    for path in paths:
        try:
            _check(read_file(path), path)
        except (ValueError, OSError) as error:
            problems.append(f"{path} is skipped: {error}")
        else:
            return path, problems
    if problems:
        raise ValueError("No checkpoint of the run can be read. " + " ".join(problems))
    return None


def remove_leftovers(settings: TrainSettings) -> None:
    """Delete the unfinished files of a killed process."""
    for path in run_folder(settings).glob(f".{glob.escape(settings.id)}_*.pth"):
        path.unlink(missing_ok=True)


def pick_checkpoint(settings: TrainSettings, is_restart: bool) -> tuple[str, list[str]] | None:
    """Pick the checkpoint to resume from. Only the main process calls it.

    Args:
        is_restart: torchrun has restarted the command: the run resumes from its own newest
            checkpoint, or from --load_model if it has none.

    Returns:
        Its path, and a sentence for each newer checkpoint that is damaged; None for a new run.

    Raises:
        ValueError: a new run would overwrite another, or all checkpoints are damaged.
    """
    own = checkpoint_path(settings)
    given = settings.load_model if settings.load_model != "auto" else ""
    if given and own.exists() and Path(given).resolve().parent != own.resolve().parent:
        raise ValueError(
            f"There already is a run {settings.id}, and {given} belongs to another run: choose "
            f"another --id, or remove {own.parent}."
        )
    if given and not is_restart:
        return given, []
    newest = find_newest(settings)
    if newest is None:
        return (given, []) if given else None
    if not (is_restart or settings.load_model):
        raise ValueError(
            f"There already is a run {settings.id}: resume it with --load_model {own} (or "
            f"--load_model auto), choose another --id, or remove {own.parent}."
        )
    return str(newest[0]), newest[1]


def _check(content: Mapping[str, object], path: Path | str) -> None:
    if (
        content.get("format") != f"{FORMAT}-training"
        or not {"random_states", "device"} <= content.keys()
    ):
        raise ValueError(
            f"{path} is not a checkpoint to resume from: give the file that ends in "
            "_checkpoint.pth, or start a new run from these weights with --load_network."
        )


def resume(trainer: Trainer, path: Path | str) -> None:
    """Load the full training state of a checkpoint.

    Raises:
        ValueError: the file is not a checkpoint, or the run had other settings.
    """
    content = read_file(path)
    _check(content, path)
    # Fields that earlier versions of this code did not have take their defaults.
    spec = {**asdict(NetworkSpec()), **content["spec"]}
    differences = list_changes(spec, asdict(trainer.network.spec), ())
    if differences:
        raise ValueError(
            f"{path} has another network than requested ({'; '.join(differences)}): give the same "
            "--method, --size, --stage, --static_objects and --repeat."
        )
    differences = _list_changed_settings(trainer, content["record"])
    if differences:
        raise ValueError(
            f"{path} belongs to a run with other settings: {'; '.join(differences)}. Resume with "
            "the same, or start a new run from its weights with --load_network."
        )
    trainer.network.load_state_dict(
        {upgrade_tensor_name(name): tensor for name, tensor in content["weights"].items()}
    )
    is_fused = trainer.optimizer.param_groups[0]["fused"]
    trainer.optimizer.load_state_dict(content["optimizer"])
    for group in trainer.optimizer.param_groups:
        group["fused"] = is_fused  # the saved value belongs to the device of the saved run
    if content["scaler"]:  # empty if the saved run did not scale gradients
        trainer.scaler.load_state_dict(content["scaler"])
    if content["device"] == trainer.device.type:  # states of other devices do not fit
        _set_random_state(trainer, content["random_states"])
    trainer.iteration = content["iteration"]
    trainer.set_rates()


def _list_changed_settings(trainer: Trainer, record: Record) -> list[str]:
    """List the differences between the saved run and this one that prevent resuming."""
    saved = {
        **asdict(TrainSettings()),
        **{_FORMER_SETTINGS.get(name, name): v for name, v in record["settings"].items()},
    }
    names = ("clips_per_update", "num_samples", "dataset_sizes")
    sizes = {name: trainer.record.get(name) for name in names}
    may_change = _MAY_CHANGE
    if trainer.settings.stage != "0":  # --jump_fractions are shares of --iterations
        may_change = _MAY_CHANGE - {"iterations"}
    changes = list_changes(saved, asdict(trainer.settings), may_change)
    return list_changes(record, sizes, ()) + [f"--{change}" for change in changes]
