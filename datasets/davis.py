"""Readers of DAVIS 2016 and 2017: 480p frames, all objects annotated on the first frame.

Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR
2016; Pont-Tuset et al., The 2017 DAVIS Challenge on Video Object Segmentation, arXiv:1704.00675.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from datasets.video import Video, check_numbering, load_videos, masks_by_frame
from util.files import is_name
from util.images import list_frames, list_images

SPLITS = ("train", "val", "test-dev")
FIRST_MASK = "00000.png"


def davis_2017(
    root: Path,
    split: str = "val",
    imset: str | None = None,
    shorter_side: int | None = None,
) -> list[Video]:
    """Read the videos of a split of DAVIS 2017.

    Args:
        root: the folder with trainval/ and test-dev/, or its parent (with 2017/ inside), or
            trainval/ or test-dev/ itself.
        split: "val", "test-dev" (or "testdev") or "train".
        imset: list of sequences that replaces the split's, relative to the folder ImageSets, for
            example "2017/val.txt".
        shorter_side: shorter side of the segmented frames in pixels; None keeps the original size.

    Raises:
        FileNotFoundError: a folder or the list is missing.
        ValueError: the split is unknown, or videos are invalid; the message lists all problems.
    """
    base, listing = find_2017(root, split)
    if imset is not None:
        listing = base / "ImageSets" / imset
    return _read(base, listing, is_binary=False, shorter_side=shorter_side)


def davis_2016(root: Path, split: str = "val", shorter_side: int | None = None) -> list[Video]:
    """Read the videos of a split of DAVIS 2016: one object each, label 255 in grey masks.

    Args:
        root: the folder 2016/ with JPEGImages/ and Annotations/ inside, or its parent. The list of
            sequences is ImageSets/2016/val.txt beside them or, as in the published scripts,
            ../2017/trainval/ImageSets/2016/val.txt.
        split: "val" or "train". "testdev", which RDE's published command passes, does not exist in
            DAVIS 2016: it prints a warning and reads "val".
        shorter_side: shorter side of the segmented frames in pixels; None keeps the original size.

    Raises:
        FileNotFoundError: a folder or the list is missing.
        ValueError: the split is unknown, or videos are invalid; the message lists all problems.
    """
    if split in ("testdev", "test-dev"):
        print("warning: DAVIS 2016 has no test-dev split: val is segmented.", file=sys.stderr)
        split = "val"
    if split not in ("val", "train"):
        raise ValueError(f"DAVIS 2016 has no split {split}: choose from val, train")
    return _read(*find_2016(root, split), is_binary=True, shorter_side=shorter_side)


def find_2017(root: Path, split: str) -> tuple[Path, Path]:
    """Find the folder of a split, which contains Annotations, and its list of sequences.

    Args and errors: see `davis_2017`.
    """
    split = "test-dev" if split == "testdev" else split
    if split not in SPLITS:
        raise ValueError(f"DAVIS 2017 has no split {split}: choose from {', '.join(SPLITS)}")
    part = "test-dev" if split == "test-dev" else "trainval"
    base = _find_base(root, [root / part, root / "2017" / part, root], f"DAVIS 2017 {split}")
    return base, base / "ImageSets" / "2017" / f"{split}.txt"


def find_2016(root: Path, split: str = "val") -> tuple[Path, Path]:
    """Find the folder that contains Annotations, and the list of sequences; see `davis_2016`."""
    base = _find_base(root, [root / "2016", root], "DAVIS 2016")
    # 2016 may be a link. The list is next to the link, so `resolve` would miss it.
    parent = Path(os.path.abspath(base)).parent
    name = Path("ImageSets", "2016", f"{split}.txt")
    published = parent / "2017" / "trainval" / name
    return base, base / name if (base / name).exists() else published


def read_sequences(list_path: Path) -> list[str]:
    """Read the names in a list of sequences, without duplicates.

    Raises:
        FileNotFoundError: the list does not exist.
        ValueError: the list is empty, or is no list of names.
    """
    if not list_path.is_file():
        raise FileNotFoundError(
            f"the list of sequences {list_path} does not exist: copy it from ImageSets of the "
            "DAVIS 2017 download"
        )
    try:
        sequences = [*dict.fromkeys(list_path.read_text(encoding="utf-8-sig").split())]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the list of sequences {list_path} is not a text file in UTF-8: download it again"
        ) from error
    wrong = [name for name in sequences if not is_name(name)]
    if wrong:
        raise ValueError(
            f"the list of sequences {list_path} contains {wrong[0][:80]!r}, which is not the name "
            "of a folder: write one name on each line"
        )
    if not sequences:
        raise ValueError(f"the list of sequences {list_path} is empty: download it again")
    return sequences


def _find_base(root: Path, candidates: list[Path], dataset: str) -> Path:
    for base in candidates:
        if (base / "Annotations").is_dir():
            return base
    expected = ", ".join(str(base / "Annotations") for base in candidates)
    raise FileNotFoundError(
        f"{dataset} is not in {root}: none of these folders exists: {expected}; "
        "give the folder that contains the unpacked data set"
    )


def _read(base: Path, list_path: Path, is_binary: bool, shorter_side: int | None) -> list[Video]:
    sequences = read_sequences(list_path)
    frames, masks = at_480p(base / "JPEGImages"), at_480p(base / "Annotations")
    return load_videos(
        partial(_make, name, frames / name, masks / name, is_binary, shorter_side)
        for name in sequences
    )


def at_480p(folder: Path) -> Path:
    """The 480p folder in `folder`, or `folder` itself if it has no folder for each resolution."""
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
            f"sequence {name} has no mask of its first frame: {first_mask} is missing; download "
            "the annotations again"
        )
    # val contains the masks of all frames. A mask without a frame reveals missing last frames.
    masks = masks_by_frame(frames, list_images(masks_folder))
    first_frame = next(index for index, path in masks.items() if path == first_mask)
    masks = {first_frame: first_mask}
    return Video(name, frames, masks, shorter_side=shorter_side, is_binary=is_binary)
