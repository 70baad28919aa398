"""Random command lines for scripts/experiments/fuzz.py."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
from collections.abc import Callable

import numpy as np

from util.command_line import flag_names
from util.hyper_para import EvalSettings, TrainSettings
from util.parse_settings import of_method, parse_eval, parse_train
from util.presets import EVAL_SCRIPTS, METHOD_PRESETS

_VALUES = (
    "0", "1", "3", "-1", "0.5", "1e9", "1e400", "nan", "-inf", "", " ", "x", "auto", "none", "cpu",
    "03", "310", "10000000000000000000000", "../x", "\udcff", "a\0b", "--", "stcn", "rde", "sam",
    "0:2,-5:", "::", "1,,2",
)  # fmt: skip


def read_settings(rng: np.random.Generator) -> tuple[list[str], Callable[[], bytes]]:
    """Draw a command line; return its words, and what parses it.

    The second raises ValueError if the command line is refused with a sentence.
    """
    command = str(rng.choice(["train", *EVAL_SCRIPTS]))
    owner = TrainSettings if command == "train" else EvalSettings
    fields = [f for f in dataclasses.fields(owner) if f.name != "plugin"]
    words = ["--id", "x"] if command == "train" else ["--output", "x"]
    for _ in range(int(rng.integers(1, 4))):
        names = flag_names(fields[int(rng.integers(len(fields)))])
        flag = names[int(rng.integers(len(names)))]
        words.append(flag[:-1] if rng.random() < 0.1 else flag)
        words += [_VALUES[int(at)] for at in rng.integers(len(_VALUES), size=rng.integers(3))]
    return [command, *words], lambda: _parse(command, words)


def _parse(command: str, words: list[str]) -> bytes:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            recipe: list[TrainSettings] | list[EvalSettings]
            if command == "train":
                recipe = parse_train(words)
            else:
                settings = parse_eval(command, words)
                recipe = [of_method(settings, method) for method in METHOD_PRESETS]
    except SystemExit as error:
        if error.code != 2 or "error: " not in errors.getvalue():
            raise AssertionError("refused options exit with status 2 and a message") from error
        raise ValueError(errors.getvalue()) from error
    numbers = [
        value
        for settings in recipe
        for value in vars(settings).values()
        if isinstance(value, float)
    ]
    assert all(map(math.isfinite, numbers)), "accepted numbers are finite"
    return b""
