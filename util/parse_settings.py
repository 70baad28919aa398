"""From command lines to settings: default < method < stage < command line.

Only the standard library is imported, so that commands can parse before they import torch.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from util.check_settings import check_eval, check_train
from util.command_line import Parser, add_fields, flag_names
from util.hyper_para import EvalSettings, TrainSettings
from util.plugins import load_plugins
from util.presets import (
    DEBUG_PRESET,
    EVAL_METHOD_PRESETS,
    EVAL_PRESETS,
    EVAL_SCRIPTS,
    METHOD_PRESETS,
    POLICY_OPTIONS,
    STAGE_PRESETS,
)
from util.registration import check_options


def parse_train(argv: Sequence[str] | None = None, prog: str = "train.py") -> list[TrainSettings]:
    """Parse the command line of train.py into the settings of each stage.

    With several stages, run <id>_s0 is followed by <id>_s03, which starts from its last weights.
    Plugins are imported first. Wrong options exit with a sentence, which starts with `prog`.
    """
    parser = Parser(prog=prog, description="Train a network.", others=_commands_by_flag("train.py"))
    _import_plugins(parser, argv)
    add_fields(parser, dataclasses.fields(TrainSettings), TrainSettings, _describe(parser, argv))
    given = _parse(parser, argv)

    method, stages = _pick_method(given, parser), given.get("stage", "0")
    known = [s for m, s in STAGE_PRESETS if m == method]
    if not stages or [*stages] != sorted({*stages} & {*known}):
        parser.error(
            f"--stage {stages} of {method} cannot be trained: choose from {', '.join(known)}, or "
            "several of them in ascending order, such as 03."
        )
    for f in dataclasses.fields(TrainSettings):
        only = f.metadata["only"]
        if f.name in given and only and not {*only} & {*stages}:
            parser.error(f"--{f.name} does nothing in stage {stages}, only in {', '.join(only)}.")
    try:
        recipe = [_stage_settings(method, stage, given) for stage in stages]
        for settings in recipe:
            check_train(settings)
    except ValueError as error:
        parser.error(str(error))
    return _chain(recipe, parser) if len(recipe) > 1 else recipe


def _import_plugins(parser: Parser, argv: Sequence[str] | None) -> None:
    try:
        load_plugins(sys.argv[1:] if argv is None else argv)
    except ValueError as error:
        parser.error(str(error))


def _describe(parser: Parser, argv: Sequence[str] | None) -> dict[str, Any]:
    """Describe the method and the first stage of a command line in --help; return their presets."""
    selector = Parser(prog=parser.prog, description="", add_help=False)
    selector.add_argument("--method", default=TrainSettings.method)
    selector.add_argument("--stage", default=TrainSettings.stage)
    selected, _ = selector.parse_known_args(argv)
    method, stage = selected.method, selected.stage[:1]
    if (method, stage) not in STAGE_PRESETS:  # reported after --help
        return {}
    parser.description = (
        f"Train a network. Defaults are those of --method {method} --stage {stage}."
    )
    return {**METHOD_PRESETS[method], **STAGE_PRESETS[method, stage]}


def _parse(parser: Parser, argv: Sequence[str] | None) -> dict[str, Any]:
    """Parse the options that are on the command line."""
    # torch.distributed.launch passes one of these; the environment has the same value.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    given = vars(parser.parse(argv))
    given.pop("local_rank", None)
    return given


def _pick_method(given: dict[str, Any], parser: argparse.ArgumentParser) -> str:
    """Return the requested method; without --method, that of an option which only it has."""
    owned = [f for f in dataclasses.fields(TrainSettings) if f.metadata["methods"]]
    owned = [f for f in owned if f.name in given]
    for f in sorted(owned, key=lambda f: len(f.metadata["methods"])):
        owners = f.metadata["methods"]
        if len(owners) == 1:
            given.setdefault("method", owners[0])
        requested = given.get("method", TrainSettings.method)
        if requested not in owners and f.name not in _preset_names(requested):
            parser.error(
                f"--{f.name} does nothing with --method {requested}, only with "
                f"{' and '.join(owners)}: choose one with --method."
            )
    method = given.setdefault("method", TrainSettings.method)
    if method not in METHOD_PRESETS:
        parser.error(f"There is no --method {method}: choose from {', '.join(METHOD_PRESETS)}.")
    return method


def _preset_names(method: str) -> set[str]:
    """Names of the options that the presets of a method set; a plugin's loss may use them."""
    presets = [METHOD_PRESETS.get(method, {})]
    presets += [values for (owner, _), values in STAGE_PRESETS.items() if owner == method]
    return {name for values in presets for name in values}


def _stage_settings(method: str, stage: str, given: dict[str, Any]) -> TrainSettings:
    values = {**METHOD_PRESETS[method], **STAGE_PRESETS[method, stage]}
    if "jumps" in given:  # the preset's davis_jumps belong to the preset's jumps
        values.pop("davis_jumps", None)
    if given.get("debug"):
        values |= DEBUG_PRESET
    owner = f"A preset of {method}, stage {stage}, in util/presets.py or a plugin,"
    check_options(owner, values, _names(TrainSettings))
    # A copy, so that settings do not share the lists of a preset.
    return TrainSettings(**copy.deepcopy({**values, **given, "stage": stage}))


def _chain(recipe: list[TrainSettings], parser: argparse.ArgumentParser) -> list[TrainSettings]:
    """Name the runs of several stages; each starts from the last weights of the one before."""
    if recipe[0].load_model not in ("", "auto"):
        parser.error(
            "--load_model resumes one stage: with several stages, use --load_model auto, which "
            "resumes the stage that was interrupted."
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


def run_folder(settings: TrainSettings) -> Path:
    """Folder of a training run: its checkpoints and logs."""
    return Path(settings.save_dir) / settings.id


def last_weights(settings: TrainSettings) -> Path:
    """Path of the last weights of a run."""
    return run_folder(settings) / f"{settings.id}_{settings.iterations}.pth"


def parse_eval(script: str, argv: Sequence[str] | None = None) -> EvalSettings:
    """Parse the command line of an eval script: davis, davis_2016, youtube or generic.

    Plugins are imported first. Wrong options exit with a sentence.
    """
    name = EVAL_SCRIPTS[script]
    parser = Parser(
        prog=name,
        description="Segment videos and write the masks as PNG files.",
        others=_commands_by_flag(name),
    )
    presets = EVAL_PRESETS[script]
    _import_plugins(parser, argv)
    add_fields(parser, _eval_fields(script), EvalSettings, presets)
    given = _parse(parser, argv)
    try:
        check_options(f"The preset of {name} in util/presets.py", presets, _names(EvalSettings))
        settings = EvalSettings(**{**presets, **given})
        check_eval(settings)
    except ValueError as error:
        parser.error(str(error))
    return settings


def of_method(settings: EvalSettings, method: str) -> EvalSettings:
    """Replace options that are None by the published values of the method (util/presets.py).

    Raises:
        ValueError: an option does nothing with this memory policy, or a preset has an unknown one.
    """
    published = {
        **EVAL_METHOD_PRESETS["stcn"],
        **EVAL_METHOD_PRESETS.get(method, {}),
        **EVAL_METHOD_PRESETS.get((method, settings.dataset), {}),
    }
    owner = f"A preset of {method} in util/presets.py or a plugin"
    check_options(owner, published, _names(EvalSettings))
    memory = settings.memory or published["memory"]
    own = POLICY_OPTIONS[memory]
    for name in dict.fromkeys(name for names in POLICY_OPTIONS.values() for name in names):
        if name not in own and getattr(settings, name) not in (None, False):
            owners = ", ".join(m for m, names in POLICY_OPTIONS.items() if name in names)
            origin = "" if settings.memory else f", the default of {method}"
            raise ValueError(
                f"--{name} does nothing with --memory {memory}{origin}; it belongs to {owners}."
            )
    if memory != published["memory"]:  # other values were chosen for the published policy
        published = {name: value for name, value in published.items() if name in _FOR_ALL}
    if settings.no_top:
        published["top"] = 0
    values = {k: v for k, v in {**_OFF, **published}.items() if not _is_set(settings, k)}
    values |= {"memory": memory, "no_top": False}
    return dataclasses.replace(settings, **copy.deepcopy(values))


# Published values that apply under every memory policy.
_FOR_ALL = ("top", "mem_every", "use_km", "mem_half")
# Options that are off unless a method or the user turns them on.
_OFF = {"use_km": False, "mem_half": False, "include_last": False}


def policy_settings(settings: EvalSettings) -> dict[str, Any]:
    """Collect the options of the memory policy that are set, by the policy's parameter names."""
    assert settings.memory is not None
    names = POLICY_OPTIONS[settings.memory]
    return {name: getattr(settings, name) for name in names if _is_set(settings, name)}


def _is_set(settings: EvalSettings, name: str) -> bool:
    return getattr(settings, name) is not None


def _names(owner: type[TrainSettings | EvalSettings]) -> list[str]:
    return [f.name for f in dataclasses.fields(owner)]


def _eval_fields(script: str) -> list[dataclasses.Field]:
    return [
        f
        for f in dataclasses.fields(EvalSettings)
        if not f.metadata["only"] or script in f.metadata["only"]
    ]


def _commands_by_flag(but: str) -> dict[str, list[str]]:
    """Map each option to the commands that have it, except one command."""
    commands: dict[str, list[str]] = {}
    tables = [("train.py", dataclasses.fields(TrainSettings))]
    tables += [(name, tuple(_eval_fields(key))) for key, name in EVAL_SCRIPTS.items()]
    for command, fields in tables:
        for flag in (n for f in fields for n in flag_names(f)):
            if command != but:
                commands.setdefault(flag, []).append(command)
    return commands
