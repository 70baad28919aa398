"""Check of the files of the training data, which are read as training reads them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets.curriculum import StageData
from datasets.static import read_training_mask
from datasets.training_videos import (
    check_frame_size,
    check_mask_sizes,
    check_num_labels,
    read_labels,
)
from datasets.video_list import TrainingVideo
from util.images import read_image
from util.masks import labels_of

_PAIRS_PER_GROUP = 50

# Files to check together: (image, mask) pairs, or a video.
FileGroup = tuple[tuple[Path, Path], ...] | TrainingVideo


def group_files(stages: Sequence[StageData]) -> list[FileGroup]:
    """Divide the files of all stages into groups; each file is in one of them."""
    pairs = dict.fromkeys(
        pair for data in stages for found in data.static.values() for pair in found
    )
    static = [*pairs]
    groups: list[FileGroup] = [
        tuple(static[start : start + _PAIRS_PER_GROUP])
        for start in range(0, len(static), _PAIRS_PER_GROUP)
    ]
    videos = [video for data in stages for found in data.videos for video in found.videos]
    return [*groups, *dict.fromkeys(videos)]


def count_pairs(group: FileGroup) -> int:
    """Count the images of a group; each has a mask."""
    return len(group.names) if isinstance(group, TrainingVideo) else len(group)


def check_files(group: FileGroup) -> list[str]:
    """Read all files of a group; return a sentence for each that training cannot use."""
    if isinstance(group, TrainingVideo):
        return _check_video(group)
    return [problem for pair in group for problem in _check_pair(*pair)]


def _check_pair(image_path: Path, mask_path: Path) -> list[str]:
    problems: list[str] = []
    size = None
    with _collect(problems):
        image = read_image(image_path)
        size = (image.shape[0], image.shape[1])
    with _collect(problems):
        read_training_mask(mask_path, size)
    return problems


def _check_video(video: TrainingVideo) -> list[str]:
    problems: list[str] = []
    mask_sizes = set()
    for name in video.names:
        frame, mask = video.frame_path(name), video.mask_path(name)
        size = None
        with _collect(problems):
            size = read_image(frame).shape[:2]
        with _collect(problems):
            labels = read_labels(mask)
            mask_sizes.add(labels.shape)
            check_num_labels(mask, len(labels_of(labels)))
            if size is not None:
                check_frame_size(frame, size, labels.shape)
    with _collect(problems):
        check_mask_sizes(video, mask_sizes)
    return problems


@contextlib.contextmanager
def _collect(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        problems.append(str(error))
