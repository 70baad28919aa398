"""Entries of scripts/compare.py: check that they can run, run them, and read their results."""

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

import eval_generic
from datasets.davis import at_480p, davis_2016, davis_2017
from datasets.video import ProblemsError, Video
from evaluation.comparison import Row
from evaluation.predictions import read_ground_truth
from evaluation.protocols import find_split, select_davis
from evaluation.scoring import score
from inference.predictor import Predictor, make_policy
from inference.run_file import RUN_FILE
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
CORES = {"davis": InferenceCore, "davis_2016": InferenceCore, "generic": InferenceCoreYV}
# Settings that an entry must not change, so that all rows are of the same videos. Digests of the
# weights and of the videos represent them in results.
FIXED_SETTINGS = ("model", "output", "davis_path", "split", "data_path", "video", "mask")
# Values beside the settings that must be equal to reuse a result.
_REUSE_KEYS = ("weights_sha256", "videos", "torch", "machine", "processor", "gpu")


@dataclass(frozen=True)
class Entry:
    """One row of a comparison.

    Args:
        name: name of the row and of its folder.
        script: eval script with the entry's videos and options: davis, davis_2016 or generic.
        untrained: network to build with random weights; None loads `settings.model`.
    """

    name: str
    script: str
    settings: EvalSettings
    untrained: NetworkSpec | None

    def read_videos(self) -> list[Video]:
        """Read the videos of the eval script.

        Raises:
            ValueError, FileNotFoundError: videos are missing or invalid.
        """
        settings = self.settings
        if self.script == "generic":
            invalid: dict[str, str] = {}
            videos = eval_generic.read_videos(settings, invalid)
            if invalid:
                raise ProblemsError([*invalid.values()])
            return videos
        read = davis_2016 if self.script == "davis_2016" else davis_2017
        return read(Path(settings.davis_path), settings.split, shorter_side=settings.shorter_side)

    def describe(self, settings: EvalSettings, videos: Sequence[Video]) -> dict[str, Any]:
        """Record of a run of this entry.

        Args:
            settings: the settings, with the published values of the method filled in.
        """
        weights = f"untrained {self.untrained}" if self.untrained else ""
        lines = [f"{video.name} {video.digest}" for video in videos]
        return {
            **describe_run(settings),
            "weights_sha256": weights or sha256(Path(settings.model)),
            "videos": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        }


def check(entry: Entry) -> dict[str, Any]:
    """Check that an entry can run, and return the record that its run would have.

    This loads the file of weights, but allocates no network.

    Raises:
        ValueError, FileNotFoundError: the entry cannot run.
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
    """Read the result of an entry that has run; None if the file does not exist.

    Args:
        run: the record that the entry would have now.

    Raises:
        ValueError: the file is not a result, or its run had other settings, weights or videos.
    """
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text())
        Row(**result["row"])
        before, now = (
            {**record["settings"], **{name: record[name] for name in _REUSE_KEYS}}
            for record in (result["run"], run)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a result of a comparison ({error}): remove {path.parent}, or choose "
            "another --output."
        ) from error
    changes = list_changes(before, now, FIXED_SETTINGS)
    if changes:
        raise ValueError(
            f"{path.parent} contains the result of a different run: {'; '.join(changes)}. Choose "
            "another --output, or remove that folder."
        )
    return result


def check_ground_truth(entry: Entry) -> None:
    """Read the ground truth of an entry, so that scoring does not fail after segmentation.

    All entries of a comparison have the same ground truth. Entries without scores pass.

    Raises:
        ValueError, FileNotFoundError: ground truth is missing or damaged.
    """
    if not _is_scored(entry):
        return
    annotations = at_480p(find_split(*_benchmark(entry))[0] / "Annotations")
    for files in select_davis(annotations, *_benchmark(entry)).sequences:
        for path in files.ground_truths:
            read_ground_truth(path, files.convention)


def measure(entry: Entry, masks: Path) -> dict[str, Any]:
    """Segment all videos, score the masks, and return the row and the record of the run.

    Args:
        masks: folder for the masks; masks of an interrupted run are removed first.

    Raises:
        ValueError: the entry cannot run, or a video failed.
    """
    if (masks / RUN_FILE).exists():
        shutil.rmtree(masks)  # speed is measured on all frames
    videos = entry.read_videos()
    network = None
    if entry.untrained is not None:
        torch.manual_seed(0)
        network = build_network(entry.untrained)
    predictor = Predictor(entry.settings, CORES[entry.script], network)
    loaded = peak_memory(predictor.device) / MIB
    run = entry.describe(predictor.settings, videos)
    report = Runner(predictor, masks, run).run(videos)
    peak = peak_memory(predictor.device) / MIB
    if report.failures:
        raise ValueError("; ".join(f"{name}: {why}" for name, why in report.failures.items()))
    jf = region = boundary = None
    if _is_scored(entry):
        scores = score(select_davis(masks, *_benchmark(entry)), os.cpu_count() or 1)
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
        # The time of a frame ends with its label map on the CPU, so the GPU has finished its work.
        # Every frame of these videos is required.
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
    has_ground_truth = entry.script != "generic" and entry.settings.split in ("val", "train")
    return has_ground_truth and entry.untrained is None


def _benchmark(entry: Entry) -> tuple[Path, int, str]:
    """Folder, year and split of DAVIS."""
    year = 2016 if entry.script == "davis_2016" else 2017
    return Path(entry.settings.davis_path), year, entry.settings.split
