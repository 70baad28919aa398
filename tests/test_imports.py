"""Who may import whom (the arrows of the house), and that nothing happens on import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("annotator", "datasets", "evaluation", "inference", "model", "scripts", "tests", "util")
TOP = {path.stem for path in ROOT.glob("*.py")}
CORES = {"inference_core", "inference_core_yv"}
MAINS = TOP - CORES - {"inference_memory_bank"}

# From a room or a file of the top level to what of ours it may import.
MAY_IMPORT = {
    "util": {"util"},
    "datasets": {"datasets", "util"},
    "model": {"model", "util"},
    "inference_memory_bank": {"model.memory_bank", "model.features", "util"},
    "inference_core": {"inference_memory_bank", "model", "util"},
    "inference_core_yv": {"inference_core", "inference_memory_bank", "model", "util"},
    "inference": {"inference", "datasets", "inference_memory_bank", *CORES, "model", "util"},
    "evaluation": {"evaluation", "datasets", "util"},
    "annotator": {"annotator", "inference", "datasets", "model", "util"},
    **{name: {*ROOMS, "inference_memory_bank", *CORES} - {"scripts", "tests"} for name in MAINS},
    "scripts": {*ROOMS, *TOP} - {"tests"},
    "tests": {*ROOMS, *TOP},
}
SOURCES = sorted(
    [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
)


def imports_of(path: Path) -> set[str]:
    """Modules that a file imports anywhere, functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            assert node.module is not None
            assert node.names[0].name != "*", f"{path} imports everything of {node.module}"
            is_package = (ROOT / node.module).is_dir()
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(names if is_package else [node.module])
    return found


def is_ours(module: str) -> bool:
    return module.split(".")[0] in {*ROOMS, *TOP}


def is_within(module: str, allowed: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_arrows_hold(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    ours = {module for module in imports_of(path) if is_ours(module)}
    against = {module for module in ours if not is_within(module, MAY_IMPORT[room])}
    assert not against, f"{room} must not import {sorted(against)}"


def test_the_top_level_is_as_designed() -> None:
    assert {*CORES, "inference_memory_bank", "train"} <= TOP
    assert sorted(MAINS) == [
        "annotate", "eval_davis", "eval_davis_2016", "eval_generic", "eval_youtube", "hubconf",
        "train",
    ]  # fmt: skip


def test_settings_need_the_standard_library_alone() -> None:
    names = (
        "hyper_para", "presets", "command_line", "check_settings", "parse_settings", "plugins",
        "registration",
    )  # fmt: skip
    for name in names:
        modules = {m for m in imports_of(ROOT / "util" / f"{name}.py") if not is_ours(m)}
        assert {m.split(".")[0] for m in modules} <= set(sys.stdlib_module_names)
        ours = {m for m in imports_of(ROOT / "util" / f"{name}.py") if is_ours(m)}
        assert ours <= {f"util.{other}" for other in names}


def test_nothing_imports_scripts_but_tests() -> None:
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] in ("tests", "scripts"):
            continue
        assert not any(is_within(module, {"scripts", "tests"}) for module in imports_of(path))


def test_no_module_imports_itself_in_a_circle() -> None:
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): imports_of(path) for path in SOURCES
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join([*trail, module])}"
        if module in done:
            return
        for imported in sorted(modules[module] & modules.keys()):
            visit(imported, (*trail, module))
        done.add(module)

    for module in modules:
        visit(module, ())
    assert done == modules.keys()


def test_importing_does_nothing(tmp_path: Path) -> None:
    """All modules, in one fresh process: no output, no files, no threads or processes, no draws."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] != "tests" and path.name != "__init__.py"
    ]
    code = f"""
import importlib, os, random, sys, threading
sys.path.insert(0, {str(ROOT)!r})
sys.argv = [""]
import numpy, torch
torch.manual_seed(1)
before = torch.get_rng_state(), dict(os.environ), torch.is_grad_enabled(), os.getcwd()
python, legacy = random.getstate(), numpy.random.get_state()[1].tolist()
threads = torch.get_num_threads()
for name in {modules!r}:
    importlib.import_module(name)
assert torch.equal(before[0], torch.get_rng_state()), "torch's random numbers were drawn"
assert python == random.getstate(), "Python's random numbers were drawn"
assert legacy == numpy.random.get_state()[1].tolist(), "numpy's random numbers were drawn"
changed = {{k for k, v in os.environ.items() if before[1].get(k) != v}}
assert not {{k for k in changed if k.startswith(("OMP", "CUDA", "TORCH"))}}, changed
assert torch.is_grad_enabled()
assert os.getcwd() == before[3]
assert torch.get_num_threads() == threads
assert not torch.distributed.is_initialized()
assert not torch.cuda.is_initialized()
assert threading.active_count() == 1, threading.enumerate()
assert "torch.utils.tensorboard" not in sys.modules, "slow, and used by train.py alone"
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not [*tmp_path.iterdir()]


def test_the_python_api_does_not_import_datasets() -> None:
    """Other projects may have a package of this name, such as Hugging Face's."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import inference.clip_session, inference.predictor, inference.tracker
ours = [name for name in sys.modules if name.split(".")[0] in ("datasets", "evaluation")]
assert not ours, ours
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
