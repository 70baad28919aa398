"""scripts/merge_probabilities.py on random probabilities: refused input, and use of memory."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.labels import resize_prob
from inference.probability_files import PROBABILITIES, FrameProbabilities, write_probabilities
from scripts import merge_probabilities
from tests.example_downloads import break_deflate
from util.masks import DAVIS_PALETTE, write_mask

SIZE = (24, 40)


def draw(num_objects: int, size: tuple[int, int], seed: int) -> FrameProbabilities:
    """Random probabilities of objects 1 to `num_objects`, in random order."""
    rng = np.random.default_rng(seed)
    prob = rng.integers(0, 256, (num_objects + 1, *size), np.uint8)
    return FrameProbabilities(prob, [int(label) for label in 1 + rng.permutation(num_objects)])


def write_run(
    run: Path, name: str = "clip", frames: int = 2, size: tuple[int, int] = SIZE, objects: int = 2
) -> Path:
    """Write the files of --save_probabilities, at half the size of the masks."""
    for index in range(frames):
        probabilities = draw(objects, (size[0] // 2, size[1] // 2), index)
        write_probabilities(run / name / PROBABILITIES / f"{index:05d}.npz", probabilities)
        write_mask(run / name / f"{index:05d}.png", np.ones(size, np.uint8), DAVIS_PALETTE)
    return run


def merge(output: Path, *runs: Path, weights: tuple[str, ...] = ()) -> int:
    argv = ["--results_path", *map(str, runs), "--output", str(output)]
    return merge_probabilities.main([*argv, *(("--weights", *weights) if weights else ())])


@pytest.mark.parametrize(
    "weights", [("nan", "1"), ("1", "nan"), ("inf", "1"), ("1e308", "1e308"), ("0", "0")]
)
def test_weights_without_a_mean_are_refused(
    tmp_path: Path, weights: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "a")
    assert merge(tmp_path / "out", run, run, weights=weights) == 2
    assert "give one weight per run, finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_different_videos_with_the_same_name_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = write_run(tmp_path / "a"), write_run(tmp_path / "b", size=(40, 24))
    assert merge(tmp_path / "out", one, other) == 2
    error = capsys.readouterr().err
    assert f"clip has 40x24 pixels in {one} but 24x40 in {other}" in error
    assert not (tmp_path / "out").exists()


def test_incomplete_videos_of_a_killed_run_are_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    write_run(one, ".dog.partial")
    (other / "cat" / PROBABILITIES).mkdir(parents=True)  # a folder without probabilities
    assert merge(tmp_path / "out", one, other) == 0
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["clip"]
    killed = write_run(tmp_path / "c", ".clip.partial")
    assert merge(tmp_path / "no", killed) == 2
    assert "has no probabilities" in capsys.readouterr().err


def test_many_objects_are_merged_in_small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [draw(20, (12, 20), 1), draw(20, SIZE, 2)]
    shares = [0.25, 0.75]
    expected = torch.zeros(21, *SIZE)
    for part, share in zip(parts, shares, strict=True):
        by_label = torch.from_numpy(part.prob[[0, *(1 + np.argsort(part.labels))]])
        expected += share * resize_prob(by_label.float(), SIZE)
    group_sizes = []

    def resize(prob: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        group_sizes.append(len(prob))
        return resize_prob(prob, size)

    monkeypatch.setattr(merge_probabilities, "resize_prob", resize)
    labels = merge_probabilities.merge_frame(parts, shares, SIZE)
    np.testing.assert_array_equal(labels, expected.argmax(0).numpy())
    assert max(group_sizes) <= 8
    assert sum(group_sizes) == 2 * 21
    with pytest.raises(ValueError, match="one run has the objects"):
        merge_probabilities.merge_frame([parts[0], draw(3, SIZE, 3)], shares, SIZE)


def test_the_output_may_be_a_link_to_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "a")
    (tmp_path / "disk" / ".partial" / "old").mkdir(parents=True)  # of a killed run
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert merge(tmp_path / "out", run, run) == 0
    assert (tmp_path / "out").is_symlink()
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["clip", "merged.json"]
    assert merge(tmp_path / "out", run) == 2  # not empty

    def fail(*_: object) -> None:
        raise OSError("The disk is full.")

    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(merge_probabilities, "write_mask", fail)
    assert merge(tmp_path / "new", run) == merge(tmp_path / "empty", run) == 2
    assert not (tmp_path / "new").exists()
    assert not [*(tmp_path / "empty").iterdir()]


@pytest.mark.parametrize("content", [b"no archive", None])
def test_damaged_probabilities_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    run = write_run(tmp_path / "a")
    path = run / "clip" / PROBABILITIES / "00001.npz"
    path.write_bytes(content or break_deflate(path.read_bytes()))
    assert merge(tmp_path / "out", run) == 2
    assert f"{path} cannot be read as probabilities" in capsys.readouterr().err


def test_number_of_workers_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames of many workers would fill the memory of a machine with many cores."""
    monkeypatch.setattr(merge_probabilities.os, "cpu_count", lambda: 64)
    threads = set()

    def count(*_: object) -> np.ndarray:
        threads.add(threading.get_ident())
        time.sleep(0.02)  # so that every worker gets a frame
        return np.zeros(SIZE, np.uint8)

    monkeypatch.setattr(merge_probabilities, "merge_frame", count)
    run = write_run(tmp_path / "a", frames=12)
    assert merge(tmp_path / "out", run) == 0
    assert len(threads) <= 4
