"""Command lines to settings: default < method < stage < command line, checked, in sentences."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

from util.command_line import Parser, add_fields, flag_names
from util.hyper_para import EvalSettings, TrainSettings
from util.presets import (
    DEBUG_PRESET,
    EVAL_METHOD_PRESETS,
    EVAL_PRESETS,
    EVAL_SCRIPTS,
    METHOD_PRESETS,
    POLICY_OPTIONS,
    STAGE_PRESETS,
)

# Of the shorter side that videos are segmented at.
LEAST_SIZE, LARGEST_SIZE = 32, 8640
LARGEST_BATCH = 64


def parse_train(argv: list[str] | None = None) -> list[TrainSettings]:
    """Settings of train.py, one for each stage in turn; exits with a sentence where they are wrong.

    With several stages, run <id>_s0 is followed by <id>_s03, which starts from its last weights.
    """
    parser = Parser(
        prog="train.py",
        description="Train a network.",
        others=_flags_by_script("train.py"),
    )
    add_fields(parser, dataclasses.fields(TrainSettings), TrainSettings)
    given = _parse(parser, argv)

    method, stages = _pick_method(given, parser), given.get("stage", "0")
    ready = [s for m, s in STAGE_PRESETS if m == method]
    if not stages or [*stages] != sorted({*stages} & {*ready}):
        parser.error(
            f"--stage {stages} of {method} cannot be trained: there is {', '.join(ready)}, and "
            "any of them in rising order, such as 03."
        )
    for f in dataclasses.fields(TrainSettings):
        only = f.metadata["only"]
        if f.name in given and only and not {*only} & {*stages}:
            parser.error(f"--{f.name} does nothing in stage {stages}, but in {', '.join(only)}.")
    recipe = [_stage_settings(method, stage, given) for stage in stages]
    for settings in recipe:
        _check_train(settings, parser)
    return _chain(recipe, parser) if len(recipe) > 1 else recipe


def _parse(parser: Parser, argv: list[str] | None) -> dict[str, Any]:
    """What the command line says."""
    # torch.distributed.launch passes one of the two spellings; the environment says the same.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    given = vars(parser.parse_args(argv))
    given.pop("local_rank", None)
    return given


def _pick_method(given: dict[str, Any], parser: argparse.ArgumentParser) -> str:
    """The method asked for; without one, that of a flag which only one method has."""
    owned = [f for f in dataclasses.fields(TrainSettings) if f.metadata["methods"]]
    owned = [f for f in owned if f.name in given]
    for f in sorted(owned, key=lambda f: len(f.metadata["methods"])):
        owners = f.metadata["methods"]
        if len(owners) == 1:
            given.setdefault("method", owners[0])
        if given.get("method") not in owners:
            asked = given.get("method", TrainSettings.method)
            parser.error(
                f"--{f.name} does nothing with --method {asked}, but with {' and '.join(owners)}: "
                "say which with --method."
            )
    method = given.setdefault("method", TrainSettings.method)
    if method not in METHOD_PRESETS:
        parser.error(f"There is no --method {method}: choose from {', '.join(METHOD_PRESETS)}.")
    return method


def _stage_settings(method: str, stage: str, given: dict[str, Any]) -> TrainSettings:
    values = {**METHOD_PRESETS[method], **STAGE_PRESETS[method, stage]}
    if "jumps" in given:  # DAVIS' own were chosen beside the preset's
        values.pop("davis_jumps", None)
    if given.get("debug"):
        values |= DEBUG_PRESET
    # A copy, since a preset's lists would be shared with it.
    return TrainSettings(**copy.deepcopy({**values, **given, "stage": stage}))


def _chain(recipe: list[TrainSettings], parser: argparse.ArgumentParser) -> list[TrainSettings]:
    """Name the runs of a recipe, and have each start from the last weights of the one before."""
    if recipe[0].load_model not in ("", "auto"):
        parser.error(
            "--load_model resumes one stage: with several, give --load_model auto, which goes on "
            "where they stopped."
        )
    name, done, before = recipe[0].id, "", None
    for settings in recipe:
        done += settings.stage
        settings.id = f"{name}_s{done}"
        if before is not None:
            settings.load_network = str(last_weights(before))
            settings.backbone_weights = TrainSettings.backbone_weights
        before = settings
    return recipe


def last_weights(settings: TrainSettings) -> Path:
    """The file of weights that a run ends with."""
    return Path(settings.save_dir) / settings.id / f"{settings.id}_{settings.iterations}.pth"


def parse_eval(script: str, argv: list[str] | None = None) -> EvalSettings:
    """Settings of an eval script ("davis", "davis_2016", "youtube", "generic")."""
    name = EVAL_SCRIPTS[script]
    parser = Parser(
        prog=name,
        description="Segment videos and write palette PNG masks.",
        others=_flags_by_script(name),
    )
    presets = EVAL_PRESETS[script]
    add_fields(parser, _eval_fields(script), EvalSettings, presets)
    settings = EvalSettings(**{**presets, **_parse(parser, argv)})
    _check_eval(settings, parser)
    return settings


def of_method(settings: EvalSettings, method: str) -> EvalSettings:
    """With what the command line left to the method filled in, by util/hyper_para.py's presets.

    Raises:
        ValueError: a setting does nothing with this memory.
    """
    own = {
        **EVAL_METHOD_PRESETS["stcn"],
        **EVAL_METHOD_PRESETS.get(method, {}),
        **EVAL_METHOD_PRESETS.get((method, settings.dataset), {}),
    }
    memory = settings.memory or own["memory"]
    known = POLICY_OPTIONS[memory]
    every = dict.fromkeys(name for names in POLICY_OPTIONS.values() for name in names)
    for name in every:
        if name not in known and _is_given(settings, name):
            owners = ", ".join(m for m, names in POLICY_OPTIONS.items() if name in names)
            raise ValueError(
                f"--{name} does nothing with --memory {memory}, which is that of {method}"
                f"{' by default' if not settings.memory else ' here'}: it belongs to {owners}."
            )
    if memory != own["memory"]:  # its numbers were chosen for another one
        own = {name: value for name, value in own.items() if name in ("top", "mem_every")}
    own = {k: v for k, v in own.items() if not _is_given(settings, k)}
    if settings.no_top:
        own["top"] = 0
    return dataclasses.replace(settings, **copy.deepcopy({**own, "memory": memory}))


def policy_settings(settings: EvalSettings) -> dict[str, Any]:
    """What the command line or the method says of the memory; the rest is as the policy has it."""
    names = POLICY_OPTIONS[settings.memory]
    return {name: getattr(settings, name) for name in names if _is_given(settings, name)}


def _is_given(settings: EvalSettings, name: str) -> bool:
    return getattr(settings, name) != getattr(_UNSET, name)


_UNSET = EvalSettings()


def _check_train(settings: TrainSettings, parser: argparse.ArgumentParser) -> None:
    if not settings.id:
        parser.error("--id is missing: give the run a name, such as --id retrain_s0.")
    if "/" in settings.id or settings.id.startswith("."):
        parser.error(f"--id {settings.id} names a folder in --save_dir: leave out '/' and dots.")
    for name in (
        "batch_size", "iterations", "report_interval", "image_interval", "save_interval",
        "keep_last",
    ):  # fmt: skip
        if getattr(settings, name) < 1:
            parser.error(f"--{name} must be at least 1.")
    if settings.crop_size < 16 or settings.crop_size % 16:
        parser.error(f"--crop_size {settings.crop_size} is no multiple of 16.")
    if settings.num_frames < 3:
        parser.error("--num_frames must be at least 3.")
    if settings.global_batch < 0:
        parser.error("--global_batch must be 0 (--batch_size on each process) or more.")
    _check_jumps(settings, parser)
    _check_perturbation(settings, parser)
    if settings.num_workers < 0:
        parser.error("--num_workers must be 0 or more.")
    if settings.seed < 0:
        parser.error("--seed must be 0 or more.")
    for name in ("lr", "backbone_lr", "gamma", "weight_decay"):
        if not 0 <= getattr(settings, name) < math.inf:  # nan is not
            parser.error(f"--{name} must be a number from 0 up.")
    if settings.lr == 0:
        parser.error("--lr must be above 0.")
    if min([*settings.steps, *settings.milestones, settings.start_warm], default=0) < 0:
        parser.error("--steps, --milestones and --start_warm count iterations, from 0 up.")
    if settings.seed >= 2**63:
        parser.error("--seed must be under 2^63.")
    if settings.start_warm > settings.end_warm:
        parser.error(
            f"--start_warm {settings.start_warm} lies after --end_warm {settings.end_warm}."
        )
    if settings.no_amp and settings.precision not in ("auto", "float32"):
        parser.error(f"--no_amp and --precision {settings.precision} contradict each other.")
    if settings.load_network and settings.backbone_weights == "none":
        parser.error("--backbone_weights none does nothing beside --load_network.")
    if settings.load_network and settings.load_model not in ("", "auto"):
        parser.error(
            "--load_network starts a new run and --load_model resumes one: give one of them."
        )


def _check_jumps(settings: TrainSettings, parser: argparse.ArgumentParser) -> None:
    if settings.stage == "0":
        return
    jumps, fractions = settings.jumps, settings.jump_fractions
    if len(jumps) != len(fractions) + 1:
        parser.error(
            f"There are {len(jumps)} --jumps and {len(fractions)} --jump_fractions: there must be "
            "one more of the former, which holds from the start."
        )
    if settings.davis_jumps and len(settings.davis_jumps) != len(jumps):
        parser.error(f"There must be as many --davis_jumps as --jumps: {len(jumps)}, or none.")
    if min([*jumps, *settings.davis_jumps]) < 1:
        parser.error("--jumps and --davis_jumps must be at least 1.")
    if fractions != sorted(fractions) or not all(0 <= f <= 1 for f in fractions):
        parser.error("--jump_fractions must rise, from 0 to 1.")


def _check_perturbation(settings: TrainSettings, parser: argparse.ArgumentParser) -> None:
    low, high = settings.perturb_min, settings.perturb_max
    if (low is None) != (high is None):
        parser.error("--perturb_min and --perturb_max belong together: give both.")
    if low is not None and high is not None and not 0 <= low <= high <= 1:
        parser.error(f"--perturb_min {low} and --perturb_max {high} must rise, from 0 to 1.")
    for name in ("klloss_weight", "decoder_f2_weight", "decoder_f4_weight"):
        if not 0 <= getattr(settings, name) < math.inf:
            parser.error(f"--{name} must be a number from 0 up.")
    if settings.repeat < 0:
        parser.error("--repeat must be 0 or more.")


def _check_eval(settings: EvalSettings, parser: argparse.ArgumentParser) -> None:
    if not settings.output:
        parser.error("--output is missing: give the folder for the masks.")
    if settings.mem_every < 0:
        parser.error("--mem_every must be at least 1, or 0 for the method's own.")
    if settings.top < -1:
        parser.error("--top must be 0 (all rows) or more, or -1 for the method's own.")
    if bool(settings.video) != bool(settings.mask):
        parser.error("--video and --mask belong together: give both.")
    if settings.video and _is_given(settings, "data_path"):
        parser.error("--video and --data_path are two places for videos: give one of them.")
    if settings.memory and settings.memory not in POLICY_OPTIONS:
        parser.error(
            f"There is no --memory {settings.memory}: choose from {', '.join(POLICY_OPTIONS)}."
        )
    if settings.no_top and settings.top > 0:
        parser.error(f"--no_top and --top {settings.top} contradict each other.")
    if settings.mem_capacity is not None and settings.mem_capacity < 0:
        parser.error("--mem_capacity must be 0 (any number of frames) or more.")
    if settings.sample_seed is not None and settings.sample_seed < 0:
        parser.error("--sample_seed must be 0 or more.")
    if not 0 <= settings.encode_batch <= LARGEST_BATCH:
        parser.error(f"--encode_batch must lie between 0 (as many as pay) and {LARGEST_BATCH}.")
    if not settings.scales or not all(0.1 <= scale <= 8 for scale in settings.scales):
        parser.error("--scales are one or more numbers from 0.1 to 8, such as 1 1.25.")
    if settings.size and settings.size < LEAST_SIZE:
        parser.error(
            f"--size must be 0 (the frames' own) or at least {LEAST_SIZE}: the network sees one "
            "position in 16 pixels."
        )
    if (settings.shorter_side or 0) > LARGEST_SIZE:
        parser.error(
            f"--size {settings.size} times the largest of --scales is over {LARGEST_SIZE}: frames "
            "are resized to it before anything else."
        )
    if settings.exact and (settings.amp or settings.precision not in ("auto", "float32")):
        parser.error("--exact is float32: leave --amp and --precision away.")
    if settings.mem_half and (settings.amp or settings.precision not in ("auto", "float32")):
        parser.error("--mem_half is for float32: in half precision memory is as small anyway.")
    if settings.amp and settings.precision == "float32":
        parser.error("--amp and --precision float32 contradict each other.")


def _eval_fields(script: str) -> list[dataclasses.Field]:
    return [
        f
        for f in dataclasses.fields(EvalSettings)
        if not f.metadata["only"] or script in f.metadata["only"]
    ]


def _flags_by_script(but: str) -> dict[str, list[str]]:
    """flag -> the other scripts that have it, to point at them."""
    found: dict[str, list[str]] = {}
    tables = [("train.py", dataclasses.fields(TrainSettings))]
    tables += [(name, tuple(_eval_fields(key))) for key, name in EVAL_SCRIPTS.items()]
    for script, fields in tables:
        for flag in (n for f in fields for n in flag_names(f)):
            if script != but:
                found.setdefault(flag, []).append(script)
    return found
