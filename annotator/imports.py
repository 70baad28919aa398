"""Import of masks: a file, a folder of files, or the bytes of an uploaded file."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from datasets.video import ProblemsError, masks_by_frame
from util.images import DAMAGE_ERRORS, list_images
from util.masks import DAVIS_PALETTE, MaskImage, colour_palette, labels_of, read_mask

MAX_BYTES = 64 * 2**20
# Other formats of PIL have decoders that are less used, or that start programs (EPS).
_FORMATS = ("PNG", "TIFF", "BMP", "WEBP", "JPEG")


def read_masks(
    path: Path, frames: Sequence[Path], size: tuple[int, int]
) -> Iterator[tuple[int, MaskImage]]:
    """Read the masks that `eval_generic.py --mask` takes.

    All files are checked at once, and read again when their turn comes. Masks without objects in a
    folder are skipped, since exports have them.

    Args:
        path: a mask file of the first frame, with any name; or a folder of masks named like their
            frames.
        frames: file of each frame; only names are used. The frames of a video file are named by
            their index with five digits, such as clip.mp4/00040.
        size: (H, W) of the frames.

    Returns:
        Frame indices in ascending order, and masks that share one palette if they are colour
        images.

    Raises:
        FileNotFoundError: `path` does not exist.
        ValueError: masks are invalid, or belong to no frame; the message lists all problems.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"The mask {path} does not exist: give a mask of the first frame, or a folder of masks."
        )
    by_frame = {0: path} if path.is_file() else masks_by_frame(frames, list_images(path))
    if not by_frame:
        raise ValueError(f"The folder {path} has no mask: add one, named like its frame.")
    palette = colour_palette(by_frame.values())
    problems, wanted = [], []
    for index, file in sorted(by_frame.items()):
        try:
            if read_mask(file, size, path.is_dir(), palette).labels.any():
                wanted.append((index, file))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ProblemsError(problems)
    if not wanted:
        raise ValueError(f"The masks in {path} have no object: every pixel is background.")
    return ((index, read_mask(file, size, palette=palette)) for index, file in wanted)


def label_colours(mask: MaskImage) -> dict[int, str]:
    """Return "#rrggbb" for each label of a mask; empty for a grey mask."""
    if mask.palette is None:
        return {}
    palette = mask.palette
    return {
        label: f"#{palette[3 * label : 3 * label + 3].hex()}" for label in labels_of(mask.labels)
    }


def read_uploaded(data: bytes, size: tuple[int, int], palette: bytes = DAVIS_PALETTE) -> MaskImage:
    """Read the bytes of one mask file.

    The size in the header is checked before pixels are decoded, so a small file cannot fill the
    memory.

    Args:
        data: content of the file, at most MAX_BYTES.
        size: (H, W) of the frame.
        palette: colours for colour images; see `util.masks.read_mask`.

    Raises:
        ValueError: the file is too large, no image, or no valid mask of this size.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(
            f"The mask file has {len(data) / 2**20:.0f} MiB, but at most {MAX_BYTES // 2**20} MiB "
            "are read: save it as a palette PNG."
        )
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            found = (image.height, image.width)
    except DAMAGE_ERRORS as error:
        raise ValueError(
            "The file is damaged, or not an image: save the mask as a PNG and import it again."
        ) from error
    if found != tuple(size):
        raise ValueError(
            f"The mask is {found[1]}x{found[0]} (width x height), but its frame is "
            f"{size[1]}x{size[0]}: save the mask at the size of the frame, resized with "
            "nearest-neighbour."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mask")
        path.write_bytes(data)
        try:
            return read_mask(path, size, palette=palette)
        except ValueError as error:
            # The temporary path means nothing to the user.
            text = str(error).replace(f"mask {path}", "The mask").replace(str(path), "the file")
            raise ValueError(text) from error
