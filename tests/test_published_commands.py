"""The evaluation commands of the five published READMEs, on small data with tiny weights.

They run in a folder with the layout of those READMEs: data/, and saves/ or pretrain/. SCRIPTS maps
the published names of the scripts to ours. RDE's command for DAVIS 2016 has the same --output as
the one for DAVIS 2017, which we refuse, so here it has another.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

import eval_davis
import eval_davis_2016
import eval_youtube
from model.checkpoint import save_network
from model.methods import build_network
from model.network import NetworkSpec
from scripts import evaluate

SCRIPTS = {
    "eval_davis.py": eval_davis,
    "eval_davis_2016.py": eval_davis_2016,
    "eval_youtube.py": eval_youtube,
    "evaluation_ours.py": evaluate,
    # Of IMSFR
    "eval_davis_2016per101.py": eval_davis_2016,
    "eval_davispreoneconv1046181localgparapoolperandfinaltip.py": eval_davis,
    "eval_youtubeoneconv10146181localgparapoolpeone.py": eval_youtube,
}
SAM = "--mode two-frames-compress"
# (method, command, folder of masks; None: --output)
COMMANDS = [
    *[("stcn", f"{s} --output out/{s}", None) for s in [*SCRIPTS][:3]],
    ("stcn", "eval_davis.py --output out/a --split test-dev", "out/a/test-dev-000"),
    ("stcn", "eval_youtube.py --output out/b --yv_path data/YouTube --amp", None),
    *[("gsfm", f"{s} --output out/{s}", None) for s in [*SCRIPTS][:3]],
    ("gsfm", "eval_davis.py --output out/a --split testdev", "out/a/test-dev-000"),
    *[("qdmn", f"{s} --output out/{s}", None) for s in [*SCRIPTS][:3]],
    ("qdmn", "eval_davis.py --output out/c --use_km --amp", None),
    ("qdmn", "eval_davis.py --output out/d --no_top", None),
    ("rde", "eval_davis.py --output prediction/s012 --davis_path data/DAVIS/2017 "
     f"--model pretrain/model_s012_final.pth {SAM} --mem_every 3 --amp", "prediction/s012/val-000"),
    ("rde", "evaluation_ours.py --results_path prediction/s012 --davis_path data/DAVIS/2017", None),
    ("rde", "eval_davis.py --output prediction/DAVIS-2017-test --davis_path data/DAVIS/2017 "
     f"--model pretrain/model_s012_final.pth {SAM} --mem_every 3 --top 40 --split testdev --amp",
     "prediction/DAVIS-2017-test/test-dev-001"),
    ("rde", "eval_davis_2016.py --output prediction/DAVIS-2016-val --davis_path data/DAVIS --model "
     f"pretrain/model_s012_final.pth {SAM} --mem_every 3 --top 40 --split testdev --amp",
     "prediction/DAVIS-2016-val/single-val-000"),
    ("rde", "eval_youtube.py --output prediction/YV-19-val --yv_path data/YouTube --model "
     f"pretrain/model_s012_final_yv.pth {SAM} --mem_every 4 --top 20 --amp", None),
    *[("imsfr", f"{s} --output out/{s[:12]}", None) for s in [*SCRIPTS][4:]],
    ("imsfr", f"{[*SCRIPTS][5]} --output out/e --split test-dev", "out/e/test-dev-000"),
]  # fmt: skip


@pytest.mark.parametrize("method", ["stcn", "gsfm", "qdmn", "rde", "imsfr"])
def test_published_commands(
    method: str, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(NetworkSpec(method, "tiny"))
    for path in (
        "saves/stcn.pth",
        "pretrain/model_s012_final.pth",
        "pretrain/model_s012_final_yv.pth",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        save_network(tmp_path / path, network, {})
    os.symlink(synthetic, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    commands = [(c, masks) for m, c, masks in COMMANDS if m == method]
    assert commands
    for command, masks in commands:
        script, *flags = command.split()
        small = [] if script == "evaluation_ours.py" else ["--device", "cpu"]
        if SCRIPTS[script] is eval_youtube:
            small += ["--size", "48"]
        assert SCRIPTS[script].main([*flags, *small]) == 0, command
        if script != "evaluation_ours.py":
            output = Path(masks or flags[flags.index("--output") + 1])
            assert [*output.rglob("*.png")], command
    shutil.rmtree(tmp_path / "saves")
