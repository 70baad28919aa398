"""Damaged files are refused with a sentence that names them, or what is read can be used."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.davis import read_sequences
from datasets.youtube import read_meta
from evaluation.predictions import Convention, read_ground_truth, read_prediction
from scripts.experiments import fuzz
from util.images import read_image
from util.masks import read_mask


def test_damaged_files_are_refused_or_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--cases", "120", "--seed", "5"]) == 0, capsys.readouterr().out
    totals = capsys.readouterr().out.splitlines()[-2].split("|")[2:5]
    refused, accepted, faults = map(int, totals)
    assert refused + accepted == 120
    assert min(refused, accepted) > 10
    assert faults == 0


def _fail() -> bytes:
    raise KeyError("frames")


def _refuse_without_a_name() -> bytes:
    raise ValueError("The file is damaged.")


def _refuse_in_pythons_words() -> bytes:
    raise FileNotFoundError(2, "No such file or directory", "data/a.png")


def _hang() -> bytes:
    time.sleep(5)
    return b""


@pytest.mark.parametrize(
    ("read", "detail"),
    [
        (_fail, "KeyError: 'frames' ("),
        (_refuse_without_a_name, "ValueError: The file is damaged."),
        (_refuse_in_pythons_words, "[Errno 2]"),
        (_hang, "takes longer than 0.1 s"),
        (lambda: b"other", "accepted, but its content has changed"),
    ],
)
def test_faults_are_noticed(read: Callable[[], bytes], detail: str) -> None:
    outcome = fuzz.judge("mask", "noise", read, "data/a.png", b"content", limit=0.1)
    assert outcome.end == fuzz.FAULT
    assert detail in outcome.detail


def test_refusals_and_sound_content_are_no_faults() -> None:
    def refuse() -> bytes:
        raise ValueError("mask data/a.png cannot be read: save it again")

    assert fuzz.judge("mask", "", refuse, "data/a.png", b"content").end == fuzz.REFUSED
    assert fuzz.judge("mask", "", lambda: b"content", "", b"content").end == fuzz.ACCEPTED
    assert fuzz.judge("mask", "", lambda: b"other", "").end == fuzz.ACCEPTED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"val-000\xff\xfe\n", "is not a text file in UTF-8"),
        ("val-000\n".encode("utf-16"), "is not a text file in UTF-8"),
        (b"val-000\n/\n", "contains '/', which is not the name of a folder"),
        (b"a\0b\n", r"contains 'a\\x00b', which is not"),
        (b"x" * 300, "contains 'xxx.*', which is not"),
    ],
)
def test_list_without_names_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "val.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"list of sequences .*val.txt {message}"):
        read_sequences(path)


def test_list_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "val.txt"
    path.write_text("dog\ncat\n", encoding="utf-8-sig")
    assert read_sequences(path) == ["dog", "cat"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "is not a meta.json of YouTube-VOS"),
        ('{"videos": {"../x": {"objects": {}}}}', "lists the video '../x', which is not the name"),
    ],
)
def test_odd_meta_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "meta.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"meta.json {message}"):
        read_meta(path)


def test_scores_check_the_checksums_of_masks(tmp_path: Path) -> None:
    path = tmp_path / "00000.png"
    labels = np.random.default_rng(0).integers(0, 3, (12, 12), np.uint8)
    Image.fromarray(labels).save(path)
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        for read in (read_prediction, read_ground_truth):
            with contextlib.suppress(ValueError):
                assert np.array_equal(read(path, Convention.LABELS), labels), at


def test_link_to_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "00000.png"
    path.symlink_to(tmp_path / "nowhere")
    for read, kind in ((read_image, "frame"), (read_mask, "mask")):
        with pytest.raises(FileNotFoundError, match=f"{kind} .*00000.png does not exist, or is a"):
            read(path)
