"""Command line of annotate.py."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from util.check_settings import check_predictor
from util.command_line import Parser, add_fields
from util.hyper_para import EvalSettings
from util.plugins import load_plugins

# Options of the eval scripts that annotate.py has, beside all of the groups memory and machine.
_SHARED = ("model", "size", "plugin")
_GROUPS = ("memory", "machine")
# Defaults that differ from those of the eval scripts, for answers within a second or so. A batch of
# images would delay the first mask by its encoding.
_PRESETS = {"model": "saves/stcn_small.pth", "size": 480, "amp": True, "encode_batch": 1}


@dataclass(frozen=True)
class AnnotateOptions:
    """What annotate.py is asked to do."""

    video: str  # file or folder; empty: the demo clip
    mask: str
    session: str
    host: str
    port: int
    allow_host: tuple[str, ...]
    has_browser: bool
    settings: EvalSettings


def parse(argv: Sequence[str] | None = None) -> AnnotateOptions:
    """Parse the command line; wrong options exit with a sentence."""
    parser = Parser(
        prog="annotate.py",
        description="Draw and correct the masks of a video in the browser, and propagate them.",
    )
    parser.add_argument(
        "video", nargs="?", default="", help="video file or folder of frames (default: a demo clip)"
    )
    parser.add_argument(
        "--mask", default="", help="import first: a mask of the first frame, or a folder of masks"
    )
    parser.add_argument(
        "--session",
        default="",
        help="folder of the session, continued if it exists (default: out/annotations/<video>)",
    )
    server = parser.add_argument_group("server")
    server.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)"
    )
    server.add_argument(
        "--port", type=int, default=8765, help="port; 0 takes a free one (default: 8765)"
    )
    server.add_argument(
        "--allow_host",
        action="append",
        default=[],
        metavar="NAME",
        help="further host name by which browsers may address the server; repeatable",
    )
    server.add_argument(
        "--no_browser", action="store_true", help="print the address and open no browser"
    )
    fields = [
        f
        for f in dataclasses.fields(EvalSettings)
        if (f.metadata["group"] in _GROUPS or f.name in _SHARED) and not f.metadata["only"]
    ]
    add_fields(parser, fields, EvalSettings, _PRESETS)
    try:
        load_plugins(sys.argv[1:] if argv is None else argv)
    except ValueError as error:
        parser.error(str(error))
    return _to_options(parser, parser.parse(argv))


def _to_options(parser: Parser, given: argparse.Namespace) -> AnnotateOptions:
    values = vars(given)
    own = {f.name for f in dataclasses.fields(AnnotateOptions)} | {"no_browser"}
    chosen = {name: value for name, value in values.items() if name not in own}
    settings = EvalSettings(**{**_PRESETS, **chosen})
    try:
        check_predictor(settings)
    except ValueError as error:
        parser.error(str(error))
    if not 0 <= given.port < 2**16:
        parser.error(f"--port must be from 0 to 65535; it is {given.port}.")
    return AnnotateOptions(
        given.video, given.mask, given.session, given.host, given.port, (*given.allow_host,),
        not given.no_browser, settings,
    )  # fmt: skip
