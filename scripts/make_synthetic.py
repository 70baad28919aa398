"""Write synthetic videos and images in the layouts of the published data sets.

Example: python scripts/make_synthetic.py data_synthetic --num_videos 4 --num_frames 30
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.command_line import script_parser

# The keys of LAYOUTS, without its imports.
LAYOUT_NAMES = ("davis", "youtube", "bl30k", "static", "generic")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument(
        "output",
        type=Path,
        help="folder that receives one folder per layout: DAVIS, YouTube, BL30K, static, generic",
    )
    parser.add_argument(
        "--layouts",
        nargs="+",
        choices=LAYOUT_NAMES,
        default=list(LAYOUT_NAMES),
        help="layouts to write (default: all)",
    )
    parser.add_argument(
        "--num_videos",
        type=int,
        default=2,
        help="videos per split, or images per data set (default: 2)",
    )
    parser.add_argument("--num_frames", type=int, default=30, help="frames per video (default: 30)")
    parser.add_argument("--height", type=int, default=480, help="frame height (default: 480)")
    parser.add_argument("--width", type=int, default=854, help="frame width (default: 854)")
    parser.add_argument("--num_objects", type=int, default=3, help="objects per video (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all draws (default: 0)")
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import progressbar

from datasets.synthetic import make_clip
from datasets.synthetic_layouts import LAYOUTS, Job, Request


def plan(args: argparse.Namespace) -> list[Job]:
    """Make the jobs of the chosen layouts.

    Raises:
        ValueError: an option is out of range, or an output folder is not empty. Nothing has been
            written then.
    """
    if args.num_videos < 1:
        raise ValueError(f"--num_videos must be at least 1; it is {args.num_videos}.")
    if args.seed < 0:
        raise ValueError(f"--seed must not be negative; it is {args.seed}.")
    if args.output.exists() and not args.output.is_dir():
        raise ValueError(f"{args.output} is a file; choose a folder for the output.")
    # Raises for frames and objects that are out of range.
    make_clip(args.num_frames, args.height, args.width, args.num_objects, args.seed)
    jobs: list[Job] = []
    for number, (name, (folder_name, make_jobs)) in enumerate(LAYOUTS.items()):
        if name not in args.layouts:
            continue
        folder = args.output / folder_name
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(
                f"{folder} exists and is not empty; choose another output folder or remove it."
            )
        jobs += make_jobs(
            Request(
                folder=folder,
                num_videos=args.num_videos,
                num_frames=args.num_frames,
                height=args.height,
                width=args.width,
                num_objects=args.num_objects,
                seed=(args.seed, number),
            )
        )
    return jobs


def main(argv: list[str] | None = None) -> int:
    """Parse, write all layouts; returns the exit status."""
    args = parse(argv)
    try:
        for job in progressbar.progressbar(plan(args)):
            job()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
