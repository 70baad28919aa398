"""The data of each training stage: what is mixed, and how often."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets.clips import TrainingClips
from datasets.static import StaticClips, find_static_pairs, mix_static
from datasets.training_videos import JumpSchedule, VideoClips, VideoSet
from datasets.video_list import find_bl30k, find_davis, find_youtube
from util.hyper_para import TrainSettings

# DAVIS is small and every frame of it is annotated: it counts five times beside YouTube-VOS.
_DAVIS_REPEATS = 5
# YouTube-VOS is annotated every fifth frame.
_YOUTUBE_STEP = 5
_BL30K_CROP = 0.25


def _static(settings: TrainSettings) -> dict[str, list[tuple[Path, Path]]]:
    return find_static_pairs(Path(settings.static_root))


def _bl30k(settings: TrainSettings) -> VideoSet:
    videos = find_bl30k(Path(settings.bl_root))
    return VideoSet("BL30K", videos, smallest_crop=_BL30K_CROP, is_cluttered=True)


def _davis(settings: TrainSettings) -> VideoSet:
    videos = find_davis(Path(settings.davis_root), settings.davis_subset)
    return VideoSet("DAVIS", videos, _DAVIS_REPEATS, settings.davis_jumps)


def _youtube(settings: TrainSettings) -> VideoSet:
    videos = find_youtube(Path(settings.yv_root), settings.yv_subset)
    return VideoSet("YouTube", videos, jump_divisor=_YOUTUBE_STEP)


_PARTS: dict[str, list[Callable[[TrainSettings], Any]]] = {
    "0": [_static],
    "1": [_bl30k],
    "2": [_davis, _youtube],
    "3": [_davis, _youtube],
}


def find_data(recipe: Sequence[TrainSettings]) -> list[list[Any]]:
    """What each stage trains on, as `stage_clips` takes it.

    Raises:
        ValueError: all that is missing for all the stages.
    """
    found: list[list[Any]] = []
    problems = []
    for settings in recipe:
        found.append([])
        for part in _PARTS[settings.stage]:
            try:
                found[-1].append(part(settings))
            except (ValueError, FileNotFoundError) as error:
                problems.append(f"Stage {settings.stage}: {error}")
    if problems:
        raise ValueError("\n".join(problems))
    return found


def stage_clips(settings: TrainSettings, data: list[Any], clips_per_update: int) -> TrainingClips:
    """The training set of one stage, from its part of `find_data`."""
    options = (settings.crop_size, settings.num_frames, settings.seed)
    perturbation = None
    if settings.perturb_min is not None and settings.perturb_max is not None:
        perturbation = (settings.perturb_min, settings.perturb_max)
    if settings.stage == "0":
        sizes = {name: len(pairs) for name, pairs in data[0].items()}
        return StaticClips(mix_static(data[0]), *options, sizes, perturbation)
    num_clips = sum(len(videos.videos) * videos.repeats for videos in data)
    num_epochs = math.ceil(settings.iterations * clips_per_update / num_clips)
    jumps = JumpSchedule(settings.jumps, settings.jump_fractions, num_epochs)
    return VideoClips(data, jumps, *options, perturbation)
