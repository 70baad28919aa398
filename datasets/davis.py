"""The DAVIS 2016 and 2017 benchmarks: every frame at 480p, objects given on the first frame.

Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR
2016; Pont-Tuset et al., The 2017 DAVIS Challenge on Video Object Segmentation, arXiv:1704.00675.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from datasets.video import Video, check_numbering, load_videos, masks_by_frame
from util.images import list_frames, list_images

SPLITS = ("train", "val", "test-dev")
FIRST_MASK = "00000.png"


def davis_2017(
    root: Path,
    split: str = "val",
    imset: str | None = None,
    shorter_side: int | None = None,
) -> list[Video]:
    """The videos of a split of DAVIS 2017.

    Args:
        root: the folder that holds trainval/ and test-dev/, the one above it (DAVIS, with 2017/
            inside), or trainval/ or test-dev/ itself.
        split: "val", "test-dev" (or "testdev") or "train".
        imset: another list of sequences, relative to the folder ImageSets, such as "2017/val.txt".
        shorter_side: of the frames as they are segmented; None: as they are.

    Raises:
        FileNotFoundError: a folder or the list is not where it is expected.
        ValueError: an unknown split, or all that is wrong with the videos.
    """
    base, listing = find_2017(root, split)
    if imset is not None:
        listing = base / "ImageSets" / imset
    return _read(base, listing, is_binary=False, shorter_side=shorter_side)


def davis_2016(root: Path, split: str = "val", shorter_side: int | None = None) -> list[Video]:
    """The videos of a split of DAVIS 2016: one object each, label 255 in grey masks.

    Args:
        root: the folder 2016/ with JPEGImages/ and Annotations/ inside, or the one above it. The
            list is ImageSets/2016/val.txt beside them, or, as the published scripts have it,
            ../2017/trainval/ImageSets/2016/val.txt.
        split: "val" or "train". RDE's published command says "testdev", which DAVIS 2016 does not
            have: that is taken for "val", with a warning.
        shorter_side: of the frames as they are segmented; None: as they are.

    Raises:
        FileNotFoundError: a folder or the list is not where it is expected.
        ValueError: no such split, or all that is wrong with the videos.
    """
    if split in ("testdev", "test-dev"):
        print("warning: DAVIS 2016 has no test-dev: its val is segmented.", file=sys.stderr)
        split = "val"
    if split not in ("val", "train"):
        raise ValueError(f"there is no split {split} of DAVIS 2016: choose from val, train")
    return _read(*find_2016(root, split), is_binary=True, shorter_side=shorter_side)


def find_2017(root: Path, split: str) -> tuple[Path, Path]:
    """The folder of a split (with Annotations in it) and its list of sequences; see davis_2017."""
    split = "test-dev" if split == "testdev" else split
    if split not in SPLITS:
        raise ValueError(
            f"there is no split {split} of DAVIS 2017: choose from {', '.join(SPLITS)}"
        )
    part = "test-dev" if split == "test-dev" else "trainval"
    base = _find_base(root, [root / part, root / "2017" / part, root], f"DAVIS 2017 {split}")
    return base, base / "ImageSets" / "2017" / f"{split}.txt"


def find_2016(root: Path, split: str = "val") -> tuple[Path, Path]:
    """The folder with Annotations in it, and the list of sequences; see davis_2016."""
    base = _find_base(root, [root / "2016", root], "DAVIS 2016")
    # Not `resolve`: 2016 may be a link, and the list stands beside the link.
    above = Path(os.path.abspath(base)).parent
    name = Path("ImageSets", "2016", f"{split}.txt")
    beside = above / "2017" / "trainval" / name
    return base, base / name if (base / name).exists() else beside


def read_sequences(list_path: Path) -> list[str]:
    """The names in a list of sequences.

    Raises:
        FileNotFoundError: the list is not there.
        ValueError: it is empty.
    """
    if not list_path.is_file():
        raise FileNotFoundError(
            f"the list of sequences {list_path} does not exist: it comes with the DAVIS 2017 "
            "download, under ImageSets"
        )
    sequences = [*dict.fromkeys(list_path.read_text().split())]  # a name may stand there twice
    if not sequences:
        raise ValueError(f"the list {list_path} names no sequence: download it again")
    return sequences


def _find_base(root: Path, candidates: list[Path], dataset: str) -> Path:
    for base in candidates:
        if (base / "Annotations").is_dir():
            return base
    expected = ", ".join(str(base / "Annotations") for base in candidates)
    raise FileNotFoundError(
        f"{dataset} is not in {root}: none of these folders exists: {expected}; "
        "give the folder the dataset was unpacked to"
    )


def _read(base: Path, list_path: Path, is_binary: bool, shorter_side: int | None) -> list[Video]:
    sequences = read_sequences(list_path)
    frames, masks = at_480p(base / "JPEGImages"), at_480p(base / "Annotations")
    return load_videos(
        partial(_make, name, frames / name, masks / name, is_binary, shorter_side)
        for name in sequences
    )


def at_480p(folder: Path) -> Path:
    """The 480p folder inside `folder`, or `folder` itself where there are no resolutions."""
    return folder / "480p" if (folder / "480p").is_dir() else folder


def _make(
    name: str,
    frames_folder: Path,
    masks_folder: Path,
    is_binary: bool,
    shorter_side: int | None,
) -> Video:
    frames = list_frames(frames_folder)
    check_numbering(frames, step=1)
    first_mask = masks_folder / FIRST_MASK
    if not first_mask.is_file():
        raise FileNotFoundError(
            f"sequence {name} has no first mask: expected {first_mask}; download the annotations"
        )
    # The validation split comes with all masks: they tell when frames at the end are missing.
    masks = masks_by_frame(frames, list_images(masks_folder))
    first_frame = next(index for index, path in masks.items() if path == first_mask)
    masks = {first_frame: first_mask}
    return Video(name, frames, masks, shorter_side=shorter_side, is_binary=is_binary)
