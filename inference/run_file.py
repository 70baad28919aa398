"""run.json of an output folder: its runs, and the videos that they segmented."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from util.files import write_json
from util.hyper_para import EvalSettings
from util.provenance import Record, list_changes

RUN_FILE = "run.json"

# Settings that may differ between runs into one folder. Digests identify weights, plugins and
# videos, and `OutputFolder.is_complete` checks the optional files.
_IGNORED = {
    "model", "output", "device", "benchmark", "encode_batch", "overlay", "save_probabilities",
    "davis_path", "yv_path", "data_path", "video", "mask", "plugin", "no_top",
}  # fmt: skip


class Entry(NamedTuple):
    """Files that a run wrote for a video; they may be replaced."""

    digest: str  # of the segmented video; empty while its files are being replaced
    source: str = ""  # absolute path of its frames; empty if an earlier version did not record it
    files: tuple[str, ...] | None = None  # names in the output folder; None: not recorded

    def owns(self, name: str) -> bool:
        """Return True if a run wrote this file or folder."""
        return self.files is None or name in self.files


class RunFile(NamedTuple):
    """Content of run.json."""

    runs: list[Record]  # the oldest first
    entries: dict[str, Entry]  # by video


def read_run_file(path: Path) -> RunFile:
    """Read run.json; the result is empty if there is no file.

    Raises:
        ValueError: the file has other content.
    """
    if not path.exists():
        return RunFile([], {})
    try:
        content = json.loads(path.read_text())
        runs, entries = content["runs"], parse_entries(content.get("videos", {}))
        if not runs or not all(_is_record(run) for run in runs):
            raise KeyError("settings")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a record of a run ({error}): choose another --output."
        ) from error
    return RunFile(runs, entries)


def write_entries(path: Path, entries: Mapping[str, Entry], runs: list[Record] | None) -> None:
    """Write the entries of one process, or run.json with its runs."""
    videos = {name: entry._asdict() for name, entry in entries.items()}
    write_json(path, videos if runs is None else {"runs": runs, "videos": videos})


def parse_entries(videos: object) -> dict[str, Entry]:
    """Parse the entries of a JSON file.

    Raises:
        ValueError: they have another form.
    """
    if not isinstance(videos, dict):
        raise ValueError("the videos are not a table")
    entries = {}
    for name, value in videos.items():
        if isinstance(value, str):  # an earlier version recorded the digest alone
            entries[name] = Entry(value)
        elif isinstance(value, dict) and isinstance(value.get("digest"), str):
            files = value.get("files")
            files = None if files is None else tuple(map(str, files))
            entries[name] = Entry(value["digest"], str(value.get("source", "")), files)
        else:
            raise ValueError(f"video {name} has no digest")
    return entries


def _is_record(run: object) -> bool:
    return (
        isinstance(run, dict) and isinstance(run.get("settings"), dict) and "weights_sha256" in run
    )


def refuse_other_settings(path: Path, first: Record, record: Record) -> None:
    """Check that the first run of a folder had settings that give the same masks.

    Args:
        path: run.json, for the message.

    Raises:
        ValueError: the settings, the weights or the plugins differ.
    """
    defaults = asdict(EvalSettings())
    # Options that are newer than the first run had their defaults then. An earlier version recorded
    # "" instead of None.
    before = {**defaults, **first["settings"]}
    unset = {name for name, value in defaults.items() if value is None and before[name] == ""}
    before |= dict.fromkeys(unset)
    before["weights_sha256"] = first["weights_sha256"]
    now = {**record["settings"], "weights_sha256": record["weights_sha256"]}
    changes = list_changes(before, now, _IGNORED)
    plugins = record.get("plugins_sha256", [])
    if sorted(first.get("plugins_sha256") or plugins) != sorted(plugins):
        changes.append("the code of the plugins was another one")
    if changes:
        raise ValueError(
            f"{path.parent} contains masks made with other settings: {'; '.join(changes)}. Choose "
            "another --output, or remove that folder."
        )
