"""What made a result: settings, command, git commit, versions, machine."""

from __future__ import annotations

import dataclasses
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch


def describe_run(settings: Any) -> dict[str, Any]:
    """A record of plain values that travels with every checkpoint and result."""
    return {
        "settings": dataclasses.asdict(settings),
        "command": " ".join(sys.argv),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git": describe_commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    }


def describe_commit() -> str:
    """Commit of this code base, `+changes` where files differ from it; empty outside git."""
    try:
        import git  # it fails to import on machines without the git program
    except ImportError:
        return ""
    try:
        repository = git.Repo(Path(__file__).resolve().parents[1])
        commit = repository.head.commit.hexsha
    except (git.exc.InvalidGitRepositoryError, git.exc.NoSuchPathError, ValueError):
        return ""  # a copy without history, or one without a commit
    return commit + ("+changes" if repository.is_dirty() else "")
