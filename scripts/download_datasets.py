"""Download the training and evaluation data sets into one folder.

These are re-distributions of the original data sets: respect the licence and the terms of each, and
cite its paper. The static images are DUTS, HRSOD, FSS-1000, ECSSD and BIG. The videos are DAVIS
(https://davischallenge.org) and YouTube-VOS (https://youtube-vos.org). scripts/download_bl30k.py
downloads BL30K.

Example: python scripts/download_datasets.py --only davis2017_trainval youtube_valid
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.download import Item, fetch_all, run
from util.command_line import script_parser

# Folders in the archives.
VIDEO = ("JPEGImages", "Annotations")
DAVIS = (*VIDEO, "ImageSets")
STATIC = ("BIG_small", "HRSOD_small")
ALL_FRAMES = ("JPEGImages",)

DATASETS = {
    name: Item(name, file_id, destination, "archive", contents)
    for name, file_id, destination, contents in (
        ("static", "1wUJq3HcLdN-z1t4CsUhjeZ9BVDb9YKLd", "static", STATIC),
        ("davis2016", "198aRlh5CpAoFz0hfRgYbiNenn_K8DxWD", "DAVIS/2016", VIDEO),
        (
            "davis2017_trainval",
            "1kiaxrX_4GuW6NmiVuKGSGVoKGWjOdp6d",
            "DAVIS/2017/trainval",
            DAVIS,
        ),
        (
            "davis2017_test_dev",
            "1fmkxU2v9cQwyb62Tj1xFDdh2p4kDsUzD",
            "DAVIS/2017/test-dev",
            DAVIS,
        ),
        ("youtube_train", "13Eqw0gVK-AO5B-cqvJ203mZ2vzWck9s4", "YouTube/train", VIDEO),
        ("youtube_valid", "1o586Wjya-f2ohxYf9C1RlRH-gkrzGS8t", "YouTube/valid", VIDEO),
        (
            "youtube_all_frames",
            "1rWQzZcMskgpEQOZdJPJ7eTmLCBEIIpEN",
            "YouTube/all_frames/valid_all_frames",
            ALL_FRAMES,
        ),
        ("youtube2018_valid", "1-QrceIl5sUNTKz7Iq0UsWC6NLZq7girr", "YouTube2018/valid", VIDEO),
        (
            "youtube2018_all_frames",
            "1yVoHM6zgdcL348cFpolFcEl4IC1gorbV",
            "YouTube2018/all_frames/valid_all_frames",
            ALL_FRAMES,
        ),
    )
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument(
        "--root", type=Path, default=Path("data"), help="folder of the data sets (default: data)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=DATASETS,
        default=list(DATASETS),
        help="data sets to download (default: all)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes that resize youtube_train to 480p (default: number of cores)",
    )
    return parser.parse_args(argv)


def work(args: argparse.Namespace) -> int:
    """Download the chosen data sets and resize youtube_train; returns the exit status."""
    failures = fetch_all([DATASETS[name] for name in args.only], args.root)
    youtube = args.root / "YouTube"
    if "youtube_train" in args.only and (youtube / "train").is_dir():
        from scripts.resize_youtube import resize_all  # imports numpy, too slow for --help

        try:
            resize_all(youtube / "train", youtube / "train_480p", args.workers)
        except (ValueError, OSError) as error:
            failures.append(str(error))
    if failures:
        raise ValueError("\n".join(failures))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Parse and run; returns the exit status."""
    return run(work, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
