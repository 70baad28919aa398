"""Export weights for publication: half precision, with the record of the training run.

    python scripts/export_weights.py saves/run/run_1000.pth saves/mine.pth
    python scripts/export_weights.py saves/run/run_{600,800,1000}.pth saves/mine.pth

Several files of one run are averaged: the mean of the last weights of a run varies less than each
of them (Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI
2018). All commands load the result like other weights. Published weights get the tensor names of
this code.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.command_line import script_parser
from util.plugins import add_plugin_option


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    add_plugin_option(parser, argv)
    parser.add_argument(
        "sources", type=Path, nargs="+", help="files of weights, of this code or published"
    )
    parser.add_argument("target", type=Path, help="file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing target")
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import torch

from model.checkpoint import FORMAT, StateDict, read_file, read_weights, write_file
from model.network import NetworkSpec


def main(argv: Sequence[str] | None = None) -> int:
    """Average files of weights, convert them to half precision and write the result.

    Returns:
        The exit status: 2 if a file cannot be read or written, else 0.
    """
    arguments = parse(argv)
    try:
        if arguments.target.exists() and not arguments.overwrite:
            raise ValueError(
                f"{arguments.target} already exists: give another target as the last file, or "
                "--overwrite."
            )
        spec, weights = average(arguments.sources)
        half = {k: _to_half(k, v) for k, v in weights.items()}
        overflowed = [k for k, v in half.items() if (v.isinf() & ~weights[k].isinf()).any()]
        if overflowed:
            raise ValueError(
                f"{overflowed[0]} does not fit into half precision: use the original file."
            )
        record = {**read_file(arguments.sources[-1]).get("record", {})}
        record["averaged"] = [path.name for path in arguments.sources]
        content = {"format": FORMAT, "spec": asdict(spec), "weights": half, "record": record}
        write_file(arguments.target, content)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.target}: {arguments.target.stat().st_size / 1e6:.1f} MB")
    return 0


def _to_half(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Convert to half precision, except statistics of batch norms, which can be too large."""
    is_statistic = name.rpartition(".")[2] in ("running_mean", "running_var")
    return tensor.half() if tensor.is_floating_point() and not is_statistic else tensor


def average(paths: Sequence[Path]) -> tuple[NetworkSpec, StateDict]:
    """Average the weights of several files.

    Raises:
        ValueError: a file cannot be read, or the files contain different networks.
    """
    spec, first = read_weights(paths[0])
    total = {k: v.double() if v.is_floating_point() else v for k, v in first.items()}
    for path in paths[1:]:
        other_spec, weights = read_weights(path)
        if other_spec != spec or weights.keys() != first.keys():
            raise ValueError(
                f"{path} contains a different network than {paths[0]}: give files of one run."
            )
        for name, tensor in weights.items():
            if tensor.is_floating_point():
                total[name] = total[name] + tensor.double()
    return spec, {
        k: (v / len(paths)).float() if v.is_floating_point() else v for k, v in total.items()
    }


if __name__ == "__main__":
    sys.exit(main())
