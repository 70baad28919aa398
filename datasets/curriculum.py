"""Training data of each stage and its sampling weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from datasets.clips import MixedClips, Perturbation, TrainingClips
from datasets.static import (
    PUBLISHED_SETS,
    StaticClips,
    StaticPairs,
    find_static_pairs,
    mix_static,
)
from datasets.training_videos import JumpSchedule, VideoClips, VideoSet
from datasets.video_list import find_bl30k, find_davis, find_youtube
from util.hyper_para import LEFT_OUT, TrainSettings

# DAVIS is small, and all its frames are annotated: the mixture repeats it five times.
_DAVIS_REPEATS = 5
# YouTube-VOS is annotated every fifth frame.
_YOUTUBE_STEP = 5
_BL30K_MIN_CROP_AREA = 0.25

_Found = TypeVar("_Found")


class StageData(NamedTuple):
    """Training data of one stage."""

    static: StaticPairs  # of stage 0, and of other stages with --static_share
    videos: list[VideoSet]  # of stages 1 to 3


def _find_static(settings: TrainSettings) -> StaticPairs:
    return find_static_pairs(Path(settings.static_root))


def _find_bl30k(settings: TrainSettings, shows_progress: bool) -> VideoSet:
    videos = find_bl30k(Path(settings.bl_root), shows_progress)
    return VideoSet("BL30K", videos, min_crop_area=_BL30K_MIN_CROP_AREA, skips_small_objects=True)


def _find_davis(settings: TrainSettings, shows_progress: bool) -> VideoSet:
    videos = find_davis(Path(settings.davis_root), settings.davis_subset)
    return VideoSet("DAVIS", videos, _DAVIS_REPEATS, settings.davis_jumps)


def _find_youtube(settings: TrainSettings, shows_progress: bool) -> VideoSet:
    videos = find_youtube(Path(settings.yv_root), settings.yv_subset, shows_progress)
    return VideoSet("YouTube", videos, jump_divisor=_YOUTUBE_STEP)


_Finder = Callable[[TrainSettings, bool], VideoSet]

_VIDEO_STAGES: dict[str, list[_Finder]] = {
    "0": [],
    "1": [_find_bl30k],
    "2": [_find_davis, _find_youtube],
    "3": [_find_davis, _find_youtube],
}


def find_data(recipe: Sequence[TrainSettings], shows_progress: bool = False) -> list[StageData]:
    """Find the training data of every stage of a recipe.

    Data sets whose folder is `LEFT_OUT` are skipped.

    Args:
        recipe: settings of all stages.
        shows_progress: draw a progress bar for data sets with many videos.

    Raises:
        ValueError: data is missing; the message lists the problems of all stages.
    """
    stages: list[StageData] = []
    problems: list[str] = []

    def collect(stage: str, find: Callable[[], _Found]) -> list[_Found]:
        try:
            return [find()]
        except (ValueError, FileNotFoundError) as error:
            problems.append(f"Stage {stage}: {error}")
            return []

    for settings in recipe:
        needs_static = settings.stage == "0" or settings.static_share > 0
        stage = settings.stage
        static = collect(stage, partial(_find_static, settings)) if needs_static else []
        roots: dict[_Finder, str] = {
            _find_davis: settings.davis_root,
            _find_youtube: settings.yv_root,
        }
        finders = [find for find in _VIDEO_STAGES[settings.stage] if roots.get(find) != LEFT_OUT]
        videos = [
            found
            for find in finders
            for found in collect(stage, partial(find, settings, shows_progress))
        ]
        stages.append(StageData(static[0] if static else {}, videos))
    if problems:
        raise ValueError("\n".join(problems))
    return stages


def absent_data(stage: str, sizes: dict[str, int]) -> list[str]:
    """List the data sets of the published mixture of a stage that are not in `sizes`."""
    published = {"0": PUBLISHED_SETS, "1": ("BL30K",)}.get(stage, ("DAVIS", "YouTube"))
    return [name for name in published if name not in sizes]


def stage_clips(settings: TrainSettings, data: StageData, clips_per_update: int) -> TrainingClips:
    """Build the training set of one stage.

    Args:
        settings: settings of the stage.
        data: data of the stage, from `find_data`.
        clips_per_update: clips per update over all processes; it sets the number of epochs.
    """
    perturbation = None
    if settings.perturb_min is not None and settings.perturb_max is not None:
        perturbation = (settings.perturb_min, settings.perturb_max)
    if not data.videos:
        return _static_clips(settings, data.static, perturbation, settings.static_objects)
    num_videos = sum(len(videos.videos) * videos.repeats for videos in data.videos)
    num_static = round(num_videos * settings.static_share / (1 - settings.static_share))
    num_epochs = math.ceil(settings.iterations * clips_per_update / (num_videos + num_static))
    jumps = JumpSchedule(settings.jumps, settings.jump_fractions, num_epochs)
    clips = VideoClips(
        data.videos, jumps, settings.crop_size, settings.num_frames, settings.seed, perturbation,
        settings.paste_share,
    )  # fmt: skip
    if num_static == 0:
        return clips
    # Clips of videos have up to two objects. Static clips must have as many, to fit into a batch.
    static = _static_clips(settings, data.static, perturbation, num_objects=2)
    return MixedClips(clips, static, num_static, settings.seed)


def _static_clips(
    settings: TrainSettings, static: StaticPairs, perturbation: Perturbation, num_objects: int
) -> StaticClips:
    return StaticClips(
        mix_static(static),
        settings.crop_size,
        settings.num_frames,
        settings.seed,
        {name: len(pairs) for name, pairs in static.items()},
        perturbation,
        num_objects,
    )
