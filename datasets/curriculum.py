"""Training data of each stage and its sampling weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from datasets.clips import TrainingClips
from datasets.static import StaticClips, StaticPairs, find_static_pairs, mix_static
from datasets.training_videos import JumpSchedule, VideoClips, VideoSet
from datasets.video_list import find_bl30k, find_davis, find_youtube
from util.hyper_para import TrainSettings

# Static images in stage 0, videos in stages 1 to 3.
StageData = StaticPairs | list[VideoSet]

# DAVIS is small, and all its frames are annotated: the mixture repeats it five times.
_DAVIS_REPEATS = 5
# YouTube-VOS is annotated every fifth frame.
_YOUTUBE_STEP = 5
_BL30K_MIN_CROP_AREA = 0.25

_Found = TypeVar("_Found")


def _find_static(settings: TrainSettings) -> StaticPairs:
    return find_static_pairs(Path(settings.static_root))


def _find_bl30k(settings: TrainSettings) -> VideoSet:
    videos = find_bl30k(Path(settings.bl_root))
    return VideoSet("BL30K", videos, min_crop_area=_BL30K_MIN_CROP_AREA, skips_small_objects=True)


def _find_davis(settings: TrainSettings) -> VideoSet:
    videos = find_davis(Path(settings.davis_root), settings.davis_subset)
    return VideoSet("DAVIS", videos, _DAVIS_REPEATS, settings.davis_jumps)


def _find_youtube(settings: TrainSettings) -> VideoSet:
    videos = find_youtube(Path(settings.yv_root), settings.yv_subset)
    return VideoSet("YouTube", videos, jump_divisor=_YOUTUBE_STEP)


_VIDEO_STAGES: dict[str, list[Callable[[TrainSettings], VideoSet]]] = {
    "1": [_find_bl30k],
    "2": [_find_davis, _find_youtube],
    "3": [_find_davis, _find_youtube],
}


def find_data(recipe: Sequence[TrainSettings]) -> list[StageData]:
    """Find the training data of every stage of a recipe.

    Raises:
        ValueError: data is missing; the message lists the problems of all stages.
    """
    stages: list[StageData] = []
    problems: list[str] = []

    def collect(find: Callable[[TrainSettings], _Found], settings: TrainSettings) -> list[_Found]:
        try:
            return [find(settings)]
        except (ValueError, FileNotFoundError) as error:
            problems.append(f"Stage {settings.stage}: {error}")
            return []

    for settings in recipe:
        if settings.stage == "0":
            stages += collect(_find_static, settings)
        else:
            finders = _VIDEO_STAGES[settings.stage]
            stages.append([videos for find in finders for videos in collect(find, settings)])
    if problems:
        raise ValueError("\n".join(problems))
    return stages


def stage_clips(settings: TrainSettings, data: StageData, clips_per_update: int) -> TrainingClips:
    """Build the training set of one stage.

    Args:
        settings: settings of the stage.
        data: data of the stage, from `find_data`.
        clips_per_update: clips per update over all processes; it sets the number of epochs.
    """
    options = (settings.crop_size, settings.num_frames, settings.seed)
    perturbation = None
    if settings.perturb_min is not None and settings.perturb_max is not None:
        perturbation = (settings.perturb_min, settings.perturb_max)
    if isinstance(data, dict):
        sizes = {name: len(pairs) for name, pairs in data.items()}
        return StaticClips(mix_static(data), *options, sizes, perturbation)
    num_clips = sum(len(videos.videos) * videos.repeats for videos in data)
    num_epochs = math.ceil(settings.iterations * clips_per_update / num_clips)
    jumps = JumpSchedule(settings.jumps, settings.jump_fractions, num_epochs)
    return VideoClips(data, jumps, *options, perturbation)
