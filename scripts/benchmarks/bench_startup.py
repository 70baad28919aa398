"""Measure the time of --help and of the start-up of every command.

    python scripts/benchmarks/bench_startup.py

Start-up is the time to import all modules of a command, as a multiple of `import torch`, each in a
process of its own. Each time is the smallest of several runs, in seconds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.shared.paths import output_file
from util.command_line import script_parser
from util.files import write_json


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument(
        "--repeats",
        type=int,
        default=5,
        help="number of runs; the fastest is reported (default: 5)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(__file__).resolve().parents[2],
        help="folder of the code, to measure another version (default: the folder of this one)",
    )
    parser.add_argument(
        "--commands", nargs="*", metavar="FILE", help="commands to measure (default: all)"
    )
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="also write the times in seconds here"
    )
    arguments = parser.parse_args(argv)
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1.")
    return arguments


def find_commands(folder: Path) -> list[str]:
    """List the commands of a folder of the code, relative to it."""
    paths = [*folder.glob("*.py"), *folder.glob("scripts/**/*.py")]
    names = [str(path.relative_to(folder)) for path in paths if "__main__" in path.read_text()]
    return sorted(names, key=lambda name: (name.count("/"), name))


def measure(folder: Path, arguments: Sequence[str], repeats: int) -> float:
    """Run Python in a folder several times; return the seconds of the fastest run."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL, check=True
        )
        times.append(time.perf_counter() - start)
    return min(times)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a table; return the exit status."""
    arguments = parse(argv)
    folder, repeats = arguments.folder, arguments.repeats
    commands = arguments.commands or find_commands(folder)
    torch_seconds = measure(folder, ["-c", "import torch"], repeats)
    print(f"import torch: {torch_seconds:.2f} s")
    print(f"{'command':44s} {'--help, s':>9s} {'start-up, s':>11s} {'x torch':>7s}")
    rows = []
    for command in commands:
        module = command.removesuffix(".py").replace("/", ".")
        help_seconds = measure(folder, [command, "--help"], repeats)
        start_seconds = measure(folder, ["-c", f"import {module}"], repeats)
        ratio = start_seconds / torch_seconds
        print(f"{command:44s} {help_seconds:9.2f} {start_seconds:11.2f} {ratio:7.2f}")
        rows.append({"command": command, "help": help_seconds, "start": start_seconds})
    if arguments.json:
        write_json(arguments.json, {"torch": torch_seconds, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
