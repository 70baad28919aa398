"""Train several methods with one budget and compare them: scores, speed, memory and loss.

    python scripts/experiments/train_methods.py --output out/methods \\
        --backbone_weights BACKBONE.pth --static_root data/static --davis_root data/DAVIS \\
        --davis_path data/DAVIS

Each method is trained by train.py in stage 0 and stage 3: the same clips, updates and schedules for
all. Half of the clips of stage 3 are static. The default budget is about half an hour per method on
two CPU cores. --published trains with the published settings of each method instead, for GPUs.

The output folder gets <method>.pth, the curves stage0.png and stage3.png, the tables of
scripts/compare.py for DAVIS 2016 and 2017, and in memory/ the figures of a clip of 1,000 frames.
Every command is printed before it runs. The same command resumes an interrupted experiment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.shared.commands import ROOT, run_commands, train_command
from scripts.shared.paths import output_folder
from util.command_line import script_parser
from util.plugins import add_plugin_option
from util.presets import METHOD_PRESETS, STAGE_PRESETS

SCRIPTS = str(ROOT / "scripts") + "/"
CLIPS = 4  # per update
# Options of train.py that replace the published ones.
SHARED = (
    f"--num_frames 3 --global_batch {CLIPS} --backbone_lr 0.2 --frozen_layers 1 --gamma 0.3 "
    "--report_interval 20 --save_interval 100 --keep_last 1"
)
STAGE_0 = "--static_objects 2 --crop_size 192 --lr 2e-4"
STAGE_3 = (
    "--static_share 0.5 --crop_size 256 --lr 1e-4 --jumps 5 10 15 10 5 "
    "--jump_fractions 0.1 0.3 0.7 0.9"
)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    add_plugin_option(parser, argv)
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHOD_PRESETS,
        default=[*METHOD_PRESETS],
        metavar="METHOD",
        help="methods to train (default: all)",
    )
    parser.add_argument("--output", type=output_folder, required=True, help="folder of the results")
    for name in ("backbone_weights", "static_root", "davis_root"):
        parser.add_argument(f"--{name}", required=True, help="as in train.py")
    parser.add_argument("--yv_root", default="none", help="as in train.py (default: none)")
    parser.add_argument("--davis_subset", help="as in train.py")
    parser.add_argument(
        "--davis_path", type=Path, required=True, help="folder that contains 2016/ and 2017/"
    )
    parser.add_argument(
        "--size",
        choices=("base", "small", "tiny"),
        default="small",
        help="widths of the networks (default: small)",
    )
    parser.add_argument(
        "--iterations",
        type=int,
        nargs=2,
        default=(800, 400),
        metavar="N",
        help="updates in stage 0 and in stage 3 (default: 800 400)",
    )
    parser.add_argument(
        "--published", action="store_true", help="train with the published settings of each method"
    )
    parser.add_argument(
        "--processes", type=int, default=2, help="processes of each training (default: 2)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    arguments = parser.parse_args(argv)
    if min(*arguments.iterations, arguments.processes) < 1:
        parser.error("--iterations and --processes must be at least 1.")
    if not arguments.published and CLIPS % arguments.processes:
        parser.error(f"--processes must divide {CLIPS}, the clips of an update.")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run all commands; return the exit status: that of the first command that fails, or 0."""
    return run_commands(plan(parse(argv)))


def plan(arguments: argparse.Namespace) -> Iterator[list[str]]:
    """Yield the arguments of Python for each command."""
    output = arguments.output
    weights = {method: output / f"{method}.pth" for method in arguments.methods}
    for method, path in weights.items():
        yield from plan_training(arguments, method, output / "saves")
        if not path.exists():
            run = output / "saves" / f"{method}_s3"
            final = run / f"{run.name}_{num_updates(arguments, method, '3')}.pth"
            yield [SCRIPTS + "export_weights.py", str(final), str(path)]
    for stage in ("0", "3"):
        runs = [str(output / "saves" / f"{method}_s{stage}") for method in weights]
        figure = str(output / f"stage{stage}.png")
        yield [
            str(ROOT / "scripts/plot_log.py"),
            *runs,
            "--compare",
            "--window",
            "5",
            "--output",
            figure,
        ]
    machine = ["--amp", "--device", arguments.device]
    for year, folder in (("2016", ""), ("2017", "2017")):
        table = [
            str(ROOT / "scripts/compare.py"),
            "--models",
            *map(str, weights.values()),
            *machine,
        ]
        table += ["--davis_path", str(arguments.davis_path / folder), "--year", year]
        yield [*table, "--output", str(output / f"davis{year}")]
    growth = "--objects 1 --precision half --height 192 --width 336 --frames 1000".split()
    yield [
        SCRIPTS + "benchmarks/bench_inference.py", "--methods", *arguments.methods,
        "--net_size", arguments.size, *growth, "--device", arguments.device,
        "--output", str(output / "memory"),
    ]  # fmt: skip


def plan_training(arguments: argparse.Namespace, method: str, saves: Path) -> Iterator[list[str]]:
    """Yield the commands that train one method in stage 0 and stage 3."""
    roots = ["--davis_root", arguments.davis_root, "--yv_root", arguments.yv_root]
    if arguments.davis_subset:
        roots += ["--davis_subset", arguments.davis_subset]
    starts = {
        "0": ["--backbone_weights", arguments.backbone_weights],
        "3": ["--load_network", str(saves / f"{method}_s0" / f"{method}_s0_{{}}.pth"), *roots],
    }
    for stage, start in starts.items():
        first = num_updates(arguments, method, "0")
        command = train_command(
            arguments.processes, "--id", f"{method}_s{stage}", "--method", method, "--stage", stage,
            "--size", arguments.size, "--static_root", arguments.static_root,
            *(text.format(first) for text in start),
            "--save_dir", str(saves), "--load_model", "auto", "--device", arguments.device,
        )  # fmt: skip
        if not arguments.published:
            command += schedule(num_updates(arguments, method, stage), stage)
            command += ["--batch_size", str(CLIPS // arguments.processes)]
        yield command


def schedule(iterations: int, stage: str) -> list[str]:
    """Return the options of train.py that replace the published ones."""
    if stage == "0":  # no pixels are left out, and the learning rate is constant
        falls, warm = [iterations], (iterations, iterations)
    else:
        falls = [round(iterations * share) for share in (0.6, 0.8, 0.92)]
        warm = (iterations // 8, 2 * iterations)
    return [
        *SHARED.split(), *(STAGE_0 if stage == "0" else STAGE_3).split(), "-i", str(iterations),
        "--steps", *map(str, falls), "--start_warm", str(warm[0]), "--end_warm", str(warm[1]),
    ]  # fmt: skip


def num_updates(arguments: argparse.Namespace, method: str, stage: str) -> int:
    """Number of updates of a method in a stage."""
    if arguments.published:
        from util.hyper_para import TrainSettings

        return STAGE_PRESETS[method, stage].get("iterations", TrainSettings.iterations)
    return arguments.iterations["03".index(stage)]


if __name__ == "__main__":
    sys.exit(main())
