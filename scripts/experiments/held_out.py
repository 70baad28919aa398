"""Hold out sequences of DAVIS' training set, to choose between weights without a validation clip.

    python scripts/experiments/held_out.py --davis_root data/DAVIS --output out/held_out

The output folder gets train.txt, the other training sequences, for --davis_subset of train.py. It
also gets 2017/, a DAVIS folder for eval_davis.py and compare.py, whose validation split is seven
clips: four held-out sequences, and three pairs of objects pasted from them. A pair is one sequence
with the objects of another one in front, which are smaller and move.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.shared.paths import output_folder
from util.command_line import script_parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--davis_root", type=Path, required=True, help="as in train.py")
    parser.add_argument("--output", type=output_folder, required=True, help="folder of the results")
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before OpenCV is imported
    parse()

import cv2
import numpy as np
from PIL import Image

from datasets.video_list import TrainingVideo, find_davis
from util.files import atomic_path
from util.images import read_image, resize_image
from util.masks import DAVIS_PALETTE, read_mask, resize_labels, write_mask

HELD_OUT = ("car-turn", "kite-walk", "horsejump-low", "dance-jump")


class Pair(NamedTuple):
    """A sequence with the objects of another one in front."""

    name: str
    behind: str
    front: str
    first: int = 0  # first frame of the sequence behind
    scale: float = 0.8  # of the pasted objects
    x: int = 0  # their shift in pixels on the first frame
    y: int = 0
    motion: int = 0  # further shift per frame, to the right


PAIRS = (
    Pair("two-kite-dance", "kite-walk", "dance-jump", x=-150, y=60, motion=5),
    Pair("two-dance-horse", "dance-jump", "horsejump-low", x=120, y=40, motion=-4),
    Pair("two-car-car", "car-turn", "car-turn", first=20, scale=0.6, x=200, y=60, motion=-6),
)
NUM_FRAMES = 50
_SIZE = (240, 432)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the held-out clips; return the exit status."""
    try:
        hold_out(parse(argv))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def hold_out(arguments: argparse.Namespace) -> None:
    """Write the clips and the list of the other sequences."""
    output: Path = arguments.output
    videos = {video.name: video for video in find_davis(arguments.davis_root)}
    missing = [name for name in HELD_OUT if name not in videos]
    if missing:
        raise ValueError(
            f"{', '.join(missing)} are not among the training sequences of "
            f"{arguments.davis_root}: give the folder of DAVIS."
        )
    output.mkdir(parents=True, exist_ok=True)
    _write_list(output / "train.txt", [name for name in videos if name not in HELD_OUT])
    base = output / "2017/trainval"
    lists = base / "ImageSets/2017"
    lists.mkdir(parents=True, exist_ok=True)
    for name in HELD_OUT:
        video = videos[name]
        for kind, folder in (("JPEGImages", video.frames), ("Annotations", video.masks)):
            link = base / kind / "480p" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(folder.resolve())
    for pair in PAIRS:
        _write_pair(base, pair, videos)
        print(f"{pair.name}: {NUM_FRAMES} frames")
    _write_list(lists / "val.txt", [*HELD_OUT, *(pair.name for pair in PAIRS)])


def _write_list(path: Path, names: Sequence[str]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in names))


def _write_pair(base: Path, pair: Pair, videos: dict[str, TrainingVideo]) -> None:
    """Write the frames and masks of a pair: label 1 is behind, label 2 in front."""
    frames, masks = (base / kind / "480p" / pair.name for kind in ("JPEGImages", "Annotations"))
    for folder in (frames, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for i in range(NUM_FRAMES):
        image, behind = _read(videos[pair.behind], pair.first + i)
        front, mask = _read(videos[pair.front], i)
        height, width = behind.shape
        matrix = np.array([[pair.scale, 0, pair.x + pair.motion * i], [0, pair.scale, pair.y]])
        front = cv2.warpAffine(front, matrix, (width, height), flags=cv2.INTER_AREA)
        mask = cv2.warpAffine(mask, matrix, (width, height), flags=cv2.INTER_NEAREST)
        soft = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0)[..., None]
        image = np.round(image * (1 - soft) + front * soft).astype(np.uint8)
        labels = resize_labels(np.where(mask > 0, np.uint8(2), behind), _SIZE)
        with atomic_path(frames / f"{i:05d}.jpg", is_durable=False) as temporary:
            Image.fromarray(resize_image(image, _SIZE)).save(temporary, format="JPEG", quality=95)
        write_mask(masks / f"{i:05d}.png", labels, DAVIS_PALETTE)


def _read(video: TrainingVideo, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a frame (H, W, 3) uint8 and the mask (H, W) uint8 in {0, 1} of all its objects."""
    name = video.names[index]
    labels = read_mask(video.mask_path(name), allow_empty=True).labels
    return read_image(video.frame_path(name)), (labels > 0).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
