"""What made a result: settings, command, git commit, versions, machine."""

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

# Plain values that JSON and torch.save can hold; "settings" has the options of the run.
Record = dict[str, Any]

_PACKAGES = ("torchvision", "numpy", "opencv-python-headless", "opencv-python", "pillow")


def describe_run(settings: TrainSettings | EvalSettings) -> Record:
    """A record of plain values that travels with every checkpoint and result."""
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


def list_changes(then: Record, now: Record, ignored: Collection[str]) -> list[str]:
    """A phrase for each value of `now` that was another one then, such as "lr was 1 and is 2"."""
    return [
        f"{name} was {then.get(name)!r} and is {value!r}"
        for name, value in now.items()
        if name not in ignored and then.get(name) != value
    ]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write_environment(folder: Path, record: Record, iteration: int) -> None:
    """Add a start of a run to <folder>/environment.json, and what git has not: changes_<n>.diff."""
    path = folder / "environment.json"
    starts = json.loads(path.read_text()) if path.exists() else []
    write_json(path, [*starts, {"iteration": iteration, **record}])
    changes = describe_changes()
    if changes:
        with atomic_path(folder / f"changes_{iteration}.diff") as temporary:
            temporary.write_text(changes, errors="surrogateescape")


def describe_changes() -> str:
    """How tracked files differ from the commit, as a diff; empty outside git."""
    repository = _repository()
    if repository is None or not repository.is_dirty():
        return ""
    return repository.git.diff("HEAD") + "\n"


def describe_commit() -> str:
    """Commit of this code base, `+changes` where files differ from it; empty outside git."""
    repository = _repository()
    if repository is None:
        return ""
    return repository.head.commit.hexsha + ("+changes" if repository.is_dirty() else "")


def _repository() -> Any:
    """This code base's git repository, where there is one with a commit, and git itself."""
    try:
        import git  # it fails to import on machines without the git program
    except ImportError:
        return None
    try:
        repository = git.Repo(Path(__file__).resolve().parents[1])
        repository.head.commit  # noqa: B018, a copy without a commit fails here
    except (git.exc.InvalidGitRepositoryError, git.exc.NoSuchPathError, ValueError):
        return None
    return repository
