"""Command lines generated from dataclasses: each field is an option, in groups."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

PLUGIN_HELP = (
    "import this Python file first: it registers methods or memory policies; repeatable "
    "(docs/plugins.md)"
)


def option(
    group: str,
    default: Any,
    help: str,
    *flags: str,
    only: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
) -> Any:
    """Make a dataclass field that is an option.

    Args:
        group: heading in --help.
        help: what the option does, then its range or choices.
        flags: further names on the command line.
        only: eval scripts or training stages that use it; empty: all.
        methods: methods that use it; empty: all.
    """
    metadata = {"group": group, "help": help, "flags": flags, "only": only, "methods": methods}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def flag_names(f: dataclasses.Field) -> list[str]:
    """List all names of an option on the command line."""
    return [f"--{f.name}", *f.metadata["flags"]]


def add_fields(
    parser: argparse.ArgumentParser,
    fields: Iterable[dataclasses.Field],
    owner: type,
    presets: Mapping[str, object] | None = None,
) -> None:
    """Add an option for each field. Options that are not given are absent from the result.

    Args:
        owner: the dataclass of the fields.
        presets: defaults that differ from those of the fields, for --help.
    """
    types = get_type_hints(owner)
    defaults = {**vars(owner()), **(presets or {})}
    groups: dict[str, argparse._ArgumentGroup] = {}
    for f in fields:
        name = f.metadata["group"]
        if name not in groups:
            groups[name] = parser.add_argument_group(name)
        groups[name].add_argument(
            *flag_names(f),
            dest=f.name,
            default=argparse.SUPPRESS,
            help=_help_text(f, defaults[f.name]),
            **_value_options(types[f.name]),
        )


def _help_text(f: dataclasses.Field, default: object) -> str:
    text = f.metadata["help"].replace("%", "%%")
    if default is None or default is False or default in ("", []):
        return text
    shown = " ".join(map(str, default)) if isinstance(default, list) else default
    return f"{text} (default: {shown})"


def _value_options(kind: Any) -> dict[str, Any]:
    """Arguments of argparse for values of a type."""
    if type(None) in get_args(kind):
        kind = get_args(kind)[0]
        if kind is bool:  # a value that may be True can be switched off
            return {"action": argparse.BooleanOptionalAction}
    if kind is bool:
        return {"action": "store_true"}
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        if item is str:
            return {"action": "append", "metavar": "FILE"}
        return {"type": item, "nargs": "*", "metavar": "N"}
    if get_origin(kind) is Literal:
        return {"choices": [choice for choice in get_args(kind) if choice]}
    return {"type": kind, "metavar": kind.__name__.upper()}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser without abbreviations that suggests the right option for a wrong one.

    Args:
        others: option -> commands that have it, for options of other commands.
    """

    def __init__(
        self,
        *,
        prog: str,
        description: str,
        others: Mapping[str, list[str]] | None = None,
        add_help: bool = True,
    ) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False, add_help=add_help)
        self._others = others or {}

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse a command line; wrong options exit with a sentence."""
        parsed, unknown = self.parse_known_args(argv)
        if unknown:
            self.error(self._explain(unknown))
        return parsed

    def _explain(self, unknown: list[str]) -> str:
        flag = unknown[0].split("=")[0]
        if not flag.startswith("-"):
            return f"{flag!r} belongs to no option: write --option value."
        if flag in self._others:
            return f"{flag} does nothing in {self.prog}; it is an option of " + (
                f"{', '.join(self._others[flag])}."
            )
        own = [name for name in self._option_string_actions if name.startswith("--")]
        names = [*own, *self._others]
        # Unambiguous prefixes first: argparse accepts them by default.
        near = [name for name in names if name.startswith(flag)]
        near = near or difflib.get_close_matches(flag, names, n=1)
        if not near:
            return f"{self.prog} has no option {flag}: see --help."
        where = "" if near[0] in own else f" (of {self._others[near[0]][0]})"
        return f"{self.prog} has no option {flag}: did you mean {near[0]}{where}?"

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: error: {message}\n")
        raise SystemExit(2)


def script_parser(doc: str | None) -> argparse.ArgumentParser:
    """Make the parser of a command in scripts/ from the docstring of its module."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
