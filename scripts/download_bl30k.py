"""Download BL30K, six archives of about 115 GB each, into data/BL30K.

BL30K is a derivative of ShapeNet, not for commercial use; cite ShapeNet and MiVOS
(https://github.com/hkchengrex/MiVOS). Parts that are there already are skipped, and an interrupted
part goes on where it stopped. Google may refuse downloads of this size: then make a shortcut of the
folder in a Google Drive of your own, copy the archives with rclone to where the error message says,
and run this again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.download import Item, archive_path, fetch_all, is_present, run

PART_GB = 115  # of an archive, and of what is in it
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
    """Room for the missing parts and, while the last one is extracted, for its archive too."""
    to_download = [item for item in missing if not archive_path(item, root).exists()]
    return PART_GB * (len(to_download) + 1)


def check_room(missing: Sequence[Item], root: Path) -> None:
    """Raises ValueError with what is needed and what is free."""
    place = root / "BL30K"
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free // 10**9
    needed = needed_gb(missing, root)
    print(f"{len(missing)} parts of BL30K are missing; they need {needed} GB, {free} GB are free.")
    if free < needed:
        raise ValueError(
            f"BL30K needs {needed} GB of free disk space below {root}, but only {free} GB are "
            "free; free some, or put it on another disk with --root."
        )


def confirmed() -> bool:
    try:
        return input("Download and extract them? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        raise ValueError("Nobody is there to confirm; add --yes to download BL30K.") from None


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("data"), help="BL30K is put below it")
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    return parser.parse_args(argv)


def work(args: argparse.Namespace) -> int:
    missing = [item for item in PARTS if not is_present(item, args.root)]
    if not missing:
        print(f"All parts of BL30K are in {args.root / 'BL30K'} already.")
        return 0
    check_room(missing, args.root)
    if not args.yes and not confirmed():
        print("Nothing was downloaded.")
        return 1
    failures = fetch_all(missing, args.root)
    if failures:
        raise ValueError("\n".join(failures))
    return 0


def main(argv: list[str] | None = None) -> int:
    return run(work, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
