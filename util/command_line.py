"""Command lines made from dataclasses: a field is a flag, and a wrong flag names the right one."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints


def option(
    default: Any,
    help: str,
    *flags: str,
    only: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
) -> Any:
    """A field with its help.

    Args:
        flags: further names on the command line.
        only: where it does something: names of eval scripts, or stages of training; everywhere if
            empty.
        methods: those that it does something in; all if empty.
    """
    metadata = {"help": help, "flags": flags, "only": only, "methods": methods}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def flag_names(f: dataclasses.Field) -> list[str]:
    """All names of a field on the command line."""
    return [f"--{f.name}", *f.metadata["flags"]]


def add_fields(
    parser: argparse.ArgumentParser,
    fields: Iterable[dataclasses.Field],
    owner: type,
    presets: Mapping[str, Any] | None = None,
) -> None:
    """One flag a field; what is not on the command line will be absent from the result."""
    types = get_type_hints(owner)
    defaults = {**vars(owner()), **(presets or {})}
    for f in fields:
        default = defaults[f.name]
        options: dict[str, Any] = {"dest": f.name, "default": argparse.SUPPRESS}
        kind = types[f.name]
        kind = next((k for k in get_args(kind) if type(None) in get_args(kind)), kind)
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        help_text = f.metadata["help"].replace("%", "%%")
        if shown not in ("", False, None):
            help_text += f" (default: {shown})"
        options["help"] = help_text
        if kind is bool:
            options["action"] = "store_true"
        elif get_origin(kind) is list:
            options |= {"type": get_args(kind)[0], "nargs": "*", "metavar": "N"}
        elif get_origin(kind) is Literal:
            options |= {"choices": [c for c in get_args(kind) if c]}
        else:
            options |= {"type": kind, "metavar": kind.__name__.upper()}
        parser.add_argument(*flag_names(f), **options)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes no abbreviations and points at the flag that was meant.

    Args:
        others: flag -> what has it, for flags that are known elsewhere.
    """

    def __init__(self, *, others: Mapping[str, list[str]], **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self._others = others

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(self._explain(unknown))
        return parsed

    def _explain(self, unknown: list[str]) -> str:
        flag = unknown[0].split("=")[0]
        if not flag.startswith("-"):
            return f"{flag!r} belongs to no flag: write --flag value."
        if flag in self._others:
            return f"{flag} does nothing in {self.prog}; it belongs to " + (
                f"{', '.join(self._others[flag])}."
            )
        own = [name for name in self._option_string_actions if name.startswith("--")]
        names = [*own, *self._others]
        # First what it abbreviates, since argparse elsewhere takes abbreviations.
        near = [name for name in names if name.startswith(flag)]
        near = near or difflib.get_close_matches(flag, names, n=1)
        if not near:
            return f"{self.prog} has no flag {flag}: see --help for those it has."
        where = "" if near[0] in own else f" (of {self._others[near[0]][0]})"
        return f"{self.prog} has no flag {flag}: did you mean {near[0]}{where}?"

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: error: {message}\n")
        raise SystemExit(2)
