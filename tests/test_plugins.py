"""Import of plugins, registration of methods and policies, and the messages of errors."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import inference_memory_bank
from inference_memory_bank import EveryN, MemoryPolicy, register_policy
from model import methods
from model.methods import STCN, Method, register_method
from util import presets
from util.hyper_para import EvalSettings
from util.parse_settings import of_method, parse_eval, parse_train
from util.plugins import load_plugin, load_plugins

TABLES: tuple[dict[Any, Any], ...] = (
    methods.METHODS,
    inference_memory_bank.POLICIES,
    presets.METHOD_PRESETS,
    presets.STAGE_PRESETS,
    presets.EVAL_METHOD_PRESETS,
    presets.POLICY_OPTIONS,
)
# Needs no torch, so that a child process imports it quickly.
PLUGIN = """
from util.presets import POLICY_OPTIONS

class Part:
    pass

POLICY_OPTIONS[__name__] = ()
"""


@pytest.fixture(autouse=True)
def _restore(tmp_path: Path) -> Iterator[None]:
    """Undo all registrations and imports of plugins."""
    path = [*sys.path]
    with contextlib.ExitStack() as stack:
        for table in TABLES:
            stack.enter_context(mock.patch.dict(table))
        yield
    for name, module in [*sys.modules.items()]:
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    sys.path[:] = path


def write(folder: Path, name: str, text: str = PLUGIN) -> Path:
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


def test_all_plugins_of_a_command_line_are_imported(tmp_path: Path) -> None:
    one, two, three = (write(tmp_path, f"plugin_{name}") for name in ("one", "two", "three"))
    argv = ["--id", "x", "--plugin", str(one), f"--plugin={two}", "-i", "3", "--", "--plugin"]
    load_plugins([*argv, str(three)])
    assert {"plugin_one", "plugin_two"} <= presets.POLICY_OPTIONS.keys()
    assert "plugin_three" not in presets.POLICY_OPTIONS


def test_missing_file_name_is_left_to_the_parser(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--plugin"], ["--plugin", "--id", "x"], ["--plugin="]):
        load_plugins(argv)
    with pytest.raises(SystemExit):
        parse_train(["--id", "x", "--plugin"])
    assert "argument --plugin: expected one argument" in capsys.readouterr().err


def test_plugin_is_imported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by another path to the same file."""
    text = "import util.presets\nname = f'run{len(util.presets.POLICY_OPTIONS)}'\n"
    path = write(tmp_path, "counted", text + "util.presets.POLICY_OPTIONS[name] = ()\n")
    before = len(presets.POLICY_OPTIONS)
    load_plugin(path)
    load_plugin(str(path))
    monkeypatch.chdir(tmp_path)
    load_plugin("counted.py")
    (tmp_path / "link").symlink_to(tmp_path)
    load_plugin(tmp_path / "link" / "counted.py")
    assert len(presets.POLICY_OPTIONS) == before + 1


def test_other_processes_find_the_classes_of_a_plugin(tmp_path: Path) -> None:
    """A process that is spawned, as the workers of data loaders are on some systems."""
    load_plugin(write(tmp_path, "spawned"))
    part = sys.modules["spawned"].Part()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert type(pool.apply(copy.copy, [part])) is type(part)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("absent.py", None, "There is no plugin {file}: give the path of a Python file."),
        ("folder", None, "There is no plugin {file}: give the path of a Python file."),
        ("notes.txt", "", "The plugin {file} is not a Python module: its name must end in .py"),
        ("my.method.py", "", "The plugin {file} is not a Python module"),
        ("json.py", PLUGIN, "The plugin {file} has the name of another module, json: rename it."),
        ("tarfile.py", PLUGIN, "The plugin {file} has the name of another module, tarfile"),
        ("model.py", PLUGIN, "The plugin {file} has the name of another module, model"),
        ("empty.py", "x = 1", "The plugin {file} registers nothing: call register_method or"),
        (
            "broken.py",
            "def fail():\n    return 1 / 0\n\nfail()\n",
            "The plugin {file} cannot be imported, line 2: ZeroDivisionError: division by zero",
        ),
        (
            "syntax.py",
            "x = 1\nx = (\n",
            "The plugin {file} cannot be imported, line 2: SyntaxError",
        ),
        (
            "inside.py",
            "import json\n\n\njson.loads('')\n",
            "The plugin {file} cannot be imported, line 4: JSONDecodeError",
        ),
        (
            "options.py",
            "from model.methods import *\nregister_method(STCN)\n",
            "line 2: ValueError: There already is a method 'stcn': choose another name.",
        ),
    ],
)
def test_errors_name_the_file_and_the_line(
    tmp_path: Path, name: str, text: str | None, sentence: str
) -> None:
    file = tmp_path / name
    if name == "folder":
        file.mkdir()
    elif text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match="plugin") as raised:
        load_plugin(file)
    assert sentence.format(file=file) in str(raised.value)
    assert str(file) in str(raised.value)
    stem = file.stem
    assert stem not in sys.modules or stem in sys.stdlib_module_names or stem == "model"


def test_two_plugins_of_one_name_fail(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    load_plugin(write(tmp_path / "a", "method"))
    with pytest.raises(ValueError, match=r"b/method\.py has the name of another module, method"):
        load_plugin(write(tmp_path / "b", "method"))


def test_commands_report_errors_of_plugins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "fails", "raise RuntimeError('no')")
    with pytest.raises(SystemExit) as raised:
        parse_eval("davis", ["--plugin", str(path), "--output", "x"])
    assert raised.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"eval_davis.py: error: The plugin {path} cannot be imported, line 1")


def sharp(name: str = "sharp") -> Method:
    return Method(name, STCN.sizes, STCN.build, renames=())


def test_method_has_its_presets() -> None:
    register_method(
        sharp(),
        train={"lr": 0.5, "steps": [7]},
        stages={"0": {}, "3": {"lr": 0.25}},
        evaluation={"memory": "every_n", "mem_every": 9},
        evaluation_by_dataset={"youtube": {"mem_every": 8}},
    )
    first, last = parse_train(["--method", "sharp", "--id", "x", "--stage", "03"])
    assert (first.lr, last.lr) == (0.5, 0.25)
    assert first.steps == [7]
    (given,) = parse_train(["--method", "sharp", "--id", "x", "--lr", "2"])
    assert given.lr == 2
    assert of_method(EvalSettings(), "sharp").mem_every == 9
    assert of_method(EvalSettings(dataset="youtube"), "sharp").mem_every == 8
    assert of_method(EvalSettings(mem_every=3), "sharp").mem_every == 3


def test_method_without_presets_has_all_stages() -> None:
    register_method(sharp())
    for stage in "0123":
        (settings,) = parse_train(["--method", "sharp", "--id", "x", "--stage", stage])
        assert settings.stage == stage
    assert of_method(EvalSettings(), "sharp") == of_method(EvalSettings(), "stcn")


@pytest.mark.parametrize(
    ("register", "sentence"),
    [
        (partial(register_method, train={"learning_rate": 1}), "unknown option 'learning_rate': "),
        (
            partial(register_method, stages={"0": {"iteration": 1}}),
            "has the unknown option 'iteration': did you mean iterations?",
        ),
        (
            partial(register_method, evaluation={"mem_evry": 1}),
            "has the unknown option 'mem_evry': did you mean mem_every?",
        ),
        (
            partial(register_method, evaluation={"overlay": True}),
            "has the unknown option 'overlay': choose from memory, top, ",
        ),
        (
            partial(register_method, evaluation_by_dataset={"youtube": {"n": 1}}),
            "has the unknown option 'n'",
        ),
        (
            partial(register_method, evaluation={"memory": "none"}),
            "has the unknown memory policy 'none': call register_policy first.",
        ),
        (
            partial(register_method, stages={"4": {}}),
            "has presets for ['4']: the stages are 0, 1, 2 and 3",
        ),
        (partial(register_method, evaluation_by_dataset={"mose": {}}), "has presets for ['mose']"),
    ],
)
def test_wrong_presets_are_refused(register: Callable[[Method], None], sentence: str) -> None:
    with pytest.raises(ValueError, match="The method 'sharp'") as raised:
        register(sharp())
    assert sentence in str(raised.value)
    assert "sharp" not in methods.METHODS
    assert "sharp" not in presets.METHOD_PRESETS


def test_methods_and_policies_are_not_replaced() -> None:
    with pytest.raises(ValueError, match="There already is a method 'gsfm': choose another name"):
        register_method(sharp("gsfm"))
    with pytest.raises(ValueError, match="There already is a memory policy 'sam': choose another"):
        register_policy("sam", EveryN, ("mem_every",))


@dataclass(frozen=True)
class Windowed(MemoryPolicy):
    """A policy that takes one more option of the eval scripts."""

    sample_seed: int = 0


def test_policy_gets_its_options() -> None:
    register_policy("windowed", Windowed, ("mem_every", "sample_seed"))
    argv = ["--output", "x", "--memory", "windowed", "--sample_seed", "3"]
    settings = of_method(parse_eval("davis", argv), "stcn")
    assert (settings.memory, settings.sample_seed, settings.mem_every) == ("windowed", 3, 5)
    with pytest.raises(ValueError, match="--sample_share does nothing with --memory windowed"):
        of_method(EvalSettings(memory="windowed", sample_share=0.5), "stcn")


def test_policy_whose_write_lacks_a_parameter_is_refused() -> None:
    def write_frame(
        self: EveryN, bank: object, entry: object, frame_index: int, is_annotation: bool = False
    ) -> None:
        pass

    policy = type("Former", (EveryN,), {"write": write_frame})
    with pytest.raises(ValueError, match="'former' has a method write with no parameter must_stor"):
        register_policy("former", policy, ["mem_every"])
    assert "former" not in presets.POLICY_OPTIONS


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("mem_evry",), "has the unknown option 'mem_evry': did you mean mem_every?"),
        (("sample_seed", "mode"), "has no parameter mode: add it to its class."),
    ],
)
def test_wrong_options_of_a_policy_are_refused(options: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match="The memory policy 'windowed'") as raised:
        register_policy("windowed", Windowed, options)
    assert sentence in str(raised.value)
    assert "windowed" not in presets.POLICY_OPTIONS
