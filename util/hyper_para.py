"""Every knob, once: typed fields with a comment each; the command lines are made from them.

A value comes from, in this order: the field's default < the method's preset < the stage's preset
< the command line. To change a default for good, edit it here.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import difflib
import os
import sys
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints


def knob(default: Any, help: str, *flags: str, scripts: tuple[str, ...] = ()) -> Any:
    """A field with its help; `flags` are further names, `scripts` the scripts that have it."""
    factory = (lambda: list(default)) if isinstance(default, list) else None
    metadata = {"help": help, "flags": flags, "scripts": scripts}
    if factory:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class TrainSettings:
    """Settings of train.py."""

    # --- what to train
    id: str = knob("", "name of the run: results go to <save_dir>/<id>")
    method: Literal["stcn"] = knob("stcn", "system to train")
    size: Literal["base", "small", "tiny"] = knob(
        "base", "widths: base as published, small for laptops, tiny for tests"
    )
    stage: int = knob(0, "0 static images, 1 BL30K, 2 main after stage 1, 3 main after stage 0")

    # --- where from, where to
    load_network: str = knob("", "start from these weights, at iteration 0")
    load_model: str = knob("", "resume the run of this <id>_checkpoint.pth")
    trunk_weights: str = knob(
        "imagenet",
        "what the trunks start from without --load_network: imagenet (torchvision downloads it) or "
        "none; or a .pth file of a ResNet for the key encoder, which overrules --load_network's",
    )
    save_dir: str = knob("saves", "folder of all runs")
    static_root: str = knob("data/static", "folder of the static image data sets")

    # --- optimisation
    batch_size: int = knob(8, "clips per process and iteration", "-b")
    iterations: int = knob(300_000, "length of the run", "-i")
    lr: float = knob(1e-5, "learning rate of Adam")
    trunk_lr: float = knob(
        1.0, "the key encoder's trunk learns at so many times --lr; 0 freezes it, which is faster"
    )
    steps: list[int] = knob([150_000], "iterations at which the learning rate is multiplied")
    gamma: float = knob(0.1, "what the learning rate is multiplied by at each of the steps")
    weight_decay: float = knob(1e-7, "L2 penalty of Adam")
    start_warm: int = knob(20_000, "until here every pixel counts in the loss")
    end_warm: int = knob(70_000, "from here only the hardest 15 % count")
    crop_size: int = knob(384, "side of the training clips in pixels, a multiple of 16")
    seed: int = knob(14159265, "seed of all random draws (a GPU may still add in another order)")

    # --- machine
    device: str = knob("auto", "auto, cpu, cuda, cuda:1 or mps")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = knob(
        "auto", "auto: mixed, float16 on GPUs and bfloat16 on CPUs"
    )
    no_amp: bool = knob(False, "float32 throughout, the same as --precision float32")
    num_workers: int = knob(
        min(8, os.cpu_count() or 1), "processes that load data, for each that trains"
    )
    benchmark: bool = knob(False, "let cuDNN try its algorithms first: faster, less reproducible")

    # --- watching
    report_interval: int = knob(100, "iterations between lines of the log")
    image_interval: int = knob(500, "iterations between sample images")
    save_interval: int = knob(10_000, "iterations between saved weights")
    debug: bool = knob(False, "report, draw and save every few iterations, to see that all works")


@dataclass
class EvalSettings:
    """Settings of the eval_*.py scripts; each script has those that do something in it."""

    # --- what to segment with, and where
    model: str = knob("saves/stcn.pth", "weights: our own, or published ones")
    output: str = knob("", "folder for the masks: <output>/<video>/<frame>.png")
    davis_path: str = knob(
        "data/DAVIS/2017",
        "the folder with trainval/ and test-dev/ in it (DAVIS 2016: with 2016/ and 2017/ in it)",
        scripts=("davis", "davis_2016"),
    )
    yv_path: str = knob(
        "data/YouTube", "the folder with valid/ and all_frames/ in it", scripts=("youtube",)
    )
    data_path: str = knob(
        "data/generic",
        "the folder with JPEGImages/<video>/ and Annotations/<video>/ in it",
        scripts=("generic",),
    )
    split: str = knob("val", "part of the data set", scripts=("davis", "youtube"))
    size: int = knob(
        0,
        "work at this shorter side in pixels and resize the masks back; 0 for the frames' own",
    )

    # --- memory
    top: int = knob(20, "rows of memory that a position reads; 0 for all")
    mem_every: int = knob(5, "remember every n-th frame")
    include_last: bool = knob(False, "also read the latest frame, remembered for one step")

    # --- output
    output_all: bool = knob(
        False, "write every frame, not the scored ones alone", scripts=("youtube",)
    )
    overlay: bool = knob(False, "also write <output>/<video>.mp4 with the masks drawn in")

    # --- machine
    device: str = knob("auto", "auto, cpu, cuda, cuda:1 or mps")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = knob(
        "auto", "auto: float32, or with --amp the device's half precision"
    )
    amp: bool = knob(False, "half precision: float16 on GPUs, bfloat16 on CPUs")
    benchmark: bool = knob(False, "let cuDNN try its algorithms first, where all sizes are alike")


# method -> what differs from the defaults above.
METHOD_PRESETS: dict[str, dict[str, Any]] = {"stcn": {}}

# (method, stage) -> what differs from the method's preset.
STAGE_PRESETS: dict[tuple[str, int], dict[str, Any]] = {
    ("stcn", 0): {},  # the defaults above are its
}

# What --debug sets, where the command line does not.
DEBUG_PRESET: dict[str, Any] = {"report_interval": 5, "image_interval": 5, "save_interval": 50}

# eval script -> what differs from the defaults above.
EVAL_PRESETS: dict[str, dict[str, Any]] = {
    "davis": {},
    "davis_2016": {"davis_path": "data/DAVIS"},
    "youtube": {"split": "valid", "size": 480},
    "generic": {"size": 480},
}

EVAL_SCRIPTS = {
    "davis": "eval_davis.py",
    "davis_2016": "eval_davis_2016.py",
    "youtube": "eval_youtube.py",
    "generic": "eval_generic.py",
}


def parse_train(argv: list[str] | None = None) -> TrainSettings:
    """Settings of train.py from a command line; exits with a sentence where it is wrong."""
    parser = _Parser(
        prog="train.py", description="Train a network.", others=_flags_by_script("train.py")
    )
    _add_fields(parser, dataclasses.fields(TrainSettings), TrainSettings)
    # torch.distributed.launch passes one of the two spellings; the environment says the same.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    given = vars(parser.parse_args(argv))
    given.pop("local_rank", None)

    method, stage = given.get("method", "stcn"), given.get("stage", 0)
    if (method, stage) not in STAGE_PRESETS:
        ready = ", ".join(str(s) for m, s in STAGE_PRESETS if m == method)
        parser.error(f"--stage {stage} of {method} cannot be trained here (yet): there is {ready}.")
    values = {**METHOD_PRESETS[method], **STAGE_PRESETS[method, stage]}
    if given.get("debug"):
        values |= DEBUG_PRESET
    # A copy, since a preset's lists would be shared with it.
    settings = TrainSettings(**copy.deepcopy({**values, **given}))
    _check_train(settings, parser)
    return settings


def parse_eval(script: str, argv: list[str] | None = None) -> EvalSettings:
    """Settings of an eval script ("davis", "davis_2016", "youtube", "generic")."""
    name = EVAL_SCRIPTS[script]
    parser = _Parser(
        prog=name,
        description="Segment videos and write palette PNG masks.",
        others=_flags_by_script(name),
    )
    presets = EVAL_PRESETS[script]
    _add_fields(parser, _eval_fields(script), EvalSettings, presets)
    settings = EvalSettings(**{**presets, **vars(parser.parse_args(argv))})
    _check_eval(settings, parser)
    return settings


def _check_train(settings: TrainSettings, parser: argparse.ArgumentParser) -> None:
    if not settings.id:
        parser.error("--id is missing: give the run a name, such as --id retrain_s0.")
    if "/" in settings.id or settings.id.startswith("."):
        parser.error(f"--id {settings.id} names a folder in --save_dir: leave out '/' and dots.")
    for name in ("batch_size", "iterations", "report_interval", "image_interval", "save_interval"):
        if getattr(settings, name) < 1:
            parser.error(f"--{name} must be at least 1.")
    if settings.crop_size < 16 or settings.crop_size % 16:
        parser.error(f"--crop_size {settings.crop_size} is no multiple of 16.")
    if settings.num_workers < 0:
        parser.error("--num_workers must be 0 or more.")
    if settings.seed < 0:
        parser.error("--seed must be 0 or more.")
    if not settings.lr > 0:  # nan is not
        parser.error("--lr must be above 0.")
    if settings.start_warm > settings.end_warm:
        parser.error(
            f"--start_warm {settings.start_warm} lies after --end_warm {settings.end_warm}."
        )
    if settings.no_amp and settings.precision not in ("auto", "float32"):
        parser.error(f"--no_amp and --precision {settings.precision} contradict each other.")
    if settings.trunk_lr < 0:
        parser.error("--trunk_lr must be 0 (frozen) or more.")
    if settings.load_network and settings.trunk_weights == "none":
        parser.error("--trunk_weights none does nothing beside --load_network.")
    if settings.load_network and settings.load_model:
        parser.error(
            "--load_network starts a new run and --load_model resumes one: give one of them."
        )


def _check_eval(settings: EvalSettings, parser: argparse.ArgumentParser) -> None:
    if not settings.output:
        parser.error("--output is missing: give the folder for the masks.")
    if settings.mem_every < 1:
        parser.error("--mem_every must be at least 1.")
    if settings.top < 0:
        parser.error("--top must be 0 (all rows) or more.")
    if settings.size < 0:
        parser.error("--size must be 0 (the frames' own) or more.")
    if settings.amp and settings.precision == "float32":
        parser.error("--amp and --precision float32 contradict each other.")


def _eval_fields(script: str) -> list[dataclasses.Field]:
    return [
        f
        for f in dataclasses.fields(EvalSettings)
        if not f.metadata["scripts"] or script in f.metadata["scripts"]
    ]


def _names(f: dataclasses.Field) -> list[str]:
    return [f"--{f.name}", *f.metadata["flags"]]


def _flags_by_script(but: str) -> dict[str, list[str]]:
    """flag -> the other scripts that have it, to point at them."""
    found: dict[str, list[str]] = {}
    tables = [("train.py", dataclasses.fields(TrainSettings))]
    tables += [(name, tuple(_eval_fields(key))) for key, name in EVAL_SCRIPTS.items()]
    for script, fields in tables:
        for flag in (n for f in fields for n in _names(f)):
            if script != but:
                found.setdefault(flag, []).append(script)
    return found


def _add_fields(
    parser: _Parser, fields: Any, owner: type, presets: dict[str, Any] | None = None
) -> None:
    types = get_type_hints(owner)
    defaults = {**vars(owner()), **(presets or {})}
    for f in fields:
        default = defaults[f.name]
        options: dict[str, Any] = {"dest": f.name, "default": argparse.SUPPRESS}
        kind = types[f.name]
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        help_text = f.metadata["help"].replace("%", "%%")
        if shown not in ("", False):
            help_text += f" (default: {shown})"
        options["help"] = help_text
        if kind is bool:
            options["action"] = "store_true"
        elif get_origin(kind) is list:
            options |= {"type": get_args(kind)[0], "nargs": "*", "metavar": "N"}
        elif get_origin(kind) is Literal:
            options |= {"choices": get_args(kind)}
        else:
            options |= {"type": kind, "metavar": kind.__name__.upper()}
        parser.add_argument(*_names(f), **options)


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes no abbreviations and points at the flag that was meant."""

    def __init__(self, *, others: dict[str, list[str]], **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self._others = others

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(self._explain(unknown))
        return parsed

    def _explain(self, unknown: list[str]) -> str:
        flag = unknown[0].split("=")[0]
        if not flag.startswith("-"):
            return f"{flag!r} belongs to no flag: write --flag value."
        if flag in self._others:
            return f"{flag} does nothing in {self.prog}; it belongs to " + (
                f"{', '.join(self._others[flag])}."
            )
        own = [name for name in self._option_string_actions if name.startswith("--")]
        names = [*own, *self._others]
        # First what it abbreviates, since argparse elsewhere takes abbreviations.
        near = [name for name in names if name.startswith(flag)]
        near = near or difflib.get_close_matches(flag, names, n=1)
        if not near:
            return f"{self.prog} has no flag {flag}: see --help for those it has."
        where = "" if near[0] in own else f" (of {self._others[near[0]][0]})"
        return f"{self.prog} has no flag {flag}: did you mean {near[0]}{where}?"

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: error: {message}\n")
        raise SystemExit(2)
