"""The entries of a comparison: whether they can run, what they ran as, and measuring one.

scripts/compare.py runs them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import eval_davis
import eval_davis_2016
import eval_generic
from datasets.video import Video
from evaluation.comparison import Row
from evaluation.protocols import select_davis
from evaluation.scoring import score
from inference.output_folder import RUN_FILE
from inference.predictor import Predictor, make_policy
from inference.runner import Runner
from inference_core import InferenceCore
from inference_core_yv import InferenceCoreYV
from model.checkpoint import describe_differences, read_for_inference
from model.methods import build_network
from model.network import NetworkSpec
from util.devices import peak_memory, pick_device
from util.files import sha256
from util.hyper_para import EvalSettings
from util.parse_settings import of_method
from util.provenance import describe_run, list_changes

MIB = 2**20
# Eval script -> how it reads its videos, and its kind of session.
SCRIPTS = {
    "davis": (eval_davis.read_videos, InferenceCore),
    "davis_2016": (eval_davis_2016.read_videos, InferenceCore),
    "generic": (eval_generic.read_videos, InferenceCoreYV),
}
# Settings that say where things are. They must be the same for all entries of a comparison, lest
# the rows be of different videos.
PLACES = ("model", "output", "davis_path", "split", "data_path", "video", "mask")
# Beside the settings, what a result must have in common with a run to stand for it.
_SAME = ("weights_sha256", "videos", "torch", "machine", "processor", "gpu")


@dataclass(frozen=True)
class Entry:
    """One row to be.

    Args:
        script: whose videos and flags it has.
        untrained: a network to build, in the place of the weights in `settings.model`.
    """

    name: str
    script: str
    settings: EvalSettings
    untrained: NetworkSpec | None

    def read_videos(self) -> list[Video]:
        """The videos that its eval script segments with these settings.

        Raises:
            ValueError, FileNotFoundError: all that is missing from them or wrong with them.
        """
        return SCRIPTS[self.script][0](self.settings)

    def describe(self, settings: EvalSettings, videos: Sequence[Video]) -> dict[str, Any]:
        """What makes its result; `settings` with the method's own values filled in."""
        weights = f"untrained {self.untrained}" if self.untrained else ""
        lines = [f"{video.name} {video.digest}" for video in videos]
        return {
            **describe_run(settings),
            "weights_sha256": weights or sha256(Path(settings.model)),
            "videos": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        }


def check(entry: Entry) -> dict[str, Any]:
    """What would make the entry's result; loads the file of weights, but builds no network of it.

    Raises:
        ValueError, FileNotFoundError: the entry could not run.
    """
    try:
        pick_device(entry.settings.device)
        weights = None
        if entry.untrained is None:
            spec, weights = read_for_inference(entry.settings.model)
        else:
            spec = entry.untrained
        with torch.device("meta"):
            network = build_network(spec)
        problems = "" if weights is None else describe_differences(network.state_dict(), weights)
        if problems:
            raise ValueError(f"The weights in {entry.settings.model} do not fit. {problems}")
        settings = of_method(entry.settings, spec.method)
        make_policy(network, settings)
        return entry.describe(settings, entry.read_videos())
    except ValueError as error:
        raise ValueError(f"{entry.name}: {error}") from error


def read_result(path: Path, run: dict[str, Any]) -> dict[str, Any] | None:
    """The result of an entry that was done, if it was.

    Raises:
        ValueError: the file is none, or what made it was something else than `run`.
    """
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text())
        Row(**result["row"])
        then, now = (
            {**made["settings"], **{name: made[name] for name in _SAME}}
            for made in (result["run"], run)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a result of a comparison ({error}): remove {path.parent}, or choose "
            "another --output."
        ) from error
    changes = list_changes(then, now, PLACES)
    if changes:
        raise ValueError(
            f"{path.parent} holds a result that was made otherwise: {'; '.join(changes)}. Choose "
            "another --output, or remove that folder."
        )
    return result


def measure(entry: Entry, masks: Path) -> dict[str, Any]:
    """Segment all videos, afresh: the row, and what made it."""
    if (masks / RUN_FILE).exists():
        shutil.rmtree(masks)  # of a run that was cut off: its frames were not timed here
    videos = entry.read_videos()
    network = None
    if entry.untrained is not None:
        torch.manual_seed(0)
        network = build_network(entry.untrained)
    predictor = Predictor(entry.settings, SCRIPTS[entry.script][1], network)
    loaded = peak_memory(predictor.device) / MIB
    run = entry.describe(predictor.settings, videos)
    report = Runner(predictor, masks, run).run(videos)
    peak = peak_memory(predictor.device) / MIB
    if report.failures:
        raise ValueError("; ".join(f"{name}: {why}" for name, why in report.failures.items()))
    jf = region = boundary = None
    if _is_scored(entry):
        year = 2016 if entry.script == "davis_2016" else 2017
        root, split = Path(entry.settings.davis_path), entry.settings.split
        scores = score(select_davis(masks, root, year, split), os.cpu_count() or 1)
        for warning in scores.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        overall = scores.overall
        jf, region, boundary = overall.mean, overall.region.mean, overall.boundary.mean
    row = Row(
        name=entry.name,
        method=predictor.network.spec.method,
        jf=jf,
        region=region,
        boundary=boundary,
        # These seconds end with a label map on the CPU, for which a GPU had to finish all it had
        # been given, the frame's memory included: every frame of these videos is wanted.
        fps=report.num_frames / report.processing_seconds,
        fps_with_io=report.num_frames / report.wall_seconds,
        peak_mib=peak,
        loaded_mib=loaded,
        largest_memory=max(report.memory_frames),
        mean_memory=sum(report.memory_frames) / len(report.memory_frames),
        num_videos=report.num_videos,
        num_frames=report.num_frames,
    )
    return {"row": dataclasses.asdict(row), "run": {**run, "device": predictor.device.type}}


def _is_scored(entry: Entry) -> bool:
    has_truth = entry.script != "generic" and entry.settings.split in ("val", "train")
    return has_truth and entry.untrained is None
