"""Options of the experiments on DAVIS."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from util.command_line import script_parser
from util.plugins import add_plugin_option


def davis_parser(
    doc: str | None,
    argv: Sequence[str] | None,
    year: int | None = None,
    model: str = "saves/stcn_small.pth",
) -> argparse.ArgumentParser:
    """Make the parser of an experiment on DAVIS, and import the plugins of its command line.

    Args:
        doc: docstring of the command.
        year: default of --year; without it, there is no such option.
        model: default of --model; if it is empty, the option is required.
    """
    parser = script_parser(doc)
    add_plugin_option(parser, argv)
    parser.add_argument(
        "--davis_path", type=Path, required=True, help="folder of DAVIS, as in scripts/evaluate.py"
    )
    if year is not None:
        parser.add_argument(
            "--year",
            type=int,
            choices=(2016, 2017),
            default=year,
            help=f"edition of DAVIS (default: {year})",
        )
    parser.add_argument(
        "--split", default="val", help="name of the list in ImageSets (default: val)"
    )
    parser.add_argument(
        "--model",
        default=model,
        required=not model,
        help="file of weights" + (f" (default: {model})" if model else ""),
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    return parser
