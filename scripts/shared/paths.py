"""Types of argparse for results: a path that cannot be written is refused before the work."""

from __future__ import annotations

import argparse
from pathlib import Path


def output_file(text: str) -> Path:
    """Path of a file to write; missing folders are made when it is written."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder: name a file.")
    output_folder(str(path.parent))
    return path


def output_folder(text: str) -> Path:
    """Path of a folder to write to, which may not exist yet."""
    path = Path(text)
    for folder in (path, *path.parents):
        if folder.exists() and not folder.is_dir():
            raise argparse.ArgumentTypeError(f"{folder} is not a folder: choose another path.")
    return path
