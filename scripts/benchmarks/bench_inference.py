"""Measure the speed and the memory of the methods at inference.

    python scripts/benchmarks/bench_inference.py --output out/speed
    python scripts/benchmarks/bench_inference.py --output out/growth --net_size small --objects 2 \\
        --precision half --height 192 --width 336 --frames 1000 --mem_capacity published 22
    python scripts/benchmarks/bench_inference.py --output out/long --model saves/stcn_small.pth \\
        --objects 1 --precision float32 --frames 60 600

Each row of the table is measured on a synthetic clip in a process of its own, from its first frame
on. Without --model the networks have random weights, which are as fast as trained ones.

Times are in milliseconds per frame, from RGB to the label map, and by stage: encode the image, read
memory, decode, memorise. The unit is one float32 convolution of (1, 256, 120, 216) with 256 3x3
filters and padding 1 by torch's own implementation, the best of 5 before and of 5 after each row.
Units per frame of different machines, or of a busy machine, can be compared. "publ." is the same
for the published implementation (float32, 480x854, first 11 frames for stcn, 8 for the others).

Memory is in MiB: "peak" is the peak of the process without the loaded network, "stored" is the size
of the memory bank at the end of the clip. From 20 frames on, the times of the second and the last
tenth of the clip are compared.

The script writes speed.json (with the time and the memory of each frame), speed.png, and from 20
frames on growth.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.shared.paths import output_folder
from util.check_settings import MAX_BATCH
from util.child_process import BAD_INPUT, ChildFailed, print_result, run_script
from util.command_line import script_parser
from util.hyper_para import CompileMode, EvalSettings, Precision
from util.parse_settings import of_method
from util.plugins import add_plugin_option
from util.presets import METHOD_PRESETS

MIN_FRAMES = 3


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    add_plugin_option(parser, argv)
    methods, modes = [*METHOD_PRESETS], [mode for mode in get_args(CompileMode) if mode]
    network = parser.add_argument_group("network")
    network.add_argument(
        "--methods",
        nargs="+",
        default=methods,
        choices=methods,
        help="methods to measure, with random weights (default: all)",
    )
    network.add_argument("--model", help="file of weights to measure instead of --methods")
    network.add_argument(
        "--net_size",
        default="base",
        choices=("base", "small", "tiny"),
        help="widths of the networks of --methods (default: base)",
    )
    clip = parser.add_argument_group("clip")
    clip.add_argument("--height", type=int, default=480, help="in pixels (default: 480)")
    clip.add_argument("--width", type=int, default=854, help="in pixels (default: 854)")
    clip.add_argument(
        "--objects", type=int, nargs="+", default=[1, 3], help="numbers of objects (default: 1 3)"
    )
    clip.add_argument(
        "--frames",
        type=int,
        nargs="+",
        help="lengths of clips (default: as for the published implementations, 11 or 8)",
    )
    memory = parser.add_argument_group("memory")
    memory.add_argument(
        "--mem_every", type=int, help="store every n-th frame (default: as published)"
    )
    memory.add_argument(
        "--mem_capacity",
        type=_capacity,
        nargs="+",
        default=[None],
        metavar="N",
        help="largest numbers of frames in memory, the first one included: published, or N (0: "
        "unlimited); if both are given, methods whose published number is at most N are not "
        "measured again with N (default: published)",
    )
    memory.add_argument(
        "--mem_half", action="store_true", help="store values in float16; needs --precision float32"
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    machine.add_argument(
        "--precision",
        nargs="+",
        default=["float32", "half"],
        choices=("half", *get_args(Precision)),
        help="half: float16 on GPUs, bfloat16 on CPUs (default: float32 half)",
    )
    machine.add_argument(
        "--compile", default="", choices=modes, help="mode of torch.compile (default: not compiled)"
    )
    machine.add_argument(
        "--encode_batch",
        type=int,
        default=1,
        help="images to encode in one batch (default: 1, as for a live video)",
    )
    machine.add_argument(
        "--repeats",
        type=int,
        default=2,
        help="number of runs; the fastest is reported (default: 2)",
    )
    parser.add_argument(
        "--output", type=output_folder, required=True, help="folder for JSON and PNG files"
    )
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)  # index of the run to measure
    arguments = parser.parse_args(argv)
    if arguments.repeats < 1 or min(arguments.objects) < 1:
        parser.error("--repeats and --objects must be at least 1.")
    if min(arguments.frames or [MIN_FRAMES]) < MIN_FRAMES:
        parser.error(f"--frames must be at least {MIN_FRAMES}.")
    if not 1 <= arguments.encode_batch <= MAX_BATCH:
        parser.error(f"--encode_batch must be from 1 to {MAX_BATCH}.")
    if arguments.mem_half and arguments.precision != ["float32"]:
        parser.error("--mem_half applies to float32 only: add --precision float32.")
    return arguments


def _capacity(text: str) -> int | None:
    if text == "published":
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of frames nor 'published'.")
    return int(text)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import progressbar

from datasets.synthetic import make_clip
from scripts.benchmarks.inference_report import (
    HEADER,
    describe_capacity,
    draw_growth,
    draw_speed,
    format_growth,
    format_row,
)
from scripts.benchmarks.inference_row import (
    PUBLISHED_FRAMES,
    PUBLISHED_FRAMES_OF_OTHERS,
    Row,
    Run,
    measure,
)
from scripts.benchmarks.timing import measure_io, measure_unit
from util.devices import pick_device
from util.files import write_json
from util.provenance import describe_run


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all runs, print tables, write JSON and figures; return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(argv)
    runs = plan(arguments)
    if arguments.child is not None:
        run = runs[arguments.child]
        return print_result(lambda: dataclasses.asdict(measure(arguments, run)))
    try:
        device = pick_device(arguments.device)
        make_clip(MIN_FRAMES, arguments.height, arguments.width, max(arguments.objects), seed=0)
        io_ms = measure_io(arguments.height, arguments.width)
        arguments.output.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    settings = {name: str(value) for name, value in vars(arguments).items()}
    rows: list[Row] = []
    print(HEADER)
    for index, run in enumerate(progressbar.progressbar(runs, redirect_stdout=True)):
        unit = measure_unit(device)
        try:
            row = Row(**run_script(__file__, [*argv, "--child", str(index)]))
        except ChildFailed as error:
            print(f"error: {_describe(run)}: {error}", file=sys.stderr)
            return error.status
        row.unit_ms = 1e3 * min(unit, measure_unit(device))
        rows.append(row)
        print(format_row(row))
        content = {"rows": [row.to_json() for row in rows], "io_ms": io_ms}
        record = {**describe_run(EvalSettings()), "settings": settings}
        write_json(arguments.output / "speed.json", {**content, **record})
        draw_speed(rows, arguments.output / "speed.png")
    long_rows = [row for row in rows if row.tenths_ms is not None]
    if long_rows:
        draw_growth(long_rows, arguments.output / "growth.png")
    print(f"\n{format_growth(rows)}\n")
    print(
        f"File access, in other threads: {io_ms['decode']:.1f} ms to decode a JPEG, "
        f"{io_ms['encode']:.1f} ms to write a mask."
    )
    return 0


def plan(arguments: argparse.Namespace) -> list[Run]:
    """List the runs in the order of the table."""
    return [
        Run(method, objects, precision, frames, capacity)
        for precision in arguments.precision
        for method in ([""] if arguments.model else arguments.methods)
        for objects in arguments.objects
        for frames in arguments.frames or [PUBLISHED_FRAMES.get(method, PUBLISHED_FRAMES_OF_OTHERS)]
        for capacity in dict.fromkeys(arguments.mem_capacity)
        if None not in arguments.mem_capacity or not _is_published(method, capacity)
    ]


def _is_published(method: str, capacity: int | None) -> bool:
    """Return True if the method as published holds no more than `capacity` frames."""
    if not (method and capacity):
        return False
    published = of_method(EvalSettings(), method)
    return published.memory == "sam" or 0 < (published.mem_capacity or 0) <= capacity


def _describe(run: Run) -> str:
    capacity = describe_capacity(run.mem_capacity)
    return (
        f"{run.method or '--model'}, {run.precision}, {run.objects} objects, {run.frames} frames, "
        f"memory {capacity}"
    )


if __name__ == "__main__":
    sys.exit(main())
