"""A sixth method in one plugin file: train, resume, evaluate, each in its own process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training_runs import TINY, assert_equal, load, load_weights

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path(__file__).with_name("sixth_method.py")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin in a folder outside this code base."""
    return Path(shutil.copy(SOURCE, tmp_path_factory.mktemp("plugin") / "sharp_method.py"))


def run(script: str, *options: object, launcher: tuple[str, ...] = ()) -> tuple[int, str]:
    """Run a script in its own process; return its exit status and standard error."""
    finished = subprocess.run(
        [sys.executable, *launcher, str(ROOT / script), *map(str, options)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # sums in one order
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return finished.returncode, finished.stderr


def train_options(synthetic: Path, saves: Path, name: str) -> list[object]:
    options: list[object] = ["--method", "sharp", "--id", name, "--save_dir", saves, *TINY]
    options += ["--backbone_weights", "none", "--static_root", synthetic / "static"]
    return options


def davis_options(synthetic: Path, weights: Path, output: Path) -> list[object]:
    davis = synthetic / "DAVIS" / "2017"
    return ["--model", weights, "--davis_path", davis, "--output", output, "--device", "cpu"]


@pytest.fixture(scope="module")
def trained(synthetic: Path, plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the run s_s03: stages 0 and 3, two processes, data loaded by workers."""
    saves = tmp_path_factory.mktemp("saves")
    options = [*train_options(synthetic, saves, "s"), "--stage", "03", "-i", 3]
    options += ["--davis_root", synthetic / "DAVIS", "--yv_root", synthetic / "YouTube"]
    options += ["--num_workers", 1, f"--plugin={plugin}"]
    status, errors = run("train.py", *options, launcher=TORCHRUN)
    assert status == 0, errors
    return saves / "s_s03"


def test_parts_and_loss_are_trained(trained: Path) -> None:
    content = load(trained / "s_s03_3.pth")
    assert content["spec"]["method"] == "sharp"
    first = load_weights(trained.with_name("s_s0"), 3)
    assert first["key_encoder.feature_filter.strength"] != 0
    assert content["weights"]["key_encoder.feature_filter.strength"] != 0
    assert not (content["weights"]["decoder.area.weight"] == first["decoder.area.weight"]).all()
    lines = (trained / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["area_error"] > 0 for line in lines] == [True] * 3


def test_resumed_run_equals_an_uninterrupted_one(
    synthetic: Path, plugin: Path, tmp_path: Path
) -> None:
    for name, iterations in (("whole", 4), ("halves", 2), ("halves", 4)):
        options = [*train_options(synthetic, tmp_path, name), "--plugin", plugin]
        status, errors = run("train.py", *options, "-i", iterations, "--load_model", "auto")
        assert status == 0, errors
    assert_equal(*(load_weights(tmp_path / name, 4) for name in ("whole", "halves")))


def test_evaluation_uses_the_presets_of_the_method(
    synthetic: Path, plugin: Path, trained: Path, tmp_path: Path
) -> None:
    options = davis_options(synthetic, trained / "s_s03_3.pth", tmp_path)
    status, errors = run("eval_davis.py", *options, "--plugin", plugin)
    assert status == 0, errors
    assert [*tmp_path.rglob("*.png")]
    (record,) = json.loads((tmp_path / "run.json").read_text())["runs"]
    settings = record["settings"]
    assert (settings["memory"], settings["mem_every"], settings["top"]) == ("doubling", 2, 20)


def test_policy_works_with_other_methods(
    synthetic: Path, plugin: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    options = davis_options(synthetic, tiny_weights, tmp_path / "masks")
    status, errors = run(
        "eval_davis.py", *options, "--plugin", plugin, "--memory", "doubling", "--mem_capacity", 3
    )
    assert status == 0, errors
    assert [*(tmp_path / "masks").rglob("*.png")]


def test_without_the_plugin(synthetic: Path, trained: Path, tmp_path: Path) -> None:
    status, errors = run("train.py", *train_options(synthetic, tmp_path, "s"))
    assert status == 2
    assert errors.startswith("train.py: error: There is no --method sharp: choose from stcn")
    options = davis_options(synthetic, trained / "s_s03_3.pth", tmp_path / "masks")
    status, errors = run("eval_davis.py", *options)
    assert status == 2
    assert "There is no method 'sharp': choose from stcn" in errors
    assert "give the plugin that defines it with --plugin." in errors
    assert "Traceback" not in errors


def test_plugin_is_one_short_file() -> None:
    assert len(SOURCE.read_text().splitlines()) < 120
