"""Compare checkpoints, memories or methods on the same videos: J&F, FPS, memory, in one table.

    python scripts/compare.py --davis_path data/DAVIS/2017 --output out/compare \
        --models saves/stcn.pth "saves/stcn.pth --mem_every 3 --mem_capacity 10"
    python scripts/compare.py --data_path data/generic --output out/speed --methods stcn rde

An entry is a checkpoint, or with --methods a method, whose network then has random weights, for
speed and memory alone. In quotes it may have flags of the eval scripts behind it. Entries run one
after the other, each in a process of its own. Masks go to <output>/<name>/masks, the table to
compare.md, compare.csv, compare.json and compare.png in <output>.

The same command goes on with a comparison that was interrupted: entries that were done are read
back, the one that was cut off starts afresh. The first entry may have to wait for a disk which
gives the others the same frames from its cache: see FPS with I/O.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evaluation.comparison import Row, draw, format_markdown, write_csv
from model.methods import METHODS
from model.network import NetworkSpec
from scripts.compare_entries import PLACES, Entry, check, measure, read_result
from util.command_line import add_fields
from util.files import atomic_path, claimed, write_json
from util.hyper_para import EvalSettings
from util.parse_settings import parse_eval
from util.signals import INTERRUPTED

RESULT_FILE = "result.json"
# Flags of the eval scripts that hold for all entries; an entry may have others behind it.
SHARED = ("size", "amp", "precision", "device", "benchmark")


def main(argv: list[str] | None = None) -> int:
    """Compare; returns the exit status.

    0: all rows are there; 1: some entries failed, the others' rows are there; 2: nothing was run;
    130: interrupted.
    """
    given = sys.argv[1:] if argv is None else argv
    arguments = _parse_args(given)
    try:
        entries = plan(arguments)
        if arguments.child is not None:
            return run_entry(arguments, entries[arguments.child])
        paths = [arguments.output / entry.name / RESULT_FILE for entry in entries]
        results = [
            read_result(path, check(entry)) for path, entry in zip(paths, entries, strict=True)
        ]
        _make_folder(arguments.output)
        failures: dict[str, str] = {}
        with claimed(arguments.output):
            for number, (entry, path) in enumerate(zip(entries, paths, strict=True)):
                state = "" if results[number] is None else ": done before"
                print(f"{entry.name} ({number + 1} of {len(entries)}){state}", flush=True)
                if results[number] is None:
                    failure = _run_child(given, number)
                    if failure:
                        failures[entry.name] = failure
                    else:
                        results[number] = json.loads(path.read_text())
                text = write_all(arguments, entries, results, failures)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted: the same command goes on with what is left.", file=sys.stderr)
        return INTERRUPTED
    figure = " and compare.png" if any(results) else ""
    print(f"\n{text}\nSaved compare.md, .csv and .json{figure} in {arguments.output}.")
    return 1 if failures else 0


def _parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    entries = parser.add_mutually_exclusive_group(required=True)
    entries.add_argument(
        "--models", nargs="+", metavar="ENTRY", help='checkpoints: A.pth "A.pth --mem_every 3"'
    )
    entries.add_argument(
        "--methods", nargs="+", metavar="ENTRY", help=f"untrained networks: {', '.join(METHODS)}"
    )
    parser.add_argument(
        "--net_size", choices=("base", "small", "tiny"), help="of --methods (default: base)"
    )
    parser.add_argument(
        "--names", nargs="+", help="of the rows (default: the checkpoints' names and flags)"
    )
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--davis_path", type=Path, help="as of eval_davis.py or eval_davis_2016.py")
    data.add_argument("--data_path", type=Path, help="as of eval_generic.py; nothing is scored")
    parser.add_argument("--year", type=int, choices=(2016, 2017), help="of DAVIS (default: 2017)")
    parser.add_argument("--output", type=Path, required=True, help="folder of all results")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    fields = [f for f in dataclasses.fields(EvalSettings) if f.name in (*SHARED, "split")]
    add_fields(parser, fields, EvalSettings)
    arguments = parser.parse_args(argv)
    if arguments.net_size and arguments.models:
        parser.error("--net_size does nothing with --models: a checkpoint has its size")
    if arguments.year and arguments.data_path:
        parser.error("--year does nothing with --data_path, but with --davis_path")
    return arguments


def plan(arguments: argparse.Namespace) -> list[Entry]:
    """The entries that the command line asks for.

    Raises:
        ValueError: an entry's flags are wrong, or two entries have the same name.
    """
    texts = arguments.models or arguments.methods
    names = arguments.names or [None] * len(texts)
    if len(names) != len(texts):
        raise ValueError(f"There are {len(texts)} entries but {len(names)} --names: name each.")
    entries = [_parse_entry(arguments, *pair) for pair in zip(texts, names, strict=True)]
    known = [entry.name.casefold() for entry in entries]  # some file systems take them for one
    for entry in entries:
        if known.count(entry.name.casefold()) > 1:
            raise ValueError(f"Two entries are named {entry.name}: tell them apart with --names.")
    return entries


def _parse_entry(arguments: argparse.Namespace, text: str, name: str | None) -> Entry:
    try:
        what, *flags = [text] if os.path.isfile(text) else shlex.split(text)
    except ValueError as error:
        raise ValueError(f"The entry {text!r} is no checkpoint with flags ({error}).") from error
    name = name or "_".join([Path(what).stem, *(word.lstrip("-") for word in flags)])
    if "/" in name or name.startswith("."):
        raise ValueError(f"{name!r} is to be a folder: give --names without '/' and leading dots.")
    untrained = None
    if arguments.methods:
        if what not in METHODS:
            raise ValueError(f"There is no method {what!r}: choose from {', '.join(METHODS)}.")
        untrained = NetworkSpec(what, arguments.net_size or "base")
        what = f"untrained {what} {untrained.size}"
    script = "davis_2016" if arguments.year == 2016 else "davis"
    data = ["--davis_path", str(arguments.davis_path)]
    if arguments.data_path is not None:
        script, data = "generic", ["--data_path", str(arguments.data_path)]
    argv = ["--model", what, "--output", str(arguments.output / name / "masks"), *data]
    for field in (*SHARED, "split"):
        if hasattr(arguments, field):
            value = getattr(arguments, field)
            argv += [f"--{field}"] if value is True else [f"--{field}", str(value)]
    shared = parse_eval(script, argv)
    try:
        settings = parse_eval(script, [*argv, *flags])
    except SystemExit as error:  # the parser has said what is wrong
        raise ValueError(f"The entry {text!r} cannot be run, see above.") from error
    for field in PLACES:
        if getattr(settings, field) != getattr(shared, field):
            raise ValueError(
                f"The entry {text!r} has a --{field} of its own, but this must be the same for all."
            )
    return Entry(name, script, settings, untrained)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"The output folder {folder} cannot be written ({error.strerror}): choose another "
            "with --output."
        ) from error


def _run_child(argv: Sequence[str], number: int) -> str:
    """Run an entry in a process of its own; why it failed, or nothing."""
    command = [sys.executable, __file__, *argv, "--child", str(number)]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if not child.returncode:
        return ""
    if child.returncode < 0:
        return f"Signal {-child.returncode} ended its process: was there too little memory?"
    return child.stdout.strip() or f"Its process ended with status {child.returncode}, see above."


def run_entry(arguments: argparse.Namespace, entry: Entry) -> int:
    """Segment, measure and score, in this process; a failure is told on stdout.

    Raises:
        RuntimeError: the device ran out of memory, for one.
    """
    folder = arguments.output / entry.name
    try:
        with claimed(folder):
            write_json(folder / RESULT_FILE, measure(entry, folder / "masks"))
    except (ValueError, OSError) as error:
        print(error)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def write_all(
    arguments: argparse.Namespace,
    entries: Sequence[Entry],
    results: Sequence[dict[str, Any] | None],
    failures: Mapping[str, str],
) -> str:
    """Write what there is so far in all formats; returns the Markdown."""
    done = [result for result in results if result is not None]
    rows = [Row(**result["row"]) for result in done]
    lines = [f"FAILED {name}: {why}" for name, why in failures.items()]
    if rows:
        table = format_markdown(rows, has_scores=arguments.davis_path is not None)
        lines = [table, "", describe(entries[0], done[0]["run"], rows[0]), "", *lines]
        draw(rows, arguments.output / "compare.png")
    text = "\n".join(lines).rstrip() + "\n"
    with atomic_path(arguments.output / "compare.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_csv(arguments.output / "compare.csv", rows)
    content = {
        "settings": {name: str(value) for name, value in vars(arguments).items()},
        "rows": [{**result["row"], "run": result["run"]} for result in done],
        "failures": failures,
    }
    write_json(arguments.output / "compare.json", content)
    return text


def describe(entry: Entry, run: Mapping[str, Any], row: Row) -> str:
    """The caption of a table: what was measured, and on what."""
    data = entry.settings.data_path
    if entry.script != "generic":
        data = f"DAVIS {2016 if entry.script == 'davis_2016' else 2017} {entry.settings.split}"
    is_gpu = run["device"] == "cuda"
    machine = run["gpu"] if is_gpu else f"{run['processor']}, {run['machine']}"
    peak = "what torch had allocated on the GPU"
    if not is_gpu:
        peak = "the resident set of the process, Python and libraries included"
    lines = [
        f"{row.num_videos} videos, {row.num_frames} frames of {data}. {machine}; torch "
        f"{run['torch']}; commit {run['git'] or 'unknown'}.",
        "FPS counts the time from a decoded frame to its label map, the device's own included; "
        "with I/O, all time by the clock.",
        f"Peak memory is {peak}. Memory frames are those that a video held at its end.",
    ]
    if entry.untrained is not None:
        lines.append(
            "The networks are untrained: they tell speed and memory alone, and a memory that is "
            "gated by quality keeps frames by chance."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
