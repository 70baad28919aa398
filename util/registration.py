"""Checks of the options that methods and memory policies of plugins register."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence

from util.hyper_para import EvalSettings


def check_options(owner: str, names: Iterable[str], known: Sequence[str]) -> None:
    """Check the names of options that a plugin sets.

    Args:
        owner: what sets them, for the message.

    Raises:
        ValueError: an option is unknown.
    """
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}."
            raise ValueError(f"{owner} has the unknown option {name!r}: {hint}")


def check_parameters(owner: str, function: Callable[..., object], names: Iterable[str]) -> None:
    """Check that a class or function of a plugin takes some parameters.

    Args:
        owner: what lacks them, with a verb, for the message.

    Raises:
        ValueError: a parameter is missing.
    """
    absent = [name for name in names if name not in inspect.signature(function).parameters]
    if absent:
        raise ValueError(f"{owner} no parameter {', '.join(absent)}: add it to its class.")


def memory_options() -> list[str]:
    """List the options of the eval scripts that the method determines if they are not given."""
    return [
        f.name
        for f in dataclasses.fields(EvalSettings)
        if f.metadata["group"] == "memory" and f.default is None
    ]
