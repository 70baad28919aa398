"""Check and measure everything on this machine's GPU; write one page of Markdown.

    python scripts/benchmarks/gpu_report.py --output out/gpu

Runs the checks first: parity with the published probabilities and training steps, and equality of
two runs with --exact. Then it measures inference (five methods, several numbers of objects and
precisions, batches, compiled or not), a training step and the roofline. The page is
<output>/report.md; <output>/logs has the whole output of every command. The page is rewritten after
each section, and sections for which no time is left are listed as such.

Exit status: 0 if all sections pass, 1 if not.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.shared.paths import output_folder
from util.command_line import script_parser
from util.presets import METHOD_PRESETS

ROOT = Path(__file__).resolve().parents[2]
_BENCHMARKS = "scripts/benchmarks/"
SECTIONS = (  # the most important ones first
    "parity", "training_parity", "exact", "inference", "many_objects", "training", "batches",
    "compiled", "roofline",
)  # fmt: skip


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--output", type=output_folder, required=True, help="folder of the report")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument(
        "--net_size",
        default="base",
        choices=("base", "small", "tiny"),
        help="widths of the measured networks (default: base)",
    )
    methods = [*METHOD_PRESETS]
    parser.add_argument(
        "--methods",
        nargs="+",
        default=methods,
        choices=methods,
        help="methods to measure (default: all)",
    )
    parser.add_argument("--height", type=int, default=480, help="of a frame (default: 480)")
    parser.add_argument("--width", type=int, default=854, help="of a frame (default: 854)")
    parser.add_argument("--crop_size", type=int, default=384, help="of training (default: 384)")
    parser.add_argument(
        "--seconds", type=float, default=520, help="time limit of all sections (default: 520)"
    )
    parser.add_argument(
        "--sections", nargs="+", metavar="NAME", choices=SECTIONS, help=f"of {', '.join(SECTIONS)}"
    )
    arguments = parser.parse_args(argv)
    if min(arguments.height, arguments.width, arguments.crop_size) < 32:
        parser.error("--height, --width and --crop_size must be at least 32.")
    return arguments


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

from scripts.benchmarks.report_page import Result, Section, run_section, write_page
from util.devices import pick_device
from util.hyper_para import EvalSettings
from util.provenance import describe_run
from util.signals import INTERRUPTED


def main(argv: Sequence[str] | None = None) -> int:
    """Run all sections and write the page; return the exit status."""
    arguments = parse(argv)
    try:
        device = pick_device(arguments.device)
        arguments.output.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    record = describe_run(EvalSettings())
    end = time.monotonic() + arguments.seconds
    results: list[Result] = []
    for name, section in plan(arguments, str(device)):
        print(f"{section.title}...", flush=True)
        left = end - time.monotonic()
        try:
            results.append(run_section(name, section, arguments.output, left))
        except KeyboardInterrupt:
            print("\nInterrupted: the report has the sections before.", file=sys.stderr)
            return INTERRUPTED
        print(f"{section.title}: {results[-1].verdict}", flush=True)
        write_page(arguments.output, record, device, results)
    print(f"The report: {arguments.output / 'report.md'}")
    return 0 if all(result.verdict == "passed" for result in results) else 1


def plan(arguments: argparse.Namespace, device: str) -> Iterator[tuple[str, Section]]:
    """Yield the names and the sections to run."""
    sections = make_sections(arguments, device)
    assert tuple(sections) == SECTIONS
    for name in arguments.sections or SECTIONS:
        yield name, sections[name]


def make_sections(arguments: argparse.Namespace, device: str) -> dict[str, Section]:
    """Make all sections."""
    output = Path(os.path.relpath(arguments.output, ROOT))  # the commands run in ROOT
    on_device = ["--device", device]
    network = ["--methods", *arguments.methods, "--net_size", arguments.net_size]
    frames = ["--height", str(arguments.height), "--width", str(arguments.width)]

    def python(*command: str | list[str]) -> list[str]:
        flat = [x for part in command for x in ([part] if isinstance(part, str) else part)]
        return [sys.executable, *flat]

    def inference(name: str, flags: str, title: str) -> Section:
        command = python(
            f"{_BENCHMARKS}bench_inference.py", network, frames, on_device, flags.split(),
            ["--repeats", "1", "--output", str(output / name)],
        )  # fmt: skip
        return Section(title, [command], [f"{name}/speed.png"])

    halves = "half" if device == "cpu" else "half bfloat16"
    clip, runs = output / "exact", [str(output / "exact" / name) for name in ("first", "second")]
    drawn = "--layouts davis --num_videos 1 --num_frames 12 --height 240 --width 432".split()
    davis = ["--davis_path", str(clip / "DAVIS/2017"), "--model", "saves/stcn_small.pth", "--exact"]
    return {
        "parity": Section(
            "Largest difference to the published probabilities",
            [python("scripts/verify_reference.py", on_device)],
        ),
        "training_parity": Section(
            "Losses and gradients of the published trainers",
            [python("-m", "pytest", "tests/test_reference_training.py", on_device)],
        ),
        "exact": Section(
            "Two runs with --exact write the same files",
            [
                python("scripts/make_synthetic.py", str(clip), drawn),
                *(
                    python("eval_davis.py", davis, on_device, ["--output", run])
                    for run in runs
                ),
                ["diff", "--recursive", "--brief", "--exclude=run.json", *runs],
            ],
        ),
        "inference": inference(
            "inference", f"--objects 1 3 --precision float32 {halves}", "Inference"
        ),
        "many_objects": inference(
            "many_objects", "--objects 10 --precision half", "Inference with 10 objects"
        ),
        "training": Section(
            "Training step of STCN",
            [
                python(
                    f"{_BENCHMARKS}bench_train.py", "--size", arguments.net_size,
                    "--crop_size", str(arguments.crop_size), on_device,
                )
            ],
        ),
        "batches": inference(
            "batches", "--objects 3 --precision half --encode_batch 8",
            "Inference, images encoded in batches of 8",
        ),
        "compiled": inference(
            "compiled", "--objects 3 --precision half --compile reduce-overhead",
            "Inference, compiled",
        ),
        "roofline": Section(
            "Roofline",
            [
                python(
                    f"{_BENCHMARKS}bench_roofline.py", network, frames, on_device,
                    ["--objects", "3", "--precision", "half"],
                    ["--output", str(output / "roofline.json")],
                )
            ],
        ),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
