"""Read damaged files as evaluation and training do, and count how each case ends.

    python scripts/experiments/fuzz.py --cases 2000

Each case damages one file of a small data set and reads it in this process: frames, masks, video
files, lists, meta.json, weights, checkpoints, predictions, and options of the commands. It may be
refused with a sentence that names the file, or accepted if what was read can be used. Anything else
is a fault: another exception, a silent change of what a checksum protects, or a case that takes
longer than --limit. The exit status is 1 if there is one. A case depends on --seed and its number:
--first 17 --cases 1 repeats case 17.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from util.command_line import script_parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="number of cases (default: 2000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all draws (default: 0)")
    parser.add_argument(
        "--limit", type=float, default=20, help="seconds that a case may take (default: 20)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import contextlib
import re
import shutil
import signal
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import progressbar

from scripts.experiments.fuzz_damage import damage_bytes, replace_file
from scripts.experiments.fuzz_settings import read_settings
from scripts.experiments.fuzz_targets import make_targets

REFUSED, ACCEPTED, FAULT = "refused and named", "accepted and sound", "anything else"
_REPLACED_SHARE, _EDITED_SHARE = 0.05, 0.3
_SETTINGS_SHARE = 0.1


class Outcome(NamedTuple):
    """How one case ended."""

    kind: str  # kind of file
    damage: str
    end: str  # REFUSED, ACCEPTED or FAULT
    detail: str = ""  # the message


class _TimeLimitError(BaseException):
    """A case takes too long. No reader catches it."""


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TimeLimitError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Fuzzer:
    """Makes and runs cases.

    Args:
        root: empty folder for the data.
        seed: seed of all draws.
        limit: seconds that a case may take.
    """

    def __init__(self, root: Path, seed: int = 0, limit: float = 20) -> None:
        self._root, self._seed, self._limit = root, seed, limit
        self._targets = make_targets(root)
        self._expected = {target.kind: target.read() for target in self._targets}

    def run(self, number: int) -> Outcome:
        """Run one case."""
        rng = np.random.default_rng((self._seed, number))
        if rng.random() < _SETTINGS_SHARE:
            words, read = read_settings(rng)
            return judge("settings", " ".join(words), read, limit=self._limit)
        return self._run_file(rng)

    def _run_file(self, rng: np.random.Generator) -> Outcome:
        """Damage a file, read it, and restore it."""
        target = self._targets[int(rng.integers(len(self._targets)))]
        path = target.files[int(rng.integers(len(target.files)))]
        content = path.read_bytes()
        try:
            expected: bytes | None = None
            share = rng.random()
            if share < _REPLACED_SHARE:
                damage = replace_file(rng, path)
            elif target.edits and share < _REPLACED_SHARE + _EDITED_SHARE:
                edit = target.edits[int(rng.integers(len(target.edits)))]
                damage, damaged = edit(rng, content)
                path.write_bytes(damaged)
            else:
                damage, damaged = damage_bytes(rng, content)
                path.write_bytes(damaged)
                expected = self._expected[target.kind]
            # A list and meta.json name other files. Of two masks to compare, one is named. If a
            # file is missing, a folder with too few files may be named.
            is_direct = path.suffix not in (".txt", ".json") and "scores" not in target.kind
            named = path.parent if is_direct and share >= _REPLACED_SHARE else self._root
            return judge(target.kind, damage, target.read, str(named), expected, self._limit)
        finally:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            path.write_bytes(content)


def judge(
    kind: str,
    damage: str,
    read: Callable[[], bytes],
    named: str = "",
    expected: bytes | None = None,
    limit: float = 20,
) -> Outcome:
    """Read the data and say how that ended.

    Args:
        named: text that a refusal must contain.
        expected: what an accepted file must give; None for anything that passes the checks.
        limit: seconds that reading may take.
    """
    try:
        with _limited(limit), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = read()
    except (ValueError, OSError) as error:
        message = str(error)
        # Python's own messages are no sentences.
        is_sentence = not re.search(r"(^|\n- )\[Errno|^\S+ codec can't", message)
        end = REFUSED if is_sentence and named in message else FAULT
        return Outcome(kind, damage, end, f"{type(error).__name__}: {message}")
    except _TimeLimitError:
        return Outcome(kind, damage, FAULT, f"takes longer than {limit} s")
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        detail = f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
        return Outcome(kind, damage, FAULT, detail)
    if expected not in (None, result):
        return Outcome(kind, damage, FAULT, "accepted, but its content has changed")
    return Outcome(kind, damage, ACCEPTED)


def format_table(counts: Counter[tuple[str, str]]) -> str:
    """Format a Markdown table of the ends by kind of file."""
    kinds = sorted({kind for kind, _ in counts})
    ends = (REFUSED, ACCEPTED, FAULT)
    lines = ["| kind | " + " | ".join(ends) + " |", "|---|" + "---|" * len(ends)]
    for kind in kinds:
        lines.append(f"| {kind} | " + " | ".join(str(counts[kind, end]) for end in ends) + " |")
    totals = (sum(counts[kind, end] for kind in kinds) for end in ends)
    return "\n".join([*lines, "| all | " + " | ".join(map(str, totals)) + " |"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases and print a table; return the exit status: 1 if a case was a fault."""
    arguments = parse(argv)
    counts: Counter[tuple[str, str]] = Counter()
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder), arguments.seed, arguments.limit)
        numbers = range(arguments.first, arguments.first + arguments.cases)
        for number in progressbar.progressbar(numbers):
            outcome = fuzzer.run(number)
            counts[outcome.kind, outcome.end] += 1
            if outcome.end == FAULT:
                faults.append(f"case {number}: {outcome.kind}, {outcome.damage}: {outcome.detail}")
    print(format_table(counts))
    print("\n".join(faults))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
