"""Zip files for the benchmarks' servers: their content, and the problems that are refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eval_davis
import eval_youtube
from scripts import make_submission
from tests.example_downloads import break_deflate, set_flag

Zip = dict[str, bytes]


@pytest.fixture(scope="module")
def packed(
    synthetic: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[list[str], Zip]]:
    """Map each benchmark to its path options and to the files of a valid zip file."""
    folder = tmp_path_factory.mktemp("submission")
    zips = {}
    for name, script, flags in (
        ("youtube", eval_youtube, ["--yv_path", str(synthetic / "YouTube")]),
        ("davis", eval_davis, ["--davis_path", str(synthetic / "DAVIS" / "2017")]),
    ):
        results, output = folder / name, folder / f"{name}.zip"
        more = ["--split", "test-dev"] if name == "davis" else ["--size", "0", "--output_all"]
        common = ["--model", str(tiny_weights), "--output", str(results), "--device", "cpu"]
        assert script.main([*flags, *more, *common]) == 0
        pack = [name, *flags, "--results_path", str(results), "--output", str(output)]
        assert make_submission.main(pack) == 0
        with zipfile.ZipFile(output) as archive:
            zips[name] = (flags, {entry: archive.read(entry) for entry in archive.namelist()})
    return zips


def test_files_of_a_zip(packed: dict[str, tuple[list[str], Zip]]) -> None:
    _, youtube = packed["youtube"]
    _, davis = packed["davis"]
    assert all(name.startswith("Annotations/") for name in youtube)
    assert "Annotations/valid00000/00000.png" in youtube
    assert "Annotations/valid00000/00001.png" not in youtube, "only every fifth frame is scored"
    assert {name.split("/")[0] for name in davis} == {"test-dev-000", "test-dev-001"}
    assert len(davis) == 22


def png(labels: np.ndarray, mode: str = "P") -> bytes:
    image = Image.fromarray(labels.astype(np.uint8))
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    stream = io.BytesIO()
    image.convert(mode).save(stream, "PNG")
    return stream.getvalue()


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (68, 48)).save(stream, "JPEG")
    return stream.getvalue()


EMPTY = np.zeros((48, 68))
FIRST = "test-dev-000/00003.png"


def without(files: Zip, start: str) -> Zip:
    return {name: content for name, content in files.items() if not name.startswith(start)}


@pytest.mark.parametrize(
    ("benchmark", "damage", "problem"),
    [
        ("davis", lambda f: without(f, FIRST), "video test-dev-000 lacks 00003.png"),
        (
            "davis",
            lambda f: without(f, "test-dev-001"),
            "video test-dev-001 is missing: segment it",
        ),
        (
            "davis",
            lambda f: {**f, FIRST: png(np.zeros((24, 34)))},
            "has 34x24 pixels, but the frames of",
        ),
        ("davis", lambda f: {**f, FIRST: png(EMPTY, "L")}, "has mode L, not a palette"),
        ("davis", lambda f: {**f, FIRST: png(EMPTY, "RGB")}, "has mode RGB, not a palette"),
        ("davis", lambda f: {**f, FIRST: png(EMPTY + 9)}, "contains the labels 9, but the objects"),
        ("davis", lambda f: {**f, FIRST: f[FIRST][:60]}, "00003.png cannot be read"),
        ("davis", lambda f: {**f, FIRST: jpeg()}, "is a JPEG file with the suffix .png"),
        ("davis", lambda f: {f"out/{n}": c for n, c in f.items()}, "without other folders"),
        ("davis", lambda f: {**f, "test-dev-000/3.png": f[FIRST]}, "name has other digits"),
        ("davis", lambda f: {**f, "__MACOSX/._x": b""}, "remove hidden files of the"),
        ("davis", lambda f: {**f, "notes.txt": b""}, "only PNG masks are allowed"),
        (
            "youtube",
            lambda f: {n.removeprefix("Annotations/"): c for n, c in f.items()},
            "all videos must be in the folder Annotations/",
        ),
        (
            "youtube",
            lambda f: {**f, "Annotations/valid00000/00001.png": png(EMPTY)},
            "valid00000 needs no mask of this frame",
        ),
        (
            "youtube",
            lambda f: {**f, "Annotations/other/00000.png": png(EMPTY)},
            "the benchmark has no video other",
        ),
    ],
)
def test_problems_are_refused(
    benchmark: str,
    damage: Callable[[Zip], Zip],
    problem: str,
    packed: dict[str, tuple[list[str], Zip]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags, files = packed[benchmark]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, content in damage(files).items():
            archive.writestr(name, content)
    assert make_submission.main([benchmark, *flags, "--check", str(tmp_path / "x.zip")]) == 2
    error = capsys.readouterr().err
    assert "x.zip would be rejected:" in error
    assert problem in error


def test_no_zip_is_written_if_masks_have_problems(
    packed: dict[str, tuple[list[str], Zip]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, files = packed["davis"]
    for name, content in without(files, FIRST).items():
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks" / name).write_bytes(content)
    pack = ["davis", *flags, "--results_path", str(tmp_path / "masks")]
    assert make_submission.main([*pack, "--output", str(tmp_path / "x.zip")]) == 2
    assert "video test-dev-000 lacks 00003.png" in capsys.readouterr().err
    assert not (tmp_path / "x.zip").exists()
    with zipfile.ZipFile(tmp_path / "y.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(FIRST, files[FIRST] * 9)
    content = (tmp_path / "y.zip").read_bytes()
    for damaged in (b"not a zip", break_deflate(content), set_flag(content, 1)):
        (tmp_path / "x.zip").write_bytes(damaged)
        assert make_submission.main(["davis", *flags, "--check", str(tmp_path / "x.zip")]) == 2
        assert "x.zip cannot be read as a zip file" in capsys.readouterr().err
