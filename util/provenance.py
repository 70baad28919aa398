"""Provenance of results: settings, command, git commit, versions, machine."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Collection
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from util.files import atomic_path, write_json
from util.hyper_para import EvalSettings, TrainSettings

# Plain values that JSON and torch.save can store; "settings" holds the options of the run.
Record = dict[str, Any]

_PACKAGES = ("torchvision", "numpy", "opencv-python-headless", "opencv-python", "pillow")


def describe_run(settings: TrainSettings | EvalSettings) -> Record:
    """Describe a run in plain values, which are stored with its checkpoints and results."""
    return {
        "settings": dataclasses.asdict(settings),
        "command": " ".join(sys.argv),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git": describe_commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "packages": {name: _version(name) for name in _PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "gpus": torch.cuda.device_count() if torch.cuda.is_available() else 0,
    }


def list_changes(before: Record, now: Record, ignored: Collection[str]) -> list[str]:
    """List the values of `now` that differ from `before`, such as "lr was 1 and is 2".

    Args:
        ignored: names to leave out.
    """
    return [
        f"{name} was {before.get(name)!r} and is {value!r}"
        for name, value in now.items()
        if name not in ignored and before.get(name) != value
    ]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    """Model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write_environment(folder: Path, record: Record, iteration: int) -> None:
    """Record one start of a training run.

    This adds the record to <folder>/environment.json, and writes changes to tracked files into
    <folder>/changes_<iteration>.diff.
    """
    path = folder / "environment.json"
    starts = json.loads(path.read_text()) if path.exists() else []
    write_json(path, [*starts, {"iteration": iteration, **record}])
    changes = describe_changes()
    if changes:
        with atomic_path(folder / f"changes_{iteration}.diff") as temporary:
            temporary.write_text(changes, errors="surrogateescape")


def describe_changes() -> str:
    """Diff of the tracked files against the commit; empty outside a git repository."""
    repository = _repository()
    if repository is None or not repository.is_dirty():
        return ""
    return repository.git.diff("HEAD") + "\n"


def describe_commit() -> str:
    """Commit of this code base, with `+changes` if files differ; empty outside a git repository."""
    repository = _repository()
    if repository is None:
        return ""
    return repository.head.commit.hexsha + ("+changes" if repository.is_dirty() else "")


def _repository() -> Any:
    """Git repository of this code base, if it has a commit and git is installed; else None."""
    try:
        import git  # fails without the git program
    except ImportError:
        return None
    try:
        repository = git.Repo(Path(__file__).resolve().parents[1])
        repository.head.commit  # noqa: B018, raises ValueError without a commit
    except (git.exc.InvalidGitRepositoryError, git.exc.NoSuchPathError, ValueError):
        return None
    return repository
