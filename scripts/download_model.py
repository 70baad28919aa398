"""Download published weights from Google Drive to saves/.

Example: python scripts/download_model.py --models stcn_s012 rde
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.download import Item, fetch_all, run
from util.command_line import script_parser

MODELS = {
    item.name: item
    for item in (
        Item("stcn_s012", "1mRrE0uCI2ktdWlUgapJI_KmgeIiF2eOm", "stcn.pth", "file"),
        Item("stcn_s03", "1JllXPJZola0G-g1aUQfXe9nLMBioj-aH", "stcn_s03.pth", "file"),
        Item("qdmn_s012", "1fdiGFGol1ecVowPe6gfRHsRs9zCThFXB", "qdmn_s012.pth", "file"),
        Item("rde", "1i6GtLPUNZe0h72IfhU2s_WHA7ZuVoudG", "rde", "folder"),
    )
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument(
        "--models",
        nargs="+",
        choices=MODELS,
        default=["stcn_s012"],
        help="weights to download: "
        + ", ".join(f"{item.name} (saved as {item.destination})" for item in MODELS.values())
        + " (default: stcn_s012)",
    )
    parser.add_argument(
        "--saves", type=Path, default=Path("saves"), help="folder of the weights (default: saves)"
    )
    return parser.parse_args(argv)


def work(args: argparse.Namespace) -> int:
    """Download the chosen weights; returns the exit status."""
    failures = fetch_all([MODELS[name] for name in args.models], args.saves)
    if failures:
        raise ValueError("\n".join(failures))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Parse and run; returns the exit status."""
    return run(work, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
