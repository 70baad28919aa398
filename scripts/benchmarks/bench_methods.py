"""Memory and time per frame of all methods over a long video.

    python scripts/benchmarks/bench_methods.py --frames 1000 --output out/methods

Networks have fresh weights, which cost what trained ones do. Each remembers as it was published
(solid lines) and, where that grows, with at most --mem_capacity frames (dashed). Every method runs
in a process of its own. Writes methods.json and methods.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import progressbar
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets.synthetic import make_clip
from inference.predictor import make_policy
from inference_core import InferenceCore
from model.methods import METHODS, build_network
from model.network import NetworkSpec
from util.devices import pick_device, pick_dtype
from util.figures import save_figure
from util.files import write_json
from util.hyper_para import EvalSettings
from util.parse_settings import of_method

MIB = 2**20
_TENTH = 10  # shares of the video whose times are compared


def main(argv: list[str] | None = None) -> int:
    """Measure every method, print a table, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS])
    parser.add_argument("--size", default="small")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=432)
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument("--mem_capacity", type=int, default=22)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--amp", action="store_true", help="half precision")
    parser.add_argument("--output", type=Path, required=True, help="folder for JSON and PNG")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.frames < 2 * _TENTH:
        parser.error(f"--frames must be at least {2 * _TENTH}")
    if arguments.child is not None:
        method, capacity = arguments.child
        print(json.dumps(measure(arguments, method, int(capacity) or None)))
        return 0
    given = sys.argv[1:] if argv is None else argv
    runs = []
    for method in arguments.methods:
        published = of_method(EvalSettings(), method)
        is_capped = published.mem_capacity or published.memory == "sam"
        runs += [(method, 0)] + [(method, arguments.mem_capacity)] * (not is_capped)
    rows: list[dict[str, Any]] = []
    settings = {name: str(value) for name, value in vars(arguments).items()}
    arguments.output.mkdir(parents=True, exist_ok=True)
    for method, capacity in progressbar.progressbar(runs, redirect_stdout=True):
        command = [sys.executable, __file__, *given, "--child", method, str(capacity)]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if child.returncode:
            return child.returncode
        rows.append(json.loads(child.stdout))
        print(describe(rows[-1]))
        write_json(arguments.output / "methods.json", {"settings": settings, "rows": rows})
        draw(rows, arguments.output / "methods.png")
    return 0


def measure(arguments: argparse.Namespace, method: str, capacity: int | None) -> dict[str, Any]:
    """Segment a drawn clip; seconds and MiB stored at each frame."""
    device = pick_device(arguments.device)
    dtype = pick_dtype("auto", device, use_half=arguments.amp)
    torch.manual_seed(0)
    network = build_network(NetworkSpec(method, arguments.size)).for_inference(device, dtype)
    settings = of_method(EvalSettings(mem_capacity=capacity), method)
    policy = make_policy(network, settings)
    core = InferenceCore(network, policy, settings.top or None, arguments.frames)
    clip = make_clip(arguments.frames, arguments.height, arguments.width, arguments.objects, seed=0)
    seconds, stored = [], []
    for index, (image, labels) in enumerate(clip):
        frame = network.normalise(torch.from_numpy(image).to(device).permute(2, 0, 1))
        masks = None
        if index == 0:
            first = torch.from_numpy(labels).to(device)
            masks = {o: (first == o).float() for o in range(1, clip.num_objects + 1)}
        start = time.perf_counter()
        core.step(frame, masks, is_last=index == arguments.frames - 1)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
        stored.append(core.bytes_stored / MIB)
    return {"method": method, "capacity": capacity, "seconds": seconds, "stored": stored}


def describe(row: dict[str, Any]) -> str:
    """One line: the first tenth of the frames beside the last."""
    seconds, tenth = row["seconds"], len(row["seconds"]) // _TENTH
    early, late = np.median(seconds[tenth : 2 * tenth]), np.median(seconds[-tenth:])
    cap = f"at most {row['capacity']}" if row["capacity"] else "as published"
    return (
        f"{row['method']:6} {cap:14} {row['stored'][-1]:8.1f} MiB stored, "
        f"{1000 * early:7.1f} ms a frame in the second tenth, {1000 * late:7.1f} in the last "
        f"({late / early:.2f})"
    )


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Curves of all runs over the frames."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
    colours = {method: f"C{number}" for number, method in enumerate(METHODS)}
    for row in rows:
        line = "--" if row["capacity"] else "-"
        label = row["method"] + (f", at most {row['capacity']}" if row["capacity"] else "")
        style = {"color": colours[row["method"]], "linestyle": line, "label": label}
        window = max(len(row["seconds"]) // 40, 1)
        usable = len(row["seconds"]) // window * window
        medians = np.median(np.reshape(row["seconds"][:usable], (-1, window)), axis=1)
        left.plot(row["stored"], **style)
        right.plot(np.arange(len(medians)) * window, 1000 * medians, **style)
    left.set(xlabel="frame", ylabel="memory frames stored (MiB)", yscale="log")
    right.set(xlabel="frame", ylabel="time per frame (ms)", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.legend(fontsize=7, ncol=2)
    save_figure(figure, path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
