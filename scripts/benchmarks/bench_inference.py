"""Time of a frame: encode, read, decode, memorise; in milliseconds, and in units of this machine.

    python scripts/benchmarks/bench_inference.py --output out/speed
    python scripts/benchmarks/bench_inference.py --methods stcn --objects 1 --frames 300 --output out/growth

A unit is one float32 convolution of (1, 256, 120, 216) with 256 3x3 filters and padding 1, by
torch as it is, the best of 5 before and 5 after each row: figures of two machines, or of one that
is busy, compare by it. Networks have fresh weights, which cost what trained ones do (--model takes
a file). Every row runs in a process of its own, from the first frame on, so that its peak of memory
is its own. Units are of the mean frame. Writes speed.json and speed.png.

Where the published implementations were measured so (float32, 480x854, first 11 or 8 frames), the
table has their units beside ours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import matplotlib.pyplot as plt
import numpy as np
import progressbar
import torch
import torch.nn.functional as F
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets.synthetic import make_clip
from inference.labels import label_map
from inference.predictor import Predictor
from inference.tracker import Tracker
from model.methods import METHODS, build_network
from model.network import NetworkSpec
from util.devices import peak_memory, pick_device
from util.figures import save_figure
from util.files import write_json
from util.hyper_para import CompileMode, EvalSettings
from util.images import read_image
from util.masks import DAVIS_PALETTE, write_mask
from util.parse_settings import LARGEST_BATCH
from util.provenance import describe_run

MIB = 2**20
STAGES = ("encode", "read", "decode", "memorise")
# (method, objects) -> units a frame of the published implementation, and the frames it was fed.
PUBLISHED = {
    ("stcn", 1): 9.6, ("stcn", 3): 21.6, ("gsfm", 1): 20.6, ("gsfm", 3): 55.0, ("qdmn", 1): 15.9,
    ("rde", 1): 11.1, ("rde", 3): 26.4, ("imsfr", 1): 15.5,
}  # fmt: skip
NUM_FRAMES = {"stcn": 11}
OTHERS = 8


def main(argv: list[str] | None = None) -> int:
    """Measure every row, print a table, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS])
    parser.add_argument("--model", help="weights to measure, instead of --methods with fresh ones")
    parser.add_argument("--net_size", default="base", help="of networks with fresh weights")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--precision", nargs="+", default=["float32", "half"])
    parser.add_argument("--frames", type=int, help="default: as the published ones, 11 or 8")
    parser.add_argument("--mem_capacity", type=int, help="frames that memory holds at most")
    parser.add_argument("--mem_half", action="store_true", help="as eval scripts have it (float32)")
    modes = [mode for mode in get_args(CompileMode) if mode]
    parser.add_argument("--compile", default="", choices=modes, help="as eval scripts have it")
    parser.add_argument(
        "--encode_batch", type=int, default=1, help="frames encoded at once; 1: as a live video"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=2, help="clips, of which the best counts")
    parser.add_argument("--output", type=Path, required=True, help="folder for JSON and PNG")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child is not None:
        method, objects, precision = arguments.child
        try:
            print(json.dumps(measure(arguments, method, int(objects), precision)))
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0
    if arguments.repeats < 1 or (arguments.frames is not None and arguments.frames < 3):
        parser.error("--repeats must be at least 1, --frames at least 3")
    if not 1 <= arguments.encode_batch <= LARGEST_BATCH:
        parser.error(f"--encode_batch must lie between 1 and {LARGEST_BATCH}")
    if arguments.mem_half and arguments.precision != ["float32"]:
        parser.error("--mem_half is for float32: add --precision float32")
    try:
        device = pick_device(arguments.device)
        make_clip(3, arguments.height, arguments.width, max(arguments.objects), seed=0)
        arguments.output.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    given = sys.argv[1:] if argv is None else argv
    runs = [
        (method, objects, precision)
        for precision in arguments.precision
        for method in (["file"] if arguments.model else arguments.methods)
        for objects in arguments.objects
    ]
    rows: list[dict[str, Any]] = []
    settings = {name: str(value) for name, value in vars(arguments).items()}
    io_ms = measure_io(arguments.height, arguments.width)
    print(HEADER)
    for run in progressbar.progressbar(runs, redirect_stdout=True):
        command = [sys.executable, __file__, *given, "--child", *map(str, run)]
        unit = measure_unit(device)
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if child.returncode:
            return child.returncode
        rows.append(in_units(json.loads(child.stdout), min(unit, measure_unit(device))))
        print(describe(rows[-1]))
        run_record = {**describe_run(EvalSettings()), "settings": settings}
        content = {"rows": rows, "io_ms": io_ms, **run_record}
        write_json(arguments.output / "speed.json", content)
        draw(rows, arguments.output / "speed.png")
    print(
        f"I/O of a frame, in other threads: {io_ms['decode']:.1f} ms to decode a JPEG, "
        f"{io_ms['encode']:.1f} ms to write a mask."
    )
    return 0


class Stopwatch:
    """Adds up the time of some functions of an object, each call waited for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)

    def time(self, owner: Any, function: str, stage: str) -> None:
        """Time a function of `owner` from here on, as part of a stage."""
        inner: Callable[..., Any] = getattr(owner, function)

        def timed(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = inner(*args, **options)
            synchronise(self._device)
            self.seconds[stage] += time.perf_counter() - start
            return result

        object.__setattr__(owner, function, timed)


def measure(
    arguments: argparse.Namespace, method: str, num_objects: int, precision: str
) -> dict[str, Any]:
    """Segment a drawn clip some times; the best one's seconds a frame, by stage."""
    torch.manual_seed(0)
    network = None
    if method != "file":
        network = build_network(NetworkSpec(method, arguments.net_size))
    settings = EvalSettings(
        model=arguments.model or "",
        device=arguments.device,
        amp=precision == "half",
        precision="auto" if precision == "half" else precision,  # type: ignore[arg-type]
        mem_capacity=arguments.mem_capacity,
        mem_half=arguments.mem_half,
        compile=arguments.compile,
        encode_batch=arguments.encode_batch,
        size=min(arguments.height, arguments.width),
    )
    num_frames = arguments.frames or NUM_FRAMES.get(method, OTHERS)
    predictor = Predictor(settings, network=network)
    loaded = peak_memory(predictor.device)
    clip = make_clip(num_frames, arguments.height, arguments.width, num_objects, seed=0)
    best: dict[str, Any] = {}
    for _ in range(arguments.repeats):
        stopwatch = Stopwatch(predictor.device)
        frames = segment(predictor, stopwatch, clip, num_frames, num_objects)
        if not best or sum(frames) < sum(best["seconds"]):
            best = {"seconds": frames, "stages": stopwatch.seconds}
    as_published = ("base", 480, 854)
    is_as_published = (arguments.net_size, arguments.height, arguments.width) == as_published
    return {
        "method": predictor.network.spec.method,
        "objects": num_objects,
        "precision": str(predictor.network.dtype).removeprefix("torch."),
        "published": PUBLISHED.get((method, num_objects)) if is_as_published else None,
        "median_ms": 1e3 * float(np.median(best["seconds"])),
        "p95_ms": 1e3 * float(np.percentile(best["seconds"], 95)),
        "stages_ms": {k: 1e3 * v / num_frames for k, v in best["stages"].items()},
        "peak_mib": (peak_memory(predictor.device) - loaded) / MIB,
        "ms": [1e3 * s for s in best["seconds"]],
    }


def in_units(row: dict[str, Any], unit: float) -> dict[str, Any]:
    """A row, with its mean in units of so many seconds."""
    return {**row, "unit_ms": 1e3 * unit, "units": float(np.mean(row["ms"])) / (1e3 * unit)}


def segment(
    predictor: Predictor, stopwatch: Stopwatch, clip: Any, num_frames: int, num_objects: int
) -> list[float]:
    """Seconds of each frame of the clip, from RGB to labels.

    Frames that are encoded at once share what that took.
    """
    network = predictor.network
    for function, stage in [
        ("encode_images", "encode"),
        ("encode_query", "encode"),
        ("read", "read"),
        ("decode", "decode"),
        ("encode_memory", "memorise"),
    ]:
        network.__dict__.pop(function, None)  # an earlier clip's
        stopwatch.time(network, function, stage)
    tracker = Tracker(predictor, num_frames, num_objects)
    seconds: list[float] = []
    frames = iter(clip)
    while group := [*itertools.islice(frames, predictor.settings.encode_batch)]:
        start = time.perf_counter()
        looks: list[Any] = [None]
        if len(group) > 1:
            looks = tracker.encode_images([image for image, _ in group])
        shared = (time.perf_counter() - start) / len(group)
        for (image, labels), seen in zip(group, looks, strict=True):
            start = time.perf_counter()
            given = None if seconds else labels
            is_last = len(seconds) == num_frames - 1
            prob = tracker.step(image, given, is_last, encoded=seen)
            assert prob is not None
            label_map(prob, tracker.labels, image.shape[:2])
            seconds.append(shared + time.perf_counter() - start)
    return seconds


def measure_unit(device: torch.device) -> float:
    """Seconds of the unit: the best of 5."""
    image = torch.randn(1, 256, 120, 216, device=device)
    filters = torch.randn(256, 256, 3, 3, device=device) / 48
    best = float("inf")
    with torch.inference_mode():
        for _ in range(5):
            start = time.perf_counter()
            F.conv2d(image, filters, padding=1)
            synchronise(device)
            best = min(best, time.perf_counter() - start)
    return best


def synchronise(device: torch.device) -> None:
    """Wait for what a device was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def measure_io(height: int, width: int) -> dict[str, float]:
    """Milliseconds to decode a frame and to write a mask: the best of 5."""
    image, labels = next(iter(make_clip(1, height, width, 3, seed=0)))
    best = {"decode": float("inf"), "encode": float("inf")}
    with tempfile.TemporaryDirectory() as name:
        frame, mask = Path(name, "frame.jpg"), Path(name, "mask.png")
        Image.fromarray(image).save(frame, quality=95)
        for _ in range(5):
            start = time.perf_counter()
            read_image(frame)
            middle = time.perf_counter()
            write_mask(mask, labels, DAVIS_PALETTE)
            best["decode"] = min(best["decode"], 1e3 * (middle - start))
            best["encode"] = min(best["encode"], 1e3 * (time.perf_counter() - middle))
    return best


HEADER = (
    f"{'method':7}{'precision':>10}{'objects':>8}{'units':>8}{'publ.':>7}{'median':>9}{'p95':>9}"
    + "".join(f"{stage:>10}" for stage in STAGES)
    + f"{'peak MiB':>10}   (ms a frame)"
)


def describe(row: dict[str, Any]) -> str:
    """A line of the table."""
    published = f"{row['published']:7.1f}" if row["published"] else "      -"
    return (
        f"{row['method']:7}{row['precision']:>10}{row['objects']:8}{row['units']:8.2f}{published}"
        f"{row['median_ms']:9.1f}{row['p95_ms']:9.1f}"
        + "".join(f"{row['stages_ms'][stage]:10.1f}" for stage in STAGES)
        + f"{row['peak_mib']:10.0f}{_growth(row['ms'])}"
    )


def _growth(milliseconds: list[float]) -> str:
    """What late frames cost beside early ones, of a clip long enough to tell."""
    if len(milliseconds) < 100:
        return ""
    early, late = np.mean(milliseconds[5:25]), np.mean(milliseconds[-20:])
    return f"   last 20 frames / frames 5 to 24: {late / early:.2f}"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Units a frame of each row, by stage, and what was published."""
    figure, axes = plt.subplots(figsize=(9, 1 + 0.36 * len(rows)))
    names = [f"{r['method']} {r['precision']}, {r['objects']} obj." for r in rows]
    left = np.zeros(len(rows))
    for stage in STAGES:
        width = np.array([r["stages_ms"][stage] / r["unit_ms"] for r in rows])
        axes.barh(names, width, left=left, label=stage)
        left += width
    rest = np.array([r["units"] for r in rows]) - left
    axes.barh(names, rest.clip(min=0), left=left, label="other", color="0.7")
    for at, row in enumerate(rows):
        if row["published"]:
            label = "published (float32)" if at == 0 else None
            axes.plot([row["published"]] * 2, [at - 0.4, at + 0.4], color="k", label=label)
    axes.invert_yaxis()
    axes.set_xlabel("units a frame")
    axes.legend(fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    save_figure(figure, path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
