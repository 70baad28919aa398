"""Compare checkpoints, memory policies or methods on the same videos: scores, speed and memory.

    python scripts/compare.py --davis_path data/DAVIS/2017 --output out/compare \
        --models saves/stcn.pth "saves/stcn.pth --mem_every 3 --mem_capacity 10"
    python scripts/compare.py --data_path data/generic --output out/speed --methods stcn rde

An entry is a checkpoint. With --methods it is a method with random weights, which is not scored.
Options of the eval scripts may follow in the same quotes. Each entry runs in its own process. Its
masks are written to <output>/<name>/masks, and the table to compare.md, compare.csv, compare.json
and compare.png in <output>.

Run the same command again to resume an interrupted comparison. Entries with a result do not run
again. The first entry may read the frames from disk and the others from the disk's cache, which
changes FPS with I/O.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.child_process import ChildFailed, print_result, run_script
from util.command_line import add_fields, script_parser
from util.hyper_para import EvalSettings
from util.parse_settings import parse_eval
from util.plugins import add_plugin_option
from util.presets import METHOD_PRESETS
from util.signals import INTERRUPTED

# Options of the eval scripts for all entries. Options of an entry override them.
SHARED_OPTIONS = ("size", "amp", "precision", "device", "benchmark")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line. Options of the eval scripts are absent if they are not given."""
    parser = script_parser(__doc__)
    add_plugin_option(parser, argv)
    entries = parser.add_mutually_exclusive_group(required=True)
    entries.add_argument(
        "--models", nargs="+", metavar="ENTRY", help='checkpoints: A.pth "A.pth --mem_every 3"'
    )
    entries.add_argument(
        "--methods",
        nargs="+",
        metavar="ENTRY",
        help=f"methods with random weights: {', '.join(METHOD_PRESETS)}",
    )
    parser.add_argument(
        "--net_size",
        choices=("base", "small", "tiny"),
        help="network size of --methods (default: base)",
    )
    parser.add_argument(
        "--names",
        nargs="+",
        help="names of the rows (default: file names of the checkpoints and their options)",
    )
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--davis_path", type=Path, help="see eval_davis.py and eval_davis_2016.py")
    data.add_argument("--data_path", type=Path, help="see eval_generic.py; without scores")
    parser.add_argument(
        "--year", type=int, choices=(2016, 2017), help="edition of DAVIS (default: 2017)"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for all results")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    fields = [f for f in dataclasses.fields(EvalSettings) if f.name in (*SHARED_OPTIONS, "split")]
    add_fields(parser, fields, EvalSettings)
    arguments = parser.parse_args(argv)
    if arguments.net_size and arguments.models:
        parser.error("--net_size does nothing with --models: a checkpoint has its own size")
    if arguments.year and arguments.data_path:
        parser.error("--year does nothing with --data_path, only with --davis_path")
    return arguments


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

from evaluation.comparison import Row, draw, format_markdown, write_csv
from model.network import NetworkSpec
from scripts.comparison.entries import (
    FIXED_SETTINGS,
    Entry,
    check,
    check_ground_truth,
    measure,
    read_result,
)
from util.files import atomic_path, lock_folder, write_json

RESULT_FILE = "result.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Run all entries and write the tables; return the exit status.

    0: all rows are written; 1: some entries failed, the rows of the others are written; 2: wrong
    input, or a table cannot be written; 130: interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(argv)
    try:
        entries = plan(arguments)
        if arguments.child is not None:
            return print_result(lambda: run_entry(arguments, entries[arguments.child]))
        paths = [arguments.output / entry.name / RESULT_FILE for entry in entries]
        results = [
            read_result(path, check(entry)) for path, entry in zip(paths, entries, strict=True)
        ]
        if None in results:
            check_ground_truth(entries[0])
        _make_folder(arguments.output)
        failures: dict[str, str] = {}
        with lock_folder(arguments.output):
            for number, entry in enumerate(entries):
                state = "" if results[number] is None else ": already done"
                print(f"{entry.name} ({number + 1} of {len(entries)}){state}", flush=True)
                if results[number] is None:
                    try:
                        results[number] = run_script(__file__, [*argv, "--child", str(number)])
                    except ChildFailed as error:
                        failures[entry.name] = str(error)
                text = write_all(arguments, entries, results, failures)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted: run the same command again to resume.", file=sys.stderr)
        return INTERRUPTED
    figure = " and compare.png" if any(results) else ""
    print(f"\n{text}\nSaved compare.md, .csv and .json{figure} in {arguments.output}.")
    return 1 if failures else 0


def plan(arguments: argparse.Namespace) -> list[Entry]:
    """Parse the entries of the command line.

    Raises:
        ValueError: the options of an entry are wrong, or two entries have the same name.
    """
    texts = arguments.models or arguments.methods
    names = arguments.names or [None] * len(texts)
    if len(names) != len(texts):
        raise ValueError(
            f"There are {len(texts)} entries but {len(names)} --names: give one name per entry."
        )
    entries = [_parse_entry(arguments, *pair) for pair in zip(texts, names, strict=True)]
    known = [entry.name.casefold() for entry in entries]  # some file systems ignore case
    for entry in entries:
        if known.count(entry.name.casefold()) > 1:
            raise ValueError(f"Two entries are named {entry.name}: give other names with --names.")
    return entries


def _parse_entry(arguments: argparse.Namespace, text: str, name: str | None) -> Entry:
    try:
        model, *options = [text] if os.path.isfile(text) else shlex.split(text)
    except ValueError as error:
        raise ValueError(
            f"The entry {text!r} is not a checkpoint or method with options ({error}): check its "
            "quotes."
        ) from error
    name = name or "_".join([Path(model).stem, *(word.lstrip("-") for word in options)])
    if "/" in name or name.startswith("."):
        raise ValueError(
            f"The name {name!r} becomes a folder: give --names without '/' and leading dots."
        )
    untrained = None
    if arguments.methods:
        if model not in METHOD_PRESETS:
            raise ValueError(
                f"There is no method {model!r}: choose from {', '.join(METHOD_PRESETS)}."
            )
        untrained = NetworkSpec(model, arguments.net_size or "base")
        model = f"untrained {model} {untrained.size}"
    script = "davis_2016" if arguments.year == 2016 else "davis"
    data = ["--davis_path", str(arguments.davis_path)]
    if arguments.data_path is not None:
        script, data = "generic", ["--data_path", str(arguments.data_path)]
    argv = ["--model", model, "--output", str(arguments.output / name / "masks"), *data]
    for field in (*SHARED_OPTIONS, "split"):
        if hasattr(arguments, field):
            value = getattr(arguments, field)
            argv += [f"--{field}"] if value is True else [f"--{field}", str(value)]
    shared = parse_eval(script, argv)
    try:
        settings = parse_eval(script, [*argv, *options])
    except SystemExit as error:  # the parser has printed the error
        raise ValueError(f"The entry {text!r} cannot run: see the error above.") from error
    for field in FIXED_SETTINGS:
        if getattr(settings, field) != getattr(shared, field):
            raise ValueError(
                f"The entry {text!r} changes --{field}, which must be the same for all entries: "
                "remove it from the entry."
            )
    return Entry(name, script, settings, untrained)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"The output folder {folder} cannot be written ({error.strerror}): choose another "
            "folder with --output."
        ) from error


def run_entry(arguments: argparse.Namespace, entry: Entry) -> dict[str, Any]:
    """Segment, measure and score in this process; write and return the result.

    Raises:
        ValueError, OSError: the entry cannot run, or a video failed.
        RuntimeError: for example, the device ran out of memory.
    """
    folder = arguments.output / entry.name
    with lock_folder(folder):
        result = measure(entry, folder / "masks")
        write_json(folder / RESULT_FILE, result)
    return result


def write_all(
    arguments: argparse.Namespace,
    entries: Sequence[Entry],
    results: Sequence[dict[str, Any] | None],
    failures: Mapping[str, str],
) -> str:
    """Write the results so far in all formats, and return the Markdown text."""
    done = [result for result in results if result is not None]
    rows = [Row(**result["row"]) for result in done]
    lines = [f"FAILED {name}: {reason}" for name, reason in failures.items()]
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
    """Caption of the table: data, machine, and definitions of the columns."""
    data = entry.settings.data_path
    if entry.script != "generic":
        data = f"DAVIS {2016 if entry.script == 'davis_2016' else 2017} {entry.settings.split}"
    is_gpu = run["device"] == "cuda"
    machine = run["gpu"] if is_gpu else f"{run['processor']}, {run['machine']}"
    peak = "the memory that torch allocated on the GPU"
    if not is_gpu:
        peak = "the resident set size of the process, including Python and libraries"
    lines = [
        f"{row.num_videos} videos, {row.num_frames} frames of {data}. {machine}; torch "
        f"{run['torch']}; commit {run['git'] or 'unknown'}.",
        "FPS measures the time from a decoded frame to its label map, FPS with I/O the time of the "
        "whole run.",
        f"Peak memory is {peak}. Memory frames are counted at the end of a video.",
    ]
    if entry.untrained is not None:
        lines.append(
            "The networks are untrained: only speed and memory are meaningful, and memory policies "
            "that depend on quality store frames by chance."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
