"""Saving and resuming a run: the weights alone, and all it takes to go on as if nothing happened.

A run's folder holds <id>_<iteration>.pth (weights), <id>_<iteration>_checkpoint.pth (the last few,
and milestones), and <id>_checkpoint.pth, which is the newest of the latter under a lasting name.
"""

from __future__ import annotations

import glob
import os
import re
import secrets
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import FORMAT, read_file, rename_former, save_network, write_file
from model.network import NetworkSpec
from model.trainer import Trainer
from util.hyper_para import TrainSettings
from util.provenance import list_changes
from util.ranks import gather_over_ranks

# Options of an earlier version of this code -> their names today.
_FORMER_SETTINGS = {"trunk_lr": "backbone_lr", "trunk_weights": "backbone_weights"}

# What may differ between a run and its continuation; all else must be as it was.
_MAY_CHANGE = {
    "load_network", "load_model", "save_dir", "static_root", "bl_root", "davis_root", "yv_root",
    "device", "num_workers", "benchmark", "report_interval", "image_interval", "save_interval",
    "keep_last", "milestones", "debug", "iterations", "id", "backbone_weights", "compile", "no_amp",
    "precision",
    # What counts is clips_per_update, which the record holds.
    "batch_size", "global_batch",
}  # fmt: skip


def checkpoint_path(settings: TrainSettings) -> Path:
    """The newest checkpoint of a run, under its lasting name."""
    return Path(settings.save_dir) / settings.id / f"{settings.id}_checkpoint.pth"


def save(trainer: Trainer) -> None:
    """Write weights and checkpoint, and drop checkpoints that are too old.

    All processes must call it, since each has random state; the main one writes.
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
    """Give a file a second name, whole or not at all; a copy where links are not to be had."""
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
    """iteration -> checkpoint."""
    name = re.compile(re.escape(settings.id) + r"_(\d+)_checkpoint\.pth")
    folder = Path(settings.save_dir) / settings.id
    found = {path: name.fullmatch(path.name) for path in folder.glob("*_checkpoint.pth")}
    return {int(match[1]): path for path, match in found.items() if match}


def _by_age(numbered: dict[int, Path]) -> list[int]:
    """Iterations, the one written last first: after going back, that is not the highest."""
    return sorted(numbered, key=lambda i: (numbered[i].stat().st_mtime_ns, i), reverse=True)


def mark_newest(settings: TrainSettings, iteration: int) -> None:
    """Have `find_newest` prefer the checkpoint gone on from to later ones, which are abandoned."""
    path = _numbered(settings).get(iteration)
    if path is not None:
        path.touch()
        _link(path, checkpoint_path(settings))


def _random_state(trainer: Trainer) -> torch.Tensor:
    """The state that dropout draws from on the device of the trainer."""
    if trainer.device.type == "cuda":
        return torch.cuda.get_rng_state(trainer.device)
    if trainer.device.type == "mps":
        return torch.mps.get_rng_state()
    return torch.get_rng_state()


def _set_random_state(trainer: Trainer, states: list[torch.Tensor]) -> None:
    if trainer.ranks.rank >= len(states):
        return  # more processes than before: this one keeps its fresh state
    state = states[trainer.ranks.rank]
    if trainer.device.type == "cuda":
        torch.cuda.set_rng_state(state, trainer.device)
    elif trainer.device.type == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.set_rng_state(state)


def find_newest(settings: TrainSettings) -> tuple[Path, list[str]] | None:
    """The newest checkpoint of a run that can be read, and what was wrong with newer ones."""
    numbered = _numbered(settings)
    paths = [numbered[iteration] for iteration in _by_age(numbered)]
    if checkpoint_path(settings).exists():
        paths.append(checkpoint_path(settings))
    problems = []
    for path in paths:
        try:
            _check(read_file(path), path)
        except (ValueError, OSError) as error:
            problems.append(f"{path} is passed over: {error}")
        else:
            return path, problems
    if problems:
        raise ValueError("No checkpoint of the run can be read. " + " ".join(problems))
    return None


def remove_leftovers(settings: TrainSettings) -> None:
    """Remove what a killed process was writing."""
    for path in (Path(settings.save_dir) / settings.id).glob(f".{glob.escape(settings.id)}_*.pth"):
        path.unlink(missing_ok=True)


def _check(content: dict[str, Any], path: Path | str) -> None:
    if (
        content.get("format") != f"{FORMAT}-training"
        or not {"random_states", "device"} <= content.keys()
    ):
        raise ValueError(
            f"{path} is no checkpoint to resume from: give the file that ends in "
            "_checkpoint.pth, or start a new run from these weights with --load_network."
        )


def resume(trainer: Trainer, path: Path | str) -> None:
    """Go on from a checkpoint.

    Raises:
        ValueError: it is no checkpoint of a run, or of one with other settings.
    """
    content = read_file(path)
    _check(content, path)
    # What older code did not know was as its default is now.
    spec = {**asdict(NetworkSpec()), **content["spec"]}
    other = list_changes(spec, asdict(trainer.network.spec), ())
    if other:
        raise ValueError(
            f"{path} holds another network than the one asked for ({'; '.join(other)}): give the "
            "same --method, --size, --stage and --repeat."
        )
    saved = content["record"]["settings"]
    saved = {_FORMER_SETTINGS.get(name, name): value for name, value in saved.items()}
    then, now = {**asdict(TrainSettings()), **saved}, asdict(trainer.settings)
    counted = {name: trainer.record.get(name) for name in ("clips_per_update", "num_samples")}
    differing = list_changes(content["record"], counted, ())
    may_change = _MAY_CHANGE
    if trainer.settings.stage != "0":  # the jumps follow the share of the epochs done
        may_change = _MAY_CHANGE - {"iterations"}
    differing += [f"--{phrase}" for phrase in list_changes(then, now, may_change)]
    if differing:
        raise ValueError(
            f"{path} belongs to a run with other settings: {'; '.join(differing)}. Resume with "
            "the same, or start a new run from its weights with --load_network."
        )
    trainer.network.load_state_dict(
        {rename_former(name): tensor for name, tensor in content["weights"].items()}
    )
    is_fused = trainer.optimizer.param_groups[0]["fused"]
    trainer.optimizer.load_state_dict(content["optimizer"])
    for group in trainer.optimizer.param_groups:
        group["fused"] = is_fused  # the run may have come from another device
    if content["scaler"]:  # empty where the run did not scale, on a CPU
        trainer.scaler.load_state_dict(content["scaler"])
    if content["device"] == trainer.device.type:  # generators of other kinds have other states
        _set_random_state(trainer, content["random_states"])
    trainer.iteration = content["iteration"]
    trainer.set_rates()
