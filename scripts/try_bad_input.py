"""Feed bad input to the eval and training scripts, and print what each of them says.

    python scripts/try_bad_input.py

Everything happens in a temporary folder, on synthetic data and random weights. Exits with 1 where
bad input was taken, or where a traceback came instead of a sentence.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import pickle
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import eval_generic
import train
from datasets.synthetic import make_clip
from model.checkpoint import save_network
from model.methods import build_network
from model.network import NetworkSpec
from util.masks import DAVIS_PALETTE, write_mask

NUM_FRAMES = 6


class Bench:
    """A folder with one good video, weights, and ways to run the scripts on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.output = folder / "out"
        self.model = folder / "tiny.pth"
        torch.manual_seed(0)
        save_network(self.model, build_network(NetworkSpec(size="tiny")), {})
        self.reset()

    def reset(self) -> None:
        """The good video again, and no output."""
        shutil.rmtree(self.data, ignore_errors=True)
        if self.output.is_file():
            self.output.unlink()
        shutil.rmtree(self.output, ignore_errors=True)
        for name in ("bear", "camel"):
            self.frames(name).mkdir(parents=True)
            for index, (image, labels) in enumerate(make_clip(NUM_FRAMES, 64, 96, 2, seed=1)):
                Image.fromarray(image).save(self.frames(name) / f"{index:05d}.jpg")
                if index == 0:
                    write_mask(self.mask(name), labels, DAVIS_PALETTE)

    def frames(self, name: str = "bear") -> Path:
        return self.data / "JPEGImages" / name

    def mask(self, name: str = "bear") -> Path:
        return self.data / "Annotations" / name / "00000.png"

    def segment(self, *further: str, model: Path | None = None) -> int:
        paths = ["--model", model or self.model, "--data_path", self.data, "--output", self.output]
        return eval_generic.main([*map(str, paths), "--size", "0", "--device", "cpu", *further])

    def num_masks(self) -> int:
        return len([*self.output.glob("*/*.png")])


def truncated_jpeg(bench: Bench) -> int:
    """a truncated JPEG"""
    path = bench.frames() / "00003.jpg"
    path.write_bytes(path.read_bytes()[:900])
    return bench.segment()


def missing_frame(bench: Bench) -> int:
    """a missing frame"""
    (bench.frames() / "00003.jpg").unlink()
    return bench.segment()


def mask_of_another_size(bench: Bench) -> int:
    """a mask of another size"""
    write_mask(bench.mask(), np.ones((32, 48), np.uint8), DAVIS_PALETTE)
    return bench.segment()


def anti_aliased_mask(bench: Bench) -> int:
    """an anti-aliased mask"""
    disc = cv2.circle(np.zeros((16, 24), np.uint8), (12, 8), 6, 255, -1)
    write_mask(bench.mask(), cv2.resize(disc, (96, 64), interpolation=cv2.INTER_LINEAR), None)
    return bench.segment()


def empty_first_mask(bench: Bench) -> int:
    """an empty first mask"""
    write_mask(bench.mask(), np.zeros((64, 96), np.uint8), DAVIS_PALETTE)
    return bench.segment()


def no_checkpoint(bench: Bench) -> int:
    """a checkpoint that is not one"""
    path = bench.folder / "notes.pth"
    path.write_text("these are not weights\n")
    return bench.segment(model=path)


class _Code:
    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return print, ("THE PICKLED CODE RAN",)


def pickled_code(bench: Bench) -> int:
    """a checkpoint with pickled code"""
    path = bench.folder / "code.pth"
    path.write_bytes(pickle.dumps({"weights": _Code()}))
    return bench.segment(model=path)


def other_network(bench: Bench) -> int:
    """a checkpoint of another network"""
    path = bench.folder / "other.pth"
    torch.save({"backbone.conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    return bench.segment(model=path)


def output_not_writable(bench: Bench) -> int:
    """an output folder that cannot be written"""
    bench.output.write_text("a file stands where the folder should be\n")
    return bench.segment()


def misspelt_flag(bench: Bench) -> int:
    """a flag misspelt"""
    return bench.segment("--mem_evry", "5")


def flag_of_another_script(bench: Bench) -> int:
    """a flag of another script"""
    return train.main(["--id", "x", "--mem_every", "5"])


def stage_not_here(bench: Bench) -> int:
    """a stage that is not here yet"""
    return train.main(["--id", "x", "--stage", "3"])


def no_training_data(bench: Bench) -> int:
    """training without data"""
    return train.main(["--id", "x", "--static_root", str(bench.folder / "nowhere")])


def other_settings(bench: Bench) -> int:
    """another setting into the same output"""
    assert bench.segment() == 0
    return bench.segment("--mem_every", "2")


REFUSED = (
    truncated_jpeg, missing_frame, mask_of_another_size, anti_aliased_mask, empty_first_mask,
    no_checkpoint, pickled_code, other_network, output_not_writable, misspelt_flag,
    flag_of_another_script, stage_not_here, no_training_data, other_settings,
)  # fmt: skip


def one_frame_video(bench: Bench) -> str:
    """a video of one frame"""
    for path in sorted(bench.frames().glob("*.jpg"))[1:]:
        path.unlink()
    status = bench.segment()
    return f"exit {status}, {len([*(bench.output / 'bear').glob('*.png')])} mask"


def interrupted_run(bench: Bench) -> str:
    """a run interrupted half-way, and run again"""
    bench.segment()
    whole = {path.name: path.read_bytes() for path in bench.output.glob("camel/*.png")}
    shutil.move(bench.output / "camel", bench.output / ".camel.partial")
    (bench.output / ".camel.partial" / "00004.png").unlink()
    before = (bench.output / "bear" / "00001.png").stat().st_mtime_ns
    status = bench.segment()
    again = {path.name: path.read_bytes() for path in bench.output.glob("camel/*.png")}
    kept = before == (bench.output / "bear" / "00001.png").stat().st_mtime_ns
    return f"exit {status}, masks identical: {again == whole}, finished video left alone: {kept}"


def _quietly(action: Callable[[], int | str]) -> tuple[int | str | None, str]:
    """What it returns, and what it printed; None where it raised."""
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
        try:
            status: int | str | None = action()
        except SystemExit as stop:
            status = stop.code
        except Exception:
            traceback.print_exc()
            status = None
    words = ("error:", "FAILED", "RAN", "Error")
    lines = [line for line in printed.getvalue().splitlines() if any(w in line for w in words)]
    return status, "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run them all."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(argv)
    num_wrong = 0
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        for fault in REFUSED:
            bench.reset()
            status, said = _quietly(lambda fault=fault: fault(bench))  # type: ignore[misc]
            num_masks = bench.num_masks()
            said = said.replace(name, "TMP")
            print(f"* {fault.__doc__}: exit {status}, {num_masks} masks kept\n    {said}")
            num_wrong += status not in (1, 2) or not said or "RAN" in said
        for case in (one_frame_video, interrupted_run):
            bench.reset()
            status, said = _quietly(lambda case=case: case(bench))  # type: ignore[misc]
            print(f"* {case.__doc__}: {status} {said}".rstrip())
            num_wrong += "exit 0" not in str(status) or "False" in str(status)
    print(f"{num_wrong} went wrong")
    return 1 if num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
