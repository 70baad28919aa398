"""Every option is in --help, is used, and belongs to commands that exist."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from inference_memory_bank import POLICIES
from model.methods import METHODS
from util import presets
from util.hyper_para import EvalSettings, TrainSettings
from util.parse_settings import of_method, parse_eval, parse_train
from util.presets import EVAL_SCRIPTS, POLICY_OPTIONS, STAGE_PRESETS

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {"train": "train.py", **EVAL_SCRIPTS}


@pytest.mark.parametrize("module", ["train", *(f"eval_{name}" for name in EVAL_SCRIPTS)])
def test_help_names_every_field(capsys: pytest.CaptureFixture[str], module: str) -> None:
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(module).main(["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    script = module.removeprefix("eval_")
    owner = TrainSettings if module == "train" else EvalSettings
    for field in dataclasses.fields(owner):
        scripts = field.metadata["only"]
        has_it = module == "train" or not scripts or script in scripts
        assert bool(re.search(rf" --{field.name}[ ,]", text)) == has_it
        if has_it:
            # argparse also breaks lines behind hyphens.
            assert field.metadata["help"].replace(" ", "") in text.replace(" ", "")
    assert "local_rank" not in text


def test_help_tells_what_the_script_will_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_eval("youtube", ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: 480)" in text
    assert "(default: valid)" in text


@pytest.mark.parametrize(
    ("argv", "defaults"),
    [
        ([], {"batch_size": "8", "iterations": "300000", "perturb_min": ""}),
        (
            ["--method", "qdmn", "--stage", "3"],
            {"iterations": "150000", "davis_jumps": "5 10 15 25"},
        ),
        (
            ["--method=rde", "--stage", "03"],
            {"iterations": "75000", "lr": "2e-05", "num_frames": "3"},
        ),
        (["--method", "rde"], {"perturb_min": "0.85"}),
    ],
)
def test_help_shows_the_defaults_of_method_and_stage(
    capsys: pytest.CaptureFixture[str], argv: list[str], defaults: dict[str, str]
) -> None:
    with pytest.raises(SystemExit):
        parse_train([*argv, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, value in defaults.items():
        kind = r"(?:INT|FLOAT|\[N \.\.\.\])"
        described = re.search(rf" --{name} {kind},? .*?(?= --\w+ {kind}| [a-z]+: --|$)", text)
        assert described is not None
        assert (f"(default: {value}" in described[0]) == bool(value), name
    method = argv[1] if argv[:1] == ["--method"] else ("rde" if argv else "stcn")
    assert f"Defaults are those of --method {method} --stage" in text


@pytest.mark.parametrize(
    ("table", "key", "command"),
    [
        ("METHOD_PRESETS", "qdmn", "train"),
        ("STAGE_PRESETS", ("qdmn", "3"), "train"),
        ("EVAL_PRESETS", "davis", "davis"),
    ],
)
def test_misspelt_preset_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    table: str,
    key: str | tuple[str, str],
    command: str,
) -> None:
    name, near = ("iteration", "iterations") if command == "train" else ("siz", "size")
    monkeypatch.setitem(getattr(presets, table), key, {name: 5})
    parse: dict[str, Callable[[], object]] = {
        "train": partial(parse_train, ["--id", "x", "--method", "qdmn", "--stage", "3"]),
        "davis": partial(parse_eval, "davis", ["--output", "x"]),
    }
    with pytest.raises(SystemExit) as caught:
        parse[command]()
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert "util/presets.py" in errors
    assert f"has the unknown option '{name}': did you mean {near}?" in errors


def test_misspelt_preset_of_a_method_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.EVAL_METHOD_PRESETS, "qdmn", {"mem_evry": 5})
    with pytest.raises(ValueError, match=r"preset of qdmn in .*'mem_evry': did you mean mem_every"):
        of_method(parse_eval("davis", ["--output", "x"]), "qdmn")


PARSERS = ("hyper_para.py", "parse_settings.py", "check_settings.py")
# Where `settings` are a run's; elsewhere they are an eval script's.
TRAINING = {
    "train.py", "trainer.py", "start.py", "training_loop.py", "training_state.py", "curriculum.py",
}  # fmt: skip


def uses_of_settings() -> dict[str, set[str]]:
    """Attributes read of something called `settings`, by the file that reads them."""
    files = [*ROOT.glob("*.py")]
    for room in ("datasets", "inference", "model", "util"):
        files += [path for path in (ROOT / room).glob("*.py") if path.name not in PARSERS]
    found: dict[str, set[str]] = {}
    for path in files:
        names = found.setdefault(path.name, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Attribute):
                continue
            of = node.value
            owner = of.attr if isinstance(of, ast.Attribute) else getattr(of, "id", "")
            if owner == "settings":
                names.add(node.attr)
    return found


@pytest.mark.parametrize("owner", [TrainSettings, EvalSettings])
def test_no_option_is_dead(owner: type) -> None:
    used: set[str] = set()
    for path, names in uses_of_settings().items():
        is_training = path in TRAINING
        used |= names if is_training == (owner is TrainSettings) else set()
    fields = {field.name for field in dataclasses.fields(owner)}
    # Handed on by name: to losses, and to the policies.
    if owner is TrainSettings:
        used |= {name for method in METHODS.values() for name in method.loss_settings}
        used.add("save_dir")  # read by `run_folder` of parse_settings.py
    else:
        used |= {name for names in POLICY_OPTIONS.values() for name in names}
        used |= {"dataset", "memory", "no_top"}  # read by `of_method`, which is tested below
    # The parser handles --debug (test_hyper_para.py) and --plugin (test_plugins.py).
    assert fields - used <= {"debug", "plugin"}
    made = {name for name in vars(owner) if isinstance(getattr(owner, name), property)}
    assert used - fields <= made, "something reads a setting that does not exist"


def test_the_options_of_a_policy_are_its_fields() -> None:
    assert POLICY_OPTIONS.keys() == POLICIES.keys()
    for memory, names in POLICY_OPTIONS.items():
        own = {field.name for field in dataclasses.fields(POLICIES[memory])}
        assert own - {"compressor"} == {*names}


def test_every_script_of_a_field_is_one() -> None:
    for field in dataclasses.fields(EvalSettings):
        assert set(field.metadata["only"]) <= EVAL_SCRIPTS.keys()
        assert len(field.metadata["help"]) > 10
    assert all((ROOT / name).is_file() for name in SCRIPTS.values())
    for field in dataclasses.fields(TrainSettings):
        assert set(field.metadata["only"]) <= {stage for _, stage in STAGE_PRESETS}
        assert len(field.metadata["help"]) > 10
