"""Download BL30K, six archives of about 115 GB each, to data/BL30K.

BL30K is a derivative of ShapeNet and not for commercial use; cite ShapeNet and MiVOS
(https://github.com/hkchengrex/MiVOS). Complete parts are skipped, and an interrupted part is
resumed. Google may refuse downloads of this size. In that case, add a shortcut of the folder to
your own Google Drive, copy the archives with rclone to the paths in the error message, and run this
again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.download import Item, archive_path, fetch_all, is_present, run
from util.command_line import script_parser

PART_GB = 115  # size of an archive, and of its extracted files
PARTS = tuple(
    Item(name, file_id, "BL30K", "part", ("JPEGImages", "Annotations"))
    for name, file_id in (
        ("BL30K_a", "1z9V5zxLOJLNt1Uj7RFqaP2FZWKzyXvVc"),
        ("BL30K_b", "11-IzgNwEAPxgagb67FSrBdzZR7OKAEdJ"),
        ("BL30K_c", "1ZfIv6GTo-OGpXpoKen1fUvDQ0A_WoQ-Q"),
        ("BL30K_d", "1G4eXgYS2kL7_Cc0x3N1g1x7Zl8D_aU_-"),
        ("BL30K_e", "1Y8q0V_oBwJIY27W_6-8CD1dRqV2gNTdE"),
        ("BL30K_f", "1nawBAazf_unMv46qGBHhWcQ4JXZ5883r"),
    )
)


def needed_gb(missing: Sequence[Item], root: Path) -> int:
    """Disk space in GB for the missing parts, and for one archive during its extraction."""
    to_download = [item for item in missing if not archive_path(item, root).exists()]
    return PART_GB * (len(to_download) + 1)


def check_room(missing: Sequence[Item], root: Path) -> None:
    """Check the free disk space.

    Raises:
        ValueError: there is not enough free space for the missing parts.
    """
    folder = root / "BL30K"
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free // 10**9
    needed = needed_gb(missing, root)
    print(f"{len(missing)} parts of BL30K are missing; they need {needed} GB, {free} GB are free.")
    if free < needed:
        raise ValueError(
            f"BL30K needs {needed} GB of disk space in {root}, but only {free} GB are free; free "
            "more, or choose another disk with --root."
        )


def is_confirmed() -> bool:
    """Ask for confirmation; returns True if the user answers yes.

    Raises:
        ValueError: standard input is closed.
    """
    try:
        return input("Download and extract them? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        raise ValueError(
            "The download cannot be confirmed without a terminal; add --yes to download BL30K."
        ) from None


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument(
        "--root", type=Path, default=Path("data"), help="parent folder of BL30K (default: data)"
    )
    parser.add_argument("--yes", action="store_true", help="download without asking")
    return parser.parse_args(argv)


def work(args: argparse.Namespace) -> int:
    """Download the missing parts; returns the exit status."""
    missing = [item for item in PARTS if not is_present(item, args.root)]
    if not missing:
        print(f"{args.root / 'BL30K'} is complete.")
        return 0
    check_room(missing, args.root)
    if not args.yes and not is_confirmed():
        print("Nothing was downloaded.")
        return 1
    failures = fetch_all(missing, args.root)
    if failures:
        raise ValueError("\n".join(failures))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Parse and run; returns the exit status."""
    return run(work, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
