"""Lists of annotated training videos and their files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import progressbar

from datasets.davis import at_480p, find_2017, read_sequences
from datasets.video import ProblemsError
from util.images import IMAGE_SUFFIXES, natural_key

# A clip has this many different frames, except near the end of a video.
MIN_FRAMES = 3

_BATCH = 500  # videos whose files one task lists
_SUFFIXES = {suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES}


class TrainingVideo(NamedTuple):
    """Files of one video.

    All frame names are joined in one string to save memory: BL30K has 4.8 million frames.
    """

    frames: Path
    masks: Path
    suffix: str  # suffix of the frame files
    joined_names: str  # stems of the annotated frames in order, joined by "/"

    @property
    def name(self) -> str:
        """Name of the video."""
        return self.frames.name

    @property
    def names(self) -> list[str]:
        """Stems of the annotated frames in order."""
        return self.joined_names.split("/")

    def frame_path(self, name: str) -> Path:
        """Image file of a frame."""
        return self.frames / f"{name}{self.suffix}"

    def mask_path(self, name: str) -> Path:
        """Mask file of a frame."""
        return self.masks / f"{name}.png"


def find_davis(root: Path, subset: str = "") -> list[TrainingVideo]:
    """Find the 480p training videos of DAVIS 2017.

    Args:
        root: folder of DAVIS; see `davis_2017`.
        subset: file with the names of the videos to use; empty uses all.

    Raises:
        FileNotFoundError, ValueError: files are missing; the message lists all problems.
    """
    base, listing = find_2017(root, "train")
    names = read_sequences(Path(subset) if subset else listing)
    return _find(at_480p(base / "JPEGImages"), at_480p(base / "Annotations"), names)


def find_youtube(root: Path, subset: str = "", shows_progress: bool = False) -> list[TrainingVideo]:
    """Find the training videos of YouTube-VOS in root/train_480p; see `find_davis`."""
    base = root / "train_480p"
    names = read_sequences(Path(subset)) if subset else None
    hint = "resize the training set with scripts/resize_youtube.py, or give its folder: --yv_root"
    return _find(base / "JPEGImages", base / "Annotations", names, hint, shows_progress)


def find_bl30k(root: Path, shows_progress: bool = False) -> list[TrainingVideo]:
    """Find the videos of BL30K; see `find_davis`."""
    hint = "download it with scripts/download_bl30k.py, or give its folder: --bl_root"
    return _find(root / "JPEGImages", root / "Annotations", None, hint, shows_progress)


def _find(
    frames: Path,
    masks: Path,
    names: Iterable[str] | None,
    hint: str = "",
    shows_progress: bool = False,
) -> list[TrainingVideo]:
    """Find the videos with at least three annotated frames.

    Args:
        frames, masks: folders with one folder for each video.
        names: names of the videos; None takes all.
        hint: how to get the data set, for the message of a missing folder.
        shows_progress: draw a progress bar if there are many videos.
    """
    missing = [str(folder) for folder in (frames, masks) if not folder.is_dir()]
    if missing:
        raise ProblemsError(
            [f"the folder {name} does not exist{hint and ': '}{hint}" for name in missing]
        )
    if names is None:
        names = sorted(p.name for p in masks.iterdir() if p.is_dir() and p.name[0] != ".")

    def make(name: str) -> TrainingVideo | str | None:
        try:
            return _make(frames / name, masks / name)
        except (ValueError, FileNotFoundError, NotADirectoryError) as error:
            return str(error)

    names = [*names]
    batches = [names[start : start + _BATCH] for start in range(0, len(names), _BATCH)]
    shows_progress = shows_progress and len(batches) > 1
    results = []
    # A batch per task: the task of a single video takes longer than its files.
    with ThreadPoolExecutor() as pool, _open_bar(len(names), shows_progress) as bar:
        for batch in pool.map(lambda batch: [*map(make, batch)], batches):
            results += batch
            bar.update(len(results))
    problems = [result for result in results if isinstance(result, str)]
    videos = [result for result in results if isinstance(result, TrainingVideo)]
    if not videos and not problems:
        problems = [
            f"{masks} contains no video with {MIN_FRAMES} or more annotated frames: unpack the "
            "data set again"
        ]
    if problems:
        raise ProblemsError(problems)
    return videos


def _open_bar(num_videos: int, is_shown: bool) -> progressbar.ProgressBar:
    widgets = [
        f"finding {num_videos} videos: ", progressbar.Percentage(), " ", progressbar.Bar(), " ",
        progressbar.ETA(),
    ]  # fmt: skip
    bar_type = progressbar.ProgressBar if is_shown else progressbar.NullBar
    return bar_type(max_value=num_videos, widgets=widgets)


def _make(frames: Path, masks: Path) -> TrainingVideo | None:
    for folder in (frames, masks):
        if not folder.is_dir():
            raise FileNotFoundError(
                f"video {frames.name} has no folder {folder}: unpack the data set again"
            )
    files = _list_images(frames)
    names = _sort_naturally(
        [file[:-4] for file in os.listdir(masks) if file.endswith(".png") and file[0] != "."]
    )
    missing = [name for name in names if name not in files]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} masks of video {frames.name} have no frame in {frames}, for example "
            f"{missing[0]}: extract the frames again"
        )
    suffixes = {files[name] for name in names}
    if len(suffixes) > 1:
        raise ValueError(
            f"the frames in {frames} have several file types, {', '.join(suffixes)}: convert them "
            "to one type"
        )
    if len(names) < MIN_FRAMES:
        return None
    return TrainingVideo(frames, masks, suffixes.pop(), "/".join(names))


def _list_images(folder: Path) -> dict[str, str]:
    """Map the stems of the images of a folder to their suffixes as written."""
    suffixes = {}
    for file in os.listdir(folder):
        stem, _, suffix = file.rpartition(".")
        if (suffix in _SUFFIXES or suffix.lower() in _SUFFIXES) and stem and stem[0] != ".":
            suffixes[stem] = f".{suffix}"
    return suffixes


def _sort_naturally(names: list[str]) -> list[str]:
    """Sort by `natural_key`, which is the order of the text for numbers of the same length."""
    joined = "".join(names)
    if joined.isdecimal() and joined.isascii() and len({*map(len, names)}) == 1:
        return sorted(names)
    return sorted(names, key=natural_key)
