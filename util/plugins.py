"""Plugins: Python files that register methods and memory policies before the options are read.

A plugin calls `model.methods.register_method` or `inference_memory_bank.register_policy`.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from util.command_line import PLUGIN_HELP
from util.presets import METHOD_PRESETS, POLICY_OPTIONS


def load_plugins(argv: Sequence[str]) -> None:
    """Import the file of every `--plugin FILE` or `--plugin=FILE` on a command line.

    Raises:
        ValueError: see `load_plugin`.
    """
    arguments = [*argv]
    if "--" in arguments:
        arguments = arguments[: arguments.index("--")]
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name != "--plugin":
            continue
        if not equals:
            value = arguments[number + 1] if number + 1 < len(arguments) else ""
        if value and not value.startswith("-"):  # the parser reports a missing value
            load_plugin(value)


def add_plugin_option(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Add --plugin to a command that loads weights or trains, and import the plugins.

    Call it before options whose choices plugins extend are added. Errors exit with a sentence.
    """
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE", help=PLUGIN_HELP)
    try:
        load_plugins(sys.argv[1:] if argv is None else argv)
    except ValueError as error:
        parser.error(str(error))


def load_plugin(file: Path | str) -> None:
    """Import a plugin, unless this process has imported it before.

    The module is named after the file, and the folder of the file is appended to `sys.path`, so
    that other processes can unpickle objects of the plugin's classes.

    Raises:
        ValueError: the file is missing, is not a .py file, has the name of another module, raises
            an exception, or registers nothing.
    """
    path = Path(file).resolve()
    if not path.is_file():
        raise ValueError(f"There is no plugin {file}: give the path of a Python file.")
    if path.suffix != ".py" or "." in path.stem:
        raise ValueError(
            f"The plugin {file} is not a Python module: its name must end in .py and have no other "
            "dot."
        )
    name = path.stem
    origin = _find_module(name)
    if name in sys.modules and origin == path:
        return
    if name in sys.modules or origin not in (None, path):
        raise ValueError(f"The plugin {file} has the name of another module, {name}: rename it.")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    registered = _count_registered()
    _run(name, path, file)
    if _count_registered() == registered:
        del sys.modules[name]
        raise ValueError(
            f"The plugin {file} registers nothing: call register_method or register_policy in it."
        )


def _find_module(name: str) -> Path | None:
    """Return the file of a module that is imported or could be; None if there is no file."""
    if name in sys.modules:
        origin = getattr(sys.modules[name], "__file__", None)
    else:
        spec = importlib.util.find_spec(name)
        origin = None if spec is None else spec.origin
    return None if origin is None else Path(origin).resolve()


def _count_registered() -> int:
    return len(METHOD_PRESETS) + len(POLICY_OPTIONS)


def _run(name: str, path: Path, file: Path | str) -> None:
    """Import a file as a module; the error of a failed import names the line of the file."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = _find_line(error, path)
        where = "" if line is None else f", line {line}"
        raise ValueError(
            f"The plugin {file} cannot be imported{where}: {type(error).__name__}: {error}"
        ) from error


def _find_line(error: BaseException, path: Path) -> int | None:
    """Return the last line of the file that took part in an error."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == str(path)]
    return lines[-1] if lines else None
