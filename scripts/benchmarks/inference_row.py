"""One row of bench_inference.py: segment a synthetic clip and measure time and memory."""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from datasets.synthetic import Clip, make_clip
from inference.labels import label_map
from inference.predictor import Predictor
from inference.tracker import Tracker
from inference_core import InferenceCore
from model.features import EncodedImage
from model.methods import build_network
from model.network import NetworkSpec
from scripts.benchmarks.timing import Stopwatch
from util.devices import peak_memory
from util.hyper_para import EvalSettings

MIB = 2**20
STAGES = ("encode", "read", "decode", "memorise")
# Methods of Network that are timed -> stage.
STAGE_OF = {
    "encode_image": "encode",
    "encode_query": "encode",
    "read": "read",
    "decode": "decode",
    "encode_memory": "memorise",
}
# (method, objects) -> units per frame of the published implementation, measured in the same way:
# float32, 480x854, as many frames as PUBLISHED_FRAMES.
PUBLISHED_UNITS = {
    ("stcn", 1): 9.6, ("stcn", 3): 21.6, ("gsfm", 1): 20.6, ("gsfm", 3): 55.0, ("qdmn", 1): 15.9,
    ("rde", 1): 11.1, ("rde", 3): 26.4, ("imsfr", 1): 15.5,
}  # fmt: skip
PUBLISHED_FRAMES = {"stcn": 11}
PUBLISHED_FRAMES_OF_OTHERS = 8
_SHARES = 10  # the second and the last tenth of a clip are compared


class Run(NamedTuple):
    """Settings of one row."""

    method: str  # empty: the method of the weights in --model
    objects: int
    precision: str
    frames: int
    mem_capacity: int | None  # frames in memory; None: as published, 0: unlimited


@dataclass
class Row:
    """Results of one run. Times are in milliseconds per frame, memory is in MiB."""

    method: str
    objects: int
    precision: str
    frames: int
    mem_capacity: int | None
    published: float | None  # units per frame of the published implementation
    ms: list[float]  # of each frame
    stages_ms: dict[str, float]
    stored_mib: list[float]  # size of the memory bank after each frame
    peak_mib: float  # peak of the process, without the loaded network
    loaded_mib: float  # peak of the process after loading the network
    unit_ms: float = float("nan")

    @property
    def units(self) -> float:
        """Mean time of a frame in units."""
        return float(np.mean(self.ms)) / self.unit_ms

    @property
    def median_ms(self) -> float:
        return float(np.median(self.ms))

    @property
    def p95_ms(self) -> float:
        return float(np.percentile(self.ms, 95))

    @property
    def process_mib(self) -> float:
        """Peak of the process, with the loaded network."""
        return self.peak_mib + self.loaded_mib

    @property
    def tenths_ms(self) -> tuple[float, float] | None:
        """Medians of the second and the last tenth of the frames; None for fewer than 20 frames."""
        tenth = len(self.ms) // _SHARES
        if tenth < 2:
            return None
        second, last = self.ms[tenth : 2 * tenth], self.ms[-tenth:]
        return float(np.median(second)), float(np.median(last))

    def to_json(self) -> dict[str, Any]:
        derived = {"units": self.units, "median_ms": self.median_ms, "p95_ms": self.p95_ms}
        return {**asdict(self), **derived}


class _ObservedPredictor(Predictor):
    """A predictor that keeps its latest session, whose memory is measured."""

    core: InferenceCore

    def start(self, num_frames: int | None = None, num_objects: int | None = None) -> InferenceCore:
        self.core = super().start(num_frames, num_objects)
        return self.core


def measure(arguments: argparse.Namespace, run: Run) -> Row:
    """Segment a synthetic clip `--repeats` times; the fastest repetition counts.

    Raises:
        ValueError: the weights cannot be loaded, or the options contradict each other.
    """
    torch.manual_seed(0)
    network = None
    if run.method:
        network = build_network(NetworkSpec(run.method, arguments.net_size))
    settings = EvalSettings(
        model=arguments.model or "",
        device=arguments.device,
        amp=run.precision == "half",
        precision="auto" if run.precision == "half" else run.precision,  # type: ignore[arg-type]
        mem_every=arguments.mem_every,
        mem_capacity=run.mem_capacity,
        mem_half=arguments.mem_half,
        compile=arguments.compile,
        encode_batch=arguments.encode_batch,
        size=min(arguments.height, arguments.width),
    )
    predictor = _ObservedPredictor(settings, network=network)
    loaded = peak_memory(predictor.device)
    clip = make_clip(run.frames, arguments.height, arguments.width, run.objects, seed=0)
    stopwatch = Stopwatch(predictor.device, STAGES)
    for function, stage in STAGE_OF.items():
        stopwatch.watch(predictor.network, function, stage)
    seconds: list[float] = []
    for _ in range(arguments.repeats):
        stopwatch.reset()
        repetition, stored = segment(predictor, clip)
        if not seconds or sum(repetition) < sum(seconds):
            seconds, stages = repetition, dict(stopwatch.seconds)
    as_published = (arguments.net_size, arguments.height, arguments.width) == ("base", 480, 854)
    return Row(
        method=predictor.network.spec.method,
        objects=run.objects,
        precision=str(predictor.network.dtype).removeprefix("torch."),
        frames=run.frames,
        mem_capacity=run.mem_capacity,
        published=PUBLISHED_UNITS.get((run.method, run.objects)) if as_published else None,
        ms=[1e3 * s for s in seconds],
        stages_ms={stage: 1e3 * s / run.frames for stage, s in stages.items()},
        stored_mib=[size / MIB for size in stored],
        peak_mib=(peak_memory(predictor.device) - loaded) / MIB,
        loaded_mib=loaded / MIB,
    )


def segment(predictor: _ObservedPredictor, clip: Clip) -> tuple[list[float], list[int]]:
    """Segment a clip from the annotation of its first frame.

    Frames that are encoded in one batch share its time equally.

    Returns:
        Seconds of each frame, from RGB to the label map; bytes in memory after each frame.
    """
    tracker = Tracker(predictor, len(clip), clip.num_objects)
    seconds: list[float] = []
    stored: list[int] = []
    frames = iter(clip)
    while group := [*itertools.islice(frames, predictor.settings.encode_batch)]:
        start = time.perf_counter()
        encodings: list[list[EncodedImage]] | list[None] = [None]
        if len(group) > 1:
            encodings = tracker.encode_images([image for image, _ in group])
        shared = (time.perf_counter() - start) / len(group)
        for (image, labels), encoded in zip(group, encodings, strict=True):
            start = time.perf_counter()
            annotation = None if seconds else labels
            is_last = len(seconds) == len(clip) - 1
            prob = tracker.step(image, annotation, is_last, encoded=encoded)
            assert prob is not None
            label_map(prob, tracker.labels, (image.shape[0], image.shape[1]))
            seconds.append(shared + time.perf_counter() - start)
            stored.append(predictor.core.bytes_stored)
    return seconds, stored
