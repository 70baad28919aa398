"""Draw frames of a video with their masks, side by side in one PNG.

    python scripts/draw_frames.py --images out/demo/DAVIS/2017/trainval/JPEGImages/480p/val-000 \
        --masks out/demo/masks/val-000 --frames 0 13 26 39 --output docs/demo.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.command_line import script_parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of the frames")
    parser.add_argument("--masks", type=Path, required=True, help="folder of the mask PNGs")
    parser.add_argument(
        "--frames", type=int, nargs="+", required=True, help="positions in the folder, from 0"
    )
    parser.add_argument("--tile_width", type=int, default=320, help="width of a frame in pixels")
    parser.add_argument("--output", type=Path, required=True, help="PNG to write")
    arguments = parser.parse_args(argv)
    if arguments.tile_width < 16:
        parser.error("--tile_width must be at least 16.")
    return arguments


if __name__ == "__main__":  # --help and wrong options are answered before numpy is imported
    parse()

import numpy as np
from PIL import Image

from util.files import atomic_path
from util.images import list_frames, read_image, resize_image
from util.masks import DAVIS_PALETTE, read_mask, resize_labels
from util.overlay import blend

_GAP = 4  # white pixels between two frames


def draw(images: Path, masks: Path, frames: Sequence[int], tile_width: int) -> np.ndarray:
    """Draw frames with their masks side by side, (H, W, 3) uint8.

    Raises:
        ValueError: there is no such frame, or a file cannot be read.
    """
    paths = list_frames(images)
    tiles: list[np.ndarray] = []
    for index in frames:
        if not 0 <= index < len(paths):
            raise ValueError(
                f"There is no frame {index}: {images} has frames 0 to {len(paths) - 1}."
            )
        image = read_image(paths[index])
        mask = read_mask(
            masks / f"{paths[index].stem}.png", (image.shape[0], image.shape[1]), allow_empty=True
        )
        size = (round(image.shape[0] * tile_width / image.shape[1]), tile_width)
        labels = resize_labels(mask.labels, size)
        if tiles:
            tiles.append(np.full((size[0], _GAP, 3), 255, np.uint8))
        tiles.append(blend(resize_image(image, size), labels, mask.palette or DAVIS_PALETTE))
    return np.concatenate(tiles, 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw and write the PNG; return the exit status."""
    arguments = parse(argv)
    try:
        strip = draw(arguments.images, arguments.masks, arguments.frames, arguments.tile_width)
        with atomic_path(arguments.output) as temporary:
            Image.fromarray(strip).save(temporary, "PNG", optimize=True)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
