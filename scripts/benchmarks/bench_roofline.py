"""Compare the time of a frame with this machine's limit (roofline model).

    python scripts/benchmarks/bench_roofline.py --output out/roofline.json

The frame is propagated with one frame in memory and is not stored (QDMN stores every frame). For
every convolution and matrix product, the script counts the operations, as published ("direct") and
as executed here ("done": a quarter where a 3x3 convolution uses Winograd's algorithm), and the
bytes of its inputs and outputs. The least time of an operation is the larger of (operations / peak
rate) and (bytes / memory bandwidth), if nothing is in a cache. The bound of a frame is the sum over
its operations. "share" is the bound divided by the time of the fastest frame; the rest is spent on
sums, ReLUs, upsampling and top-k.

Both peaks are measured, best of 5: matrix products of 4096x4096 and the convolution of
bench_inference.py in the precision of the network, and copies of 256 MiB.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.shared.paths import output_file
from util.command_line import script_parser
from util.hyper_para import EvalSettings, Precision
from util.plugins import add_plugin_option
from util.presets import METHOD_PRESETS


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    add_plugin_option(parser, argv)
    methods = [*METHOD_PRESETS]
    parser.add_argument(
        "--methods",
        nargs="+",
        default=methods,
        choices=methods,
        help="methods to measure (default: all)",
    )
    parser.add_argument(
        "--net_size",
        default="base",
        choices=("base", "small", "tiny"),
        help="widths of the networks (default: base)",
    )
    parser.add_argument("--height", type=int, default=480, help="in pixels (default: 480)")
    parser.add_argument("--width", type=int, default=854, help="in pixels (default: 854)")
    parser.add_argument(
        "--objects", type=int, nargs="+", default=[1, 3], help="numbers of objects (default: 1 3)"
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["float32", "half"],
        choices=("half", *get_args(Precision)),
        help="half: float16 on GPUs, bfloat16 on CPUs (default: float32 half)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument(
        "--output", type=output_file, required=True, metavar="FILE", help="JSON file to write"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import progressbar
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from datasets.synthetic import make_clip
from inference.predictor import Predictor
from inference.tracker import Tracker
from model.compiled import tensors_of
from model.convolution import Conv2d
from model.methods import build_network
from model.native.winograd import Winograd
from model.network import NetworkSpec
from scripts.benchmarks.timing import REPEATS, time_call
from util.files import write_json
from util.provenance import describe_run

SIDE = 4096  # of the square matrices that are multiplied to measure the peak


def main(argv: Sequence[str] | None = None) -> int:
    """Count, measure, print, write; return the exit status."""
    arguments = parse(argv)
    runs = [
        (precision, method, objects)
        for precision in arguments.precision
        for method in arguments.methods
        for objects in arguments.objects
    ]
    settings = {name: str(value) for name, value in vars(arguments).items()}
    run_record = {**describe_run(EvalSettings()), "settings": settings}
    rows: list[dict[str, Any]] = []
    peaks: dict[str, Peak] = {}
    try:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        make_clip(3, arguments.height, arguments.width, max(arguments.objects), seed=0)
        for precision, method, objects in progressbar.progressbar(runs, redirect_stdout=True):
            rows.append(measure(arguments, precision, method, objects, peaks))
            if len(rows) == 1:
                print(HEADER)
            print(format_row(rows[-1]))
            content = {"rows": rows, "peaks": {k: v._asdict() for k, v in peaks.items()}}
            write_json(arguments.output, {**content, **run_record})
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, peak in peaks.items():
        print(
            f"Peaks in {name}: {peak.operations / 1e9:.0f} billion operations per second, "
            f"{peak.bandwidth / 1e9:.0f} GB per second."
        )
    return 0


class Peak(NamedTuple):
    """Peak rates of a machine, per second."""

    operations: float
    bandwidth: float  # bytes read and written


def best_seconds(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of 5 calls, after one call to warm up."""
    return min([time_call(run, device) for _ in range(REPEATS + 1)][1:])


@torch.inference_mode()
def measure_peak(device: torch.device, dtype: torch.dtype) -> Peak:
    """Measure the peak rates of a device in a precision."""
    matrix = torch.randn(SIDE, SIDE, device=device).to(dtype)
    image = torch.randn(1, 256, 120, 216, device=device).to(dtype)
    image = image.contiguous(memory_format=torch.channels_last)
    filters = torch.randn(256, 256, 3, 3, device=device).to(dtype) / 48
    product_seconds = best_seconds(lambda: matrix @ matrix, device)
    convolution_seconds = best_seconds(lambda: F.conv2d(image, filters, padding=1), device)
    rates = (2 * SIDE**3 / product_seconds, 2 * 9 * 256**2 * 120 * 216 / convolution_seconds)
    source = torch.ones(2**28, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return Peak(max(rates), 2 * 2**28 / best_seconds(lambda: target.copy_(source), device))


class Counter(TorchDispatchMode):
    """Context that counts the operations and bytes of convolutions and matrix products.

    Args:
        peak: peak rates of the machine, for the bound.
        winograd: convolutions that it supports count a quarter of their operations. None disables
            this.
    """

    def __init__(self, peak: Peak, winograd: Winograd | None) -> None:
        super().__init__()
        self._peak, self._winograd = peak, winograd
        self.direct = self.operations = self.bytes = 0
        self.bound = 0.0  # seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:  # a composite function, which may contain counted ones
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        if formula is None:
            return result
        moved = sum(tensor.nbytes for tensor in tensors_of((args, result)))
        direct = int(formula(*args, **kwargs, out_val=result))
        winograd = self._winograd if _is_plain(args) else None
        done = direct // 4 if winograd is not None and winograd.supports(args[1]) else direct
        self.direct += direct
        self.operations += done
        self.bytes += moved
        self.bound += max(done / self._peak.operations, moved / self._peak.bandwidth)
        return result


def _is_plain(args: Any) -> bool:
    """Return True for the arguments of a 3x3 convolution that keeps the size.

    args: (image, weight, bias, stride, padding, dilation, ...).
    """
    if len(args) < 6 or args[1].ndim != 4:
        return False
    return args[1].shape[2:] == (3, 3) and [*args[3], *args[4], *args[5]] == [1] * 6


def measure(
    arguments: argparse.Namespace,
    precision: str,
    method: str,
    num_objects: int,
    peaks: dict[str, Peak],
) -> dict[str, Any]:
    """Measure a row of the table.

    peaks: peak rates by precision; a missing one is measured and added.

    Raises:
        ValueError: the device is not available.
    """
    torch.manual_seed(0)
    settings = EvalSettings(
        device=arguments.device,
        amp=precision == "half",
        precision="auto" if precision == "half" else precision,  # type: ignore[arg-type]
        mem_every=1000,
    )
    predictor = Predictor(settings, network=build_network(NetworkSpec(method, arguments.net_size)))
    device, dtype = predictor.device, predictor.network.dtype
    name = str(dtype).removeprefix("torch.")
    if name not in peaks:
        peaks[name] = measure_peak(device, dtype)
    clip = make_clip(3 + REPEATS, arguments.height, arguments.width, num_objects, seed=0)
    (image, labels), *others = clip
    tracker = Tracker(predictor, 3 + REPEATS, num_objects)
    tracker.step(image, labels)
    seconds = []
    for frame, _ in others[:-1]:
        start = time.perf_counter()
        tracker.step(frame)
        seconds.append(time.perf_counter() - start)
    packing = predictor.network.decoder.pred.packing
    for module in predictor.network.modules():
        if isinstance(module, Conv2d):
            module.pack(None)  # packed convolutions are invisible to the counter
    native = packing and packing.native
    counter = Counter(peaks[name], native.winograd if native is not None else None)
    with counter:
        tracker.step(others[-1][0])
    return {
        "method": method,
        "objects": num_objects,
        "precision": name,
        "direct_gflop": counter.direct / 1e9,
        "gflop": counter.operations / 1e9,
        "megabytes": counter.bytes / 1e6,
        "bound_ms": 1e3 * counter.bound,
        "ms": 1e3 * min(seconds[1:]),
        "share": counter.bound / min(seconds[1:]),
    }


COLUMNS = {
    "direct_gflop": "direct",
    "gflop": "done",
    "megabytes": "MB",
    "bound_ms": "bound ms",
    "ms": "ms",
}
HEADER = (
    f"{'method':7}{'precision':>10}{'objects':>8}"
    + "".join(f"{title:>10}" for title in COLUMNS.values())
    + f"{'share':>7}   (direct, done: billions of operations)"
)


def format_row(row: dict[str, Any]) -> str:
    """Format a line of the table."""
    return (
        f"{row['method']:7}{row['precision']:>10}{row['objects']:8}"
        + "".join(f"{row[name]:10.1f}" for name in COLUMNS)
        + f"{100 * row['share']:6.0f}%"
    )


if __name__ == "__main__":
    sys.exit(main())
