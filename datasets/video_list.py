"""Which annotated videos there are to train on, and where their files lie."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from datasets.davis import at_480p, find_2017, read_sequences
from datasets.video import ProblemsError
from util.images import IMAGE_SUFFIXES, natural_key

# A clip has so many different frames, unless a video's end is near.
LEAST_FRAMES = 3


class TrainingVideo(NamedTuple):
    """Frames and masks of one video. Names stand in one string: BL30K has 4.8 million of them."""

    frames: Path
    masks: Path
    suffix: str  # of the frame files
    joined_names: str  # stems of the annotated frames in order, joined by "/"

    @property
    def name(self) -> str:
        """Of the video."""
        return self.frames.name

    @property
    def names(self) -> list[str]:
        """Stems of the annotated frames in order."""
        return self.joined_names.split("/")

    def frame_path(self, name: str) -> Path:
        """The image of a frame."""
        return self.frames / f"{name}{self.suffix}"

    def mask_path(self, name: str) -> Path:
        """The mask of a frame."""
        return self.masks / f"{name}.png"


def find_davis(root: Path, subset: str = "") -> list[TrainingVideo]:
    """DAVIS 2017's training videos at 480p, or those of a list.

    Raises:
        FileNotFoundError, ValueError: with all that is missing.
    """
    base, listing = find_2017(root, "train")
    names = read_sequences(Path(subset) if subset else listing)
    return _find(at_480p(base / "JPEGImages"), at_480p(base / "Annotations"), names)


def find_youtube(root: Path, subset: str = "") -> list[TrainingVideo]:
    """YouTube-VOS' training videos at 480p, or those of a list; see `find_davis`."""
    base = root / "train_480p"
    names = read_sequences(Path(subset)) if subset else None
    hint = "resize the training set with scripts/resize_youtube.py, or say where it is: --yv_root"
    return _find(base / "JPEGImages", base / "Annotations", names, hint)


def find_bl30k(root: Path) -> list[TrainingVideo]:
    """BL30K's videos; see `find_davis`."""
    hint = "get it with scripts/download_bl30k.py, or say where it is: --bl_root"
    return _find(root / "JPEGImages", root / "Annotations", None, hint)


def _find(
    frames: Path, masks: Path, names: Iterable[str] | None, hint: str = ""
) -> list[TrainingVideo]:
    """The videos of these names (None: all) that have at least three annotated frames."""
    missing = [str(folder) for folder in (frames, masks) if not folder.is_dir()]
    if missing:
        raise ProblemsError([f"there is no folder {name}{hint and ': '}{hint}" for name in missing])
    if names is None:
        names = sorted(p.name for p in masks.iterdir() if p.is_dir() and p.name[0] != ".")

    def make(name: str) -> TrainingVideo | str | None:
        try:
            return _make(frames / name, masks / name)
        except (ValueError, FileNotFoundError, NotADirectoryError) as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        made = list(pool.map(make, names))
    problems = [item for item in made if isinstance(item, str)]
    videos = [item for item in made if isinstance(item, TrainingVideo)]
    if not videos and not problems:
        problems = [f"{masks} holds no video of {LEAST_FRAMES} or more annotated frames"]
    if problems:
        raise ProblemsError(problems)
    return videos


def _make(frames: Path, masks: Path) -> TrainingVideo | None:
    for folder in (frames, masks):
        if not folder.is_dir():
            raise FileNotFoundError(f"video {frames.name} has no folder {folder}")
    files = {}
    for file in os.listdir(frames):
        stem, suffix = os.path.splitext(file)
        if suffix.lower() in IMAGE_SUFFIXES and not stem.startswith("."):
            files[stem] = suffix
    names = [
        stem
        for stem, suffix in map(os.path.splitext, os.listdir(masks))
        if suffix == ".png" and not stem.startswith(".")
    ]
    lacking = sorted((name for name in names if name not in files), key=natural_key)
    if lacking:
        raise FileNotFoundError(
            f"{len(lacking)} masks of video {frames.name} have no frame in {frames}, for example "
            f"{lacking[0]}: extract the frames again"
        )
    suffixes = {files[name] for name in names}
    if len(suffixes) > 1:
        raise ValueError(f"the frames in {frames} are of several kinds: {', '.join(suffixes)}")
    if len(names) < LEAST_FRAMES:
        return None
    return TrainingVideo(frames, masks, suffixes.pop(), "/".join(sorted(names, key=natural_key)))
