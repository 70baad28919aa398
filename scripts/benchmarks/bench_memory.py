"""Peak memory of a session against the length of the video.

    python scripts/benchmarks/bench_memory.py --model saves/stcn_small.pth --frames 60 600

Each length runs in a process of its own, on the same synthetic clip. Beyond the stored memory
frames, the peak must not depend on the length.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import progressbar
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets.synthetic import make_clip
from inference.predictor import Predictor
from util.devices import peak_memory
from util.hyper_para import EvalSettings

MIB = 2**20


def main(argv: list[str] | None = None) -> int:
    """Measure every length and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="saves/stcn_small.pth")
    parser.add_argument("--frames", type=int, nargs="+", default=[60, 600])
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--mem_every", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if min(arguments.frames) < 1:
        parser.error("--frames must be at least 1")
    if not Path(arguments.model).is_file():
        parser.error(f"there is no file {arguments.model}: give weights with --model")
    if arguments.child is not None:
        print(json.dumps(measure(arguments, arguments.child)))
        return 0
    given = sys.argv[1:] if argv is None else argv
    rows = []
    for num_frames in arguments.frames:
        command = [sys.executable, __file__, *given, "--child", str(num_frames)]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if child.returncode:
            return child.returncode
        rows.append(json.loads(child.stdout))
    print("frames   peak MiB   stored MiB   peak - stored   beside loaded network")
    for row in rows:
        print(
            f"{row['frames']:6d} {row['peak']:10.1f} {row['stored']:12.1f} "
            f"{row['peak'] - row['stored']:15.1f} "
            f"{row['peak'] - row['stored'] - row['loaded']:23.1f}"
        )
    beyond = [row["peak"] - row["stored"] for row in rows]
    print(f"peak beyond stored: longest / shortest = {beyond[-1] / beyond[0]:.4f}")
    return 0


def measure(arguments: argparse.Namespace, num_frames: int) -> dict[str, float]:
    """Segment a clip; MiB at the peak, stored at the end, and before the first frame."""
    predictor = Predictor(
        EvalSettings(
            model=arguments.model,
            device=arguments.device,
            amp=arguments.amp,
            mem_every=arguments.mem_every,
        )
    )
    loaded = peak_memory(predictor.device) / MIB
    core = predictor.start(num_frames)
    clip = make_clip(num_frames, arguments.height, arguments.width, arguments.objects, seed=0)
    for index, (image, labels) in enumerate(progressbar.progressbar(clip)):
        frame = torch.from_numpy(image).to(predictor.device).permute(2, 0, 1)
        masks = None
        if index == 0:
            first = torch.from_numpy(labels).to(predictor.device)
            masks = {o: (first == o).float() for o in range(1, clip.num_objects + 1)}
        core.step(predictor.normalise(frame), masks, is_last=index == num_frames - 1)
    stored = core.bytes_stored / MIB
    return {
        "frames": num_frames,
        "peak": peak_memory(predictor.device) / MIB,
        "stored": stored,
        "loaded": loaded,
    }


if __name__ == "__main__":
    sys.exit(main())
