"""Resize YouTube-VOS training videos to a shorter side of 480 pixels.

Reads JPEGImages and Annotations of one folder and writes them to another. Images are resized with
bicubic interpolation, masks with nearest-neighbour. Existing files are kept, so an interrupted run
can be resumed.

Example: python scripts/resize_youtube.py data/YouTube/train data/YouTube/train_480p
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.command_line import script_parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("source", type=Path, help="folder with JPEGImages and Annotations")
    parser.add_argument("destination", type=Path, help="folder for the resized files")
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes (default: number of cores)",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import progressbar
from PIL import Image

from util.files import atomic_path
from util.images import load_image

SHORT_SIDE = 480
KINDS = {"JPEGImages": Image.Resampling.BICUBIC, "Annotations": Image.Resampling.NEAREST}


def resize_all(source: Path, destination: Path, workers: int) -> int:
    """Resize all videos of a folder; each process resizes one video at a time.

    Returns:
        Number of files written.

    Raises:
        FileNotFoundError: `source` is no YouTube-VOS folder.
        ValueError: a file cannot be read, or `workers` is less than 1.
    """
    for kind in KINDS:
        if not (source / kind).is_dir():
            raise FileNotFoundError(
                f"{source} has no folder {kind}; give the folder of the YouTube-VOS training set."
            )
    if workers < 1:
        raise ValueError(f"--workers must be at least 1; it is {workers}.")
    videos = [
        (video, destination / kind / video.name, kind)
        for kind in KINDS
        for video in sorted((source / kind).iterdir())
        if video.is_dir()
    ]
    print(f"Resizing {source} to {destination}")
    # Forking is unsafe here, since gdown's progress bar runs a thread in this process.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, max(1, len(videos))), mp_context=spawn) as pool:
        written = pool.map(resize_video, *zip(*videos, strict=True)) if videos else iter(())
        bar = progressbar.progressbar(written, max_value=len(videos))
        return sum(bar)


def resize_video(source: Path, destination: Path, kind: str) -> int:
    """Resize the files of one folder that do not exist yet; returns the number of files written."""
    written = 0
    for path in sorted(source.iterdir()):
        target = destination / path.name
        if path.suffix in (".jpg", ".png") and not target.exists():
            _resize_file(path, target, KINDS[kind])
            written += 1
    return written


def _resize_file(path: Path, target: Path, resampling: Image.Resampling) -> None:
    image = load_image(path)
    scale = SHORT_SIDE / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    with atomic_path(target) as temporary:
        image.resize(size, resampling).save(temporary, quality=95)


def main(argv: list[str] | None = None) -> int:
    """Parse and run; returns the exit status."""
    args = parse(argv)
    try:
        written = resize_all(args.source, args.destination, args.workers)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{written} files written.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
