"""Make a small file of weights to hand out: half precision, with its record inside.

    python scripts/export_weights.py saves/run/run_1000.pth saves/mine.pth
    python scripts/export_weights.py saves/run/run_{600,800,1000}.pth saves/mine.pth

Several files of one run are averaged: the mean of the last weights of a run is steadier than any
of them (Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI
2018). The result loads as any other file of weights; published ones are converted to our names.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from model.checkpoint import FORMAT, StateDict, read_file, read_weights, write_file
from model.network import NetworkSpec


def main(argv: list[str] | None = None) -> int:
    """Read, average, halve, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", type=Path, nargs="+", help="files of weights, ours or published")
    parser.add_argument("target", type=Path, help="the file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the target")
    arguments = parser.parse_args(argv)
    try:
        if arguments.target.exists() and not arguments.overwrite:
            raise ValueError(
                f"{arguments.target} exists already: give another target after the sources, or "
                "--overwrite."
            )
        spec, weights = average(arguments.sources)
        halved = {k: _halve(k, v) for k, v in weights.items()}
        overflown = [k for k, v in halved.items() if (v.isinf() & ~weights[k].isinf()).any()]
        if overflown:
            raise ValueError(f"{overflown[0]} does not fit into half precision.")
        record = {**read_file(arguments.sources[-1]).get("record", {})}
        record["averaged"] = [path.name for path in arguments.sources]
        content = {"format": FORMAT, "spec": asdict(spec), "weights": halved, "record": record}
        write_file(arguments.target, content)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.target}: {arguments.target.stat().st_size / 1e6:.1f} MB")
    return 0


def _halve(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Half precision, save for batch norms' statistics: few numbers, of any magnitude."""
    is_statistic = name.rpartition(".")[2] in ("running_mean", "running_var")
    return tensor.half() if tensor.is_floating_point() and not is_statistic else tensor


def average(paths: Sequence[Path]) -> tuple[NetworkSpec, StateDict]:
    """The mean of the weights in some files.

    Raises:
        ValueError: a file cannot be read, or the files hold different networks.
    """
    spec, first = read_weights(paths[0])
    total = {k: v.double() if v.is_floating_point() else v for k, v in first.items()}
    for path in paths[1:]:
        other_spec, weights = read_weights(path)
        if other_spec != spec or weights.keys() != first.keys():
            raise ValueError(f"{path} holds another network than {paths[0]}: average one run's.")
        for name, tensor in weights.items():
            if tensor.is_floating_point():
                total[name] = total[name] + tensor.double()
    return spec, {
        k: (v / len(paths)).float() if v.is_floating_point() else v for k, v in total.items()
    }


if __name__ == "__main__":
    sys.exit(main())
