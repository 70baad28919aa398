"""Continue training on more and more data, and compare what each step brings.

    python scripts/experiments/training_data.py --output out/training_data \\
        --load_network WEIGHTS.pth --static_root data/static --first_set BSDS_objects \\
        --davis_root data/DAVIS --held_out out/held_out

Four runs of train.py continue from the same weights, with the same updates and learning rates:

    first_set    the photographs of one data set, one object per clip
    photographs  all photographs
    two_objects  all photographs, two objects per clip
    videos       half of the clips as before, half from DAVIS' training sequences

scripts/compare.py scores them, and the weights from which they start, on the clips of held_out.py.
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

CLIPS = 4  # per update
SHARED = (
    f"--num_frames 3 --global_batch {CLIPS} --crop_size 192 --frozen_layers 1 --lr 1e-4 "
    "--backbone_lr 0.2 --gamma 0.4 --report_interval 20 --save_interval 100 --keep_last 1"
)
VIDEOS = "--static_share 0.5 --jumps 5 10 15 10 5 --jump_fractions 0.1 0.3 0.7 0.9"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--output", type=output_folder, required=True, help="folder of the results")
    for name in ("load_network", "static_root", "davis_root"):
        parser.add_argument(f"--{name}", required=True, help="as in train.py")
    parser.add_argument("--first_set", required=True, help="a folder in --static_root")
    parser.add_argument("--held_out", type=Path, required=True, help="output of held_out.py")
    parser.add_argument("--size", default="small", help="size of the weights (default: small)")
    parser.add_argument(
        "--iterations", type=int, default=400, metavar="N", help="updates of a run (default: 400)"
    )
    parser.add_argument(
        "--processes", type=int, default=2, help="processes of each training (default: 2)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    arguments = parser.parse_args(argv)
    if arguments.processes < 1 or CLIPS % arguments.processes:
        parser.error(f"--processes must divide {CLIPS}, the clips of an update.")
    for folder in (
        Path(arguments.static_root) / arguments.first_set,
        arguments.held_out / "2017",
    ):
        if not folder.is_dir():
            parser.error(f"{folder} does not exist.")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run all commands; return the exit status."""
    arguments = parse(argv)
    try:
        link_first_set(arguments)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run_commands(plan(arguments))


def link_first_set(arguments: argparse.Namespace) -> None:
    """Make a folder of photographs with one data set."""
    link = arguments.output / "first_set" / arguments.first_set
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to((Path(arguments.static_root) / arguments.first_set).resolve())


def plan(arguments: argparse.Namespace) -> Iterator[list[str]]:
    """Yield the arguments of Python for each command."""
    output, total = arguments.output, arguments.iterations
    photographs = ["--static_root", arguments.static_root]
    subset = str(arguments.held_out / "train.txt")
    videos = ["--davis_root", arguments.davis_root, "--davis_subset", subset, "--yv_root", "none"]
    runs = {
        "first_set": ["--stage", "0", "--static_root", str(output / "first_set")],
        "photographs": ["--stage", "0", *photographs],
        "two_objects": ["--stage", "0", *photographs, "--static_objects", "2"],
        "videos": ["--stage", "3", *photographs, *videos, *VIDEOS.split()],
    }
    falls = [str(round(total * share)) for share in (0.6, 0.8, 0.92)]
    schedule = ["-i", str(total), "--steps", *falls]
    schedule += ["--start_warm", str(total // 4), "--end_warm", str(2 * total)]
    for name, data in runs.items():
        yield train_command(
            arguments.processes, "--id", name, "--size", arguments.size, *data, *SHARED.split(),
            "--load_network", arguments.load_network, *schedule,
            "--batch_size", str(CLIPS // arguments.processes), "--device", arguments.device,
            "--save_dir", str(output / "saves"), "--load_model", "auto",
        )  # fmt: skip
    weights = [str(output / "saves" / name / f"{name}_{total}.pth") for name in runs]
    yield [
        str(ROOT / "scripts/compare.py"), "--models", arguments.load_network, *weights,
        "--names", "start", *runs,
        "--davis_path", str(arguments.held_out / "2017"), "--year", "2017", "--amp",
        "--device", arguments.device, "--output", str(output / "scores"),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
