"""Checks of the values of options."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args, get_origin, get_type_hints

from util.hyper_para import LEFT_OUT, EvalSettings, TrainSettings
from util.presets import POLICY_OPTIONS

# Range of the shorter side that videos are segmented at, in pixels.
MIN_SIZE, MAX_SIZE = 32, 8640
MAX_BATCH = 64


def check_train(settings: TrainSettings) -> None:
    """Check the options of train.py.

    Raises:
        ValueError: options are out of range or contradict each other.
    """
    if not settings.id:
        raise ValueError("--id is missing: name the run, such as --id retrain_s0.")
    if "/" in settings.id or settings.id.startswith("."):
        raise ValueError(
            f"--id {settings.id} becomes a folder in --save_dir: it must not contain '/' or start "
            "with a dot."
        )
    for name in (
        "batch_size", "iterations", "report_interval", "image_interval", "save_interval",
        "keep_last",
    ):  # fmt: skip
        if getattr(settings, name) < 1:
            raise ValueError(f"--{name} must be at least 1.")
    if settings.crop_size < 16 or settings.crop_size % 16:
        raise ValueError(f"--crop_size {settings.crop_size} is not a multiple of 16.")
    if settings.num_frames < 3:
        raise ValueError("--num_frames must be at least 3.")
    if settings.static_objects not in (1, 2):
        raise ValueError("--static_objects must be 1 or 2.")
    if not 0 <= settings.static_share < 1:
        raise ValueError("--static_share must be from 0 to below 1.")
    if not 0 <= settings.paste_share <= 1:
        raise ValueError("--paste_share must be from 0 to 1.")
    if not 0 <= settings.max_bad_share <= 1:
        raise ValueError("--max_bad_share must be from 0 to 1.")
    if settings.stage in ("2", "3") and settings.davis_root == settings.yv_root == LEFT_OUT:
        raise ValueError(
            "--davis_root none and --yv_root none leave no data: give one of the folders."
        )
    for name in ("davis", "yv"):
        if getattr(settings, f"{name}_root") == LEFT_OUT and getattr(settings, f"{name}_subset"):
            raise ValueError(f"--{name}_subset does nothing with --{name}_root none.")
    if not 0 <= settings.frozen_layers <= 3:
        raise ValueError("--frozen_layers must be from 0 (no layer is frozen) to 3.")
    if settings.global_batch < 0:
        raise ValueError("--global_batch must be 0 (--batch_size on each process) or more.")
    if settings.num_workers < 0:
        raise ValueError("--num_workers must be 0 or more.")
    if not 0 <= settings.seed < 2**63:
        raise ValueError("--seed must be from 0 to 2^63 - 1.")
    _check_jumps(settings)
    _check_perturbation(settings)
    _check_rates(settings)
    if settings.no_amp and settings.precision not in ("auto", "float32"):
        raise ValueError(f"--no_amp and --precision {settings.precision} contradict each other.")
    if settings.load_network and settings.backbone_weights == LEFT_OUT:
        raise ValueError("--backbone_weights none has no effect with --load_network.")
    if settings.load_network and settings.load_model not in ("", "auto"):
        raise ValueError(
            "--load_network starts a new run and --load_model resumes one: give one of them."
        )


def _check_rates(settings: TrainSettings) -> None:
    for name in ("lr", "backbone_lr", "gamma", "weight_decay"):
        if not 0 <= getattr(settings, name) < math.inf:  # also refuses nan
            raise ValueError(f"--{name} must be a finite number, 0 or more.")
    if settings.lr == 0:
        raise ValueError("--lr must be above 0.")
    if min([*settings.steps, *settings.milestones, settings.start_warm], default=0) < 0:
        raise ValueError("--steps, --milestones and --start_warm are iterations, 0 or more.")
    if settings.start_warm > settings.end_warm:
        raise ValueError(
            f"--start_warm {settings.start_warm} is later than --end_warm {settings.end_warm}."
        )


def _check_jumps(settings: TrainSettings) -> None:
    if settings.stage == "0":
        return
    jumps, fractions = settings.jumps, settings.jump_fractions
    if len(jumps) != len(fractions) + 1:
        raise ValueError(
            f"There are {len(jumps)} --jumps and {len(fractions)} --jump_fractions: give one jump "
            "more, which applies from the start."
        )
    if settings.davis_jumps and len(settings.davis_jumps) != len(jumps):
        raise ValueError(
            f"--davis_jumps must have as many values as --jumps ({len(jumps)}), or none."
        )
    if min([*jumps, *settings.davis_jumps]) < 1:
        raise ValueError("--jumps and --davis_jumps must be at least 1.")
    if fractions != sorted(fractions) or not all(0 <= f <= 1 for f in fractions):
        raise ValueError("--jump_fractions must increase, from 0 to 1.")


def _check_perturbation(settings: TrainSettings) -> None:
    low, high = settings.perturb_min, settings.perturb_max
    if (low is None) != (high is None):
        raise ValueError("--perturb_min and --perturb_max belong together: give both.")
    if low is not None and high is not None and not 0 <= low <= high <= 1:
        raise ValueError(
            f"--perturb_min {low} and --perturb_max {high} must increase, from 0 to 1."
        )
    for name in ("klloss_weight", "decoder_f2_weight", "decoder_f4_weight"):
        if not 0 <= getattr(settings, name) < math.inf:
            raise ValueError(f"--{name} must be a finite number, 0 or more.")
    if settings.repeat < 0:
        raise ValueError("--repeat must be 0 or more.")


def check_eval(settings: EvalSettings) -> None:
    """Check the options of an eval script.

    Raises:
        ValueError: options are out of range or contradict each other.
    """
    if not settings.output:
        raise ValueError("--output is missing: give the folder for the masks.")
    if bool(settings.video) != bool(settings.mask):
        raise ValueError("--video and --mask belong together: give both.")
    if settings.video and settings.data_path != EvalSettings.data_path:
        raise ValueError("--video and --data_path both name videos: give one of them.")
    check_predictor(settings)


def check_predictor(settings: EvalSettings) -> None:
    """Check the options of a predictor, which also come from Python.

    Raises:
        ValueError: options are out of range or contradict each other.
    """
    check_types(settings)
    _check_choices(settings)
    _check_memory(settings)
    _check_size(settings)
    if not 0 <= settings.encode_batch <= MAX_BATCH:
        raise ValueError(f"--encode_batch must be from 0 (automatic) to {MAX_BATCH}.")
    is_half = settings.amp or settings.precision not in ("auto", "float32")
    if settings.exact and is_half:
        raise ValueError("--exact needs float32: remove --amp and --precision.")
    if settings.mem_half and is_half:
        raise ValueError("--mem_half needs float32: half precision already halves the memory.")
    if settings.amp and settings.precision == "float32":
        raise ValueError("--amp and --precision float32 contradict each other.")


def check_types(settings: EvalSettings) -> None:
    """Check the types of options, which the command line converts but Python does not.

    Raises:
        ValueError: a value has another type, or is not finite.
    """
    for name, kind in get_type_hints(EvalSettings).items():
        value = getattr(settings, name)
        kinds = get_args(kind) if type(None) in get_args(kind) else (kind,)
        if not any(_has_type(value, k) for k in kinds):
            words = " or ".join(_describe_type(k) for k in kinds)
            raise ValueError(f"--{name} must be {words}, not {value!r}.")


def _describe_type(kind: Any) -> str:
    if kind is type(None):
        return "None"
    return "str" if get_origin(kind) is Literal else kind.__name__


def _has_type(value: object, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str)
    if get_origin(kind) is list:
        items = value if isinstance(value, list | tuple) else None
        return items is not None and all(_has_type(item, get_args(kind)[0]) for item in items)
    if kind is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _check_choices(settings: EvalSettings) -> None:
    for name, kind in get_type_hints(EvalSettings).items():
        value = getattr(settings, name)
        for literal in (k for k in (kind, *get_args(kind)) if get_origin(k) is Literal):
            if value is not None and value not in get_args(literal):
                choices = ", ".join(choice for choice in get_args(literal) if choice)
                raise ValueError(f"There is no --{name} {value}: choose from {choices}.")


def _check_memory(settings: EvalSettings) -> None:
    if settings.memory is not None and settings.memory not in POLICY_OPTIONS:
        raise ValueError(
            f"There is no --memory {settings.memory}: choose from {', '.join(POLICY_OPTIONS)}."
        )
    if settings.mem_every is not None and settings.mem_every < 1:
        raise ValueError("--mem_every must be at least 1.")
    for name, zero in (("top", "all rows"), ("mem_capacity", "unlimited"), ("sample_seed", "")):
        value = getattr(settings, name)
        if value is not None and value < 0:
            raise ValueError(f"--{name} must be 0{f' ({zero})' if zero else ''} or more.")
    if settings.no_top and settings.top:
        raise ValueError(f"--no_top and --top {settings.top} contradict each other.")


def _check_size(settings: EvalSettings) -> None:
    if not settings.scales or not all(0.1 <= scale <= 8 for scale in settings.scales):
        raise ValueError("--scales must be one or more numbers from 0.1 to 8, such as 1 1.25.")
    if settings.size != 0 and settings.size < MIN_SIZE:
        raise ValueError(
            f"--size must be 0 (native) or at least {MIN_SIZE}: features have a stride of 16 "
            "pixels."
        )
    if (settings.shorter_side or 0) > MAX_SIZE:
        raise ValueError(
            f"--size {settings.size} times the largest of --scales exceeds {MAX_SIZE} pixels."
        )
