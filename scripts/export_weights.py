"""Make a small file of weights to hand out: half precision, with its record inside.

    python scripts/export_weights.py saves/run/run_1000.pth saves/mine.pth

It loads as any other file of weights; published checkpoints are converted to our names.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from model.checkpoint import FORMAT, read_file, read_weights, write_file


def main(argv: list[str] | None = None) -> int:
    """Read, halve, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="our own file of weights, or a published one")
    parser.add_argument("target", type=Path, help="the file to write")
    arguments = parser.parse_args(argv)
    try:
        spec, weights = read_weights(arguments.source)
        halved = {k: v.half() if v.dtype == torch.float32 else v for k, v in weights.items()}
        overflown = [k for k, v in halved.items() if not torch.isfinite(v).all()]
        if overflown:
            raise ValueError(f"{overflown[0]} does not fit into half precision.")
        record = read_file(arguments.source).get("record", {})
        content = {"format": FORMAT, "spec": asdict(spec), "weights": halved, "record": record}
        write_file(arguments.target, content)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.target}: {arguments.target.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
