"""Which frame to annotate next: distances of keys, choice, reasons, and scripts/suggest.py."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from annotator.suggestions import (
    MAX_CANDIDATES,
    FrameMeasures,
    composite_key,
    dissimilarity,
    farthest,
    suggest,
)
from scripts import suggest as command
from scripts.experiments import suggest_frames
from scripts.experiments.stored_runs import Frames, Run

NUM_FRAMES = 40


def random_keys(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num, 8, 3, 5)).astype(np.float32)


def drifting_keys(num: int = NUM_FRAMES) -> dict[int, np.ndarray]:
    """Keys that change steadily: the distance of two frames grows with the time between them."""
    first, last = random_keys(2)
    return {i: (first + (last - first) * i / num).astype(np.float16) for i in range(num)}


def measures_of(
    errors: dict[int, float] | None = None, num: int = NUM_FRAMES
) -> dict[int, FrameMeasures]:
    """Confidence 0.9 of object 1 on all frames, except for those with another error."""
    return {i: FrameMeasures({1: 1 - (errors or {}).get(i, 0.1)}) for i in range(num)}


def test_composite_keys_weight_objects() -> None:
    key = random_keys(1)[0]
    masks = np.zeros((2, 3, 5), np.float32)
    masks[0, 0], masks[1, 1, 0] = 1, 0.5
    result = composite_key(key, masks, alpha=0.4)
    np.testing.assert_allclose(result[:, 0], key[:, 0], rtol=1e-6)
    np.testing.assert_allclose(result[:, 1, 0], 0.8 * key[:, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(result[:, 2], 0.6 * key[:, 2], rtol=1e-6)
    np.testing.assert_array_equal(composite_key(key, masks, alpha=0), key)
    np.testing.assert_allclose(composite_key(key, masks[:0]), key / 2)
    large = masks.repeat(16, 1).repeat(16, 2) > 0.7  # boolean masks of the frame's size
    np.testing.assert_allclose(composite_key(key.astype(np.float16), large)[:, 2], key[:, 2] / 2,
                               rtol=1e-2)  # fmt: skip


def test_dissimilarity_is_the_equation() -> None:
    a, b = random_keys(2)
    k, q = a.reshape(8, -1).T, b.reshape(8, -1).T
    similarity = -((k[:, None] - q[None]) ** 2).sum(-1) / np.sqrt(8)  # S_ab
    expected = np.maximum(similarity - similarity.T, 0).mean()  # S_ba is its transpose
    assert dissimilarity(a, b[None])[0] == pytest.approx(expected, rel=1e-4)


def test_dissimilarity_is_zero_for_equal_keys_and_symmetric() -> None:
    keys = random_keys(20)
    distances = np.stack([dissimilarity(key, keys) for key in keys])
    np.testing.assert_allclose(distances.diagonal(), 0, atol=1e-6)
    np.testing.assert_allclose(distances, distances.T, rtol=1e-4, atol=1e-6)
    assert (distances + np.eye(20) > 0.1).all()
    assert dissimilarity(10 * keys[0], 10 * keys[:1])[0] == pytest.approx(0, abs=1e-4)


def test_farthest_first() -> None:
    distances = np.array([[0, 4, 9, 5.0], [9, 3, 1, 4.5]])
    assert farthest(distances, np.ones(4)) == 3
    assert farthest(distances, np.array([1, 2, 1, 1.0])) == 1
    assert farthest(np.zeros((1, 3)), np.array([-1, 1, -1.0])) == 1


def test_equal_errors_give_farthest_first() -> None:
    found = suggest(measures_of(), drifting_keys(), [0], 3)
    assert found[0].frame == NUM_FRAMES - 1
    assert (found[0].reason, found[0].label) == ("looks unlike any annotated frame", 0)
    assert found[1].frame in range(17, 23)  # halfway
    assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)
    between = suggest(measures_of(), drifting_keys(), [0, NUM_FRAMES - 1], 1)
    assert between[0].frame in range(17, 23)


def test_unreliable_masks_come_first() -> None:
    first = suggest(measures_of({14: 0.4, 15: 0.95, 16: 0.4}), drifting_keys(), [0, 39], 1)[0]
    assert (first.frame, first.reason, first.label) == (15, "low confidence", 1)


def test_reasons() -> None:
    keys, annotated = drifting_keys(), [0, 39]
    measures = measures_of()
    measures[20] = FrameMeasures({1: 0.9, 5: 0.7}, {}, {1: 0.95, 5: 0.1})
    first = suggest(measures, keys, annotated, 1)[0]
    assert (first.frame, first.reason, first.label) == (20, "the two directions disagree", 5)
    measures[20] = FrameMeasures({1: 0.9, 5: 0.7}, {1: 0.05}, {5: 0.6})
    first = suggest(measures, keys, annotated, 1)[0]
    assert (first.frame, first.reason, first.label) == (20, "low confidence", 1)


def test_neighbours_are_suppressed() -> None:
    num = 200
    errors = dict.fromkeys(range(90, 110), 0.99)
    found = suggest(measures_of(errors, num), drifting_keys(num), [0, num - 1], 6)
    frames = sorted(s.frame for s in found)
    assert len(frames) == 6
    assert all(b - a > 1 for a, b in itertools.pairwise(frames))
    assert sum(90 <= frame < 110 for frame in frames) <= 2  # the window is up to num / 20
    every = suggest(measures_of(), drifting_keys(), [0], 1000)
    assert 5 < len(every) < NUM_FRAMES / 2
    assert len({s.frame for s in every}) == len(every)


def test_annotated_frames_are_never_suggested() -> None:
    annotated = [*range(0, NUM_FRAMES, 2)]
    found = suggest(measures_of(dict.fromkeys(annotated, 1.0)), drifting_keys(), annotated, 50)
    assert found
    assert {s.frame for s in found}.isdisjoint(annotated)
    assert suggest(measures_of(), drifting_keys(), range(NUM_FRAMES)) == []


def test_nothing_to_suggest() -> None:
    assert suggest({}, {}, []) == []
    assert suggest(measures_of(), drifting_keys(), []) == []
    assert suggest(measures_of(), {}, [0]) == []
    assert suggest({}, drifting_keys(), [0]) == []
    assert suggest(measures_of(), drifting_keys(), [0], 0) == []


def test_frames_without_objects_or_with_equal_keys() -> None:
    """No measure and no distance: no error, no NaN, and no reason of an object."""
    key = random_keys(1)[0]
    still = dict.fromkeys(range(NUM_FRAMES), key)
    empty = {i: FrameMeasures({}) for i in range(NUM_FRAMES)}
    found = suggest(empty, still, [0], 2)
    assert len(found) == 2
    assert all((s.score, s.label) == (0, 0) for s in found)
    assert suggest(measures_of({7: 0.5}), still, [0], 1)[0].frame != 0


def test_candidates_are_bounded_and_represent_their_neighbours() -> None:
    num = 18_000
    keys = {i: random_keys(1, seed=i)[0].astype(np.float16) for i in range(0, num, 30)}
    assert len(keys) > MAX_CANDIDATES
    # No candidate itself is unreliable, only its neighbours are.
    errors = {i: 0.9 for i in range(9_000, 9_400) if i % 30}
    measures = {i: FrameMeasures({1: 1 - errors.get(i, 0.05)}) for i in range(num)}
    found = suggest(measures, keys, [11, *range(9, num, 4_000)], 3)
    assert found == suggest(measures, keys, [11, *range(9, num, 4_000)], 3)
    assert found[0].frame in range(8_970, 9_430)


def run_command(synthetic: Path, *flags: str) -> list[str]:
    """Command line of scripts/suggest.py for a video with two objects."""
    base = synthetic / "DAVIS" / "2017" / "trainval"
    video = sorted((base / "JPEGImages" / "480p").iterdir())[0]
    mask = base / "Annotations" / "480p" / video.name / "00000.png"
    argv = ["--video", str(video), "--mask", str(mask), "--size", "0", "--device", "cpu"]
    return [*argv, *flags]


def test_the_script(
    synthetic: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "suggestions.json"
    flags = ["--model", str(tiny_weights), "--num", "2", "--json", str(path)]
    assert command.main(run_command(synthetic, *flags)) == 0
    rows = json.loads(path.read_text())["suggestions"]
    assert len(rows) == 2
    assert all(0 < row["frame"] < 11 and row["name"] == f"{row['frame']:05d}" for row in rows)
    printed = capsys.readouterr().out.splitlines()
    for line, row in zip(printed, rows, strict=True):
        assert line.startswith(f"frame {row['frame']} ({row['name']}): {row['reason']}")


def test_wrong_input_of_the_script(
    synthetic: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = run_command(synthetic, "--model", str(tiny_weights))
    flags[1] = "nowhere.mp4"
    assert command.main(flags) == 2
    assert "the video nowhere.mp4 does not exist" in capsys.readouterr().err
    assert command.main(run_command(synthetic, "--model", "nowhere.pth")) == 2
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(SystemExit) as caught:
        command.parse(run_command(synthetic, "--num", "0"))
    assert caught.value.code == 2
    assert "--num must be at least 1; it is 0" in capsys.readouterr().err


def test_the_experiment(
    synthetic: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = f"--davis_path {synthetic / 'DAVIS'} --model {tiny_weights} --output {tmp_path}".split()
    clips = synthetic / "DAVIS" / "2017" / "trainval" / "ImageSets" / "2017" / "val.txt"
    clip = clips.read_text().split()[0]
    argv += f"--years 2017 --clips {clip} --device cpu --corrections 2 --seeds 2".split()
    assert suggest_frames.main(argv) == 0
    result = json.loads((tmp_path / "suggest_frames.json").read_text())
    assert [*result["clips"]] == [clip]
    rows = result["clips"][clip]
    assert {*rows} == {*suggest_frames.STRATEGIES}
    assert len({row["J&F"][0] for row in rows.values()}) == 1  # one start for all
    for row in rows.values():
        assert all(0 <= value <= 1 for value in row["J&F"])
        assert all(len(frames) == 3 and frames[0] == 0 for frames in row["annotated"])
    assert rows["uniform spacing"]["annotated"] == [[0, 4, 7]]
    assert len(rows["random"]["annotated"]) == 2
    assert "| mean of 1 | suggestions |" in (tmp_path / "suggest_frames.md").read_text()
    assert (tmp_path / "suggest_frames.png").stat().st_size > 1000

    # A second start reads the stored propagations, and gives the same table.
    stored = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    table = capsys.readouterr().out
    assert suggest_frames.main(argv) == 0
    assert capsys.readouterr().out == table
    assert stored == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert suggest_frames.main([*argv, "--size", "32"]) == 2
    assert "propagations with other settings (size)" in capsys.readouterr().err
    assert suggest_frames.main([*argv, "--clips", "nothing"]) == 2
    assert "There is no clip to measure" in capsys.readouterr().err


def test_the_worst_frame_is_the_one_with_the_lowest_score() -> None:
    class Fake:
        def run(self, _: Frames) -> Run:
            return Run(np.array([0.0, 0.5, 0.2, 0.4]), np.zeros((4, 1, 1)), {})

    assert suggest_frames.by_worst(Fake(), (0,)) == (0, 2)  # type: ignore[arg-type]
    assert suggest_frames.by_worst(Fake(), (0, 2)) == (0, 2, 3)  # type: ignore[arg-type]
