"""The robot that annotates through the page: its outlines, and a whole run on a small clip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.metrics import region_similarity
from scripts import make_synthetic
from scripts.experiments import annotate_robot
from scripts.experiments.outlines import fill, outline
from scripts.shared.annotator_page import missing_software

HEIGHT, WIDTH = 96, 160


def ellipse(x: float, y: float, width: float, height: float) -> np.ndarray:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    return ((columns - x) / width) ** 2 + ((rows - y) / height) ** 2 < 1


def test_outlines_are_close() -> None:
    round_mask = ellipse(60, 40, 40, 30)
    (polygon,) = outline(round_mask, 24)
    assert len(polygon) == 24
    assert region_similarity(fill([polygon], round_mask.shape), round_mask) > 0.97
    square = np.zeros((HEIGHT, WIDTH), bool)
    square[10:30, 20:60] = True
    (polygon,) = outline(square, 4)
    np.testing.assert_array_equal(fill([polygon], square.shape), square)
    assert outline(np.zeros((HEIGHT, WIDTH), bool), 24) == []


def test_parts_share_the_points() -> None:
    mask = ellipse(50, 50, 40, 40) | ellipse(130, 50, 15, 15)
    mask[2, 150] = True  # a part below 1 % of the area
    polygons = outline(mask, 24)
    assert sum(map(len, polygons)) == 24
    assert len(polygons[0]) > len(polygons[1]) >= 4
    assert region_similarity(fill(polygons, mask.shape), mask) > 0.95


def test_points_keep_their_distance() -> None:
    (polygon,) = outline(ellipse(60, 40, 10, 8), 24, min_distance=4)
    distances = np.linalg.norm(polygon[:, None] - polygon[None], axis=-1)
    assert distances[~np.eye(len(polygon), dtype=bool)].min() >= 4


def test_a_run_with_one_correction(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(
        "uvicorn", reason="uvicorn is missing: pip install -r requirements-annotator.txt"
    )
    if missing_software():
        pytest.skip(f"No browser: {missing_software()}")
    argv = f"{tmp_path} --layouts davis --num_videos 1 --num_frames 8 --num_objects 2".split()
    argv += ["--height", str(HEIGHT), "--width", str(WIDTH)]
    assert make_synthetic.main(argv) == 0
    flags = f"--davis_path {tmp_path / 'DAVIS'} --year 2017 --sequences val-000 --corrections 1"
    flags += f" --model {tiny_weights} --size 48 --device cpu --json {tmp_path / 'robot.json'}"
    assert annotate_robot.main(flags.split()) == 0
    steps = json.loads((tmp_path / "robot.json").read_text())["clips"]["val-000"]
    assert len(steps) == 2
    assert len(steps[0]["outlines"]) == 2
    assert min(steps[0]["outlines"]) > 0.9, "random weights: only the outlines can be good"
    assert steps[1]["frame"] > 0
    assert steps[1]["reason"]
    assert all(0 < step["J&F"] < 1 for step in steps)
    header, _, row = capsys.readouterr().out.strip().splitlines()
    assert header == "| clip | 0 | 1 | corrected frames |"
    assert row.startswith(f"| val-000 | {100 * steps[0]['J&F']:.1f} |")


def test_wrong_options_end_in_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--davis_path", str(tmp_path), "--sequences", "x"]
    monkeypatch.setattr(annotate_robot, "missing_software", lambda: "")
    assert annotate_robot.main(flags) == 2
    assert "DAVIS 2016 is not in" in capsys.readouterr().err
    monkeypatch.setattr(annotate_robot, "missing_software", lambda: "There is no browser.")
    assert annotate_robot.main(flags) == 2
    assert "error: There is no browser." in capsys.readouterr().err
    for more in (["--corrections", "-1"], ["--points", "3"]):
        with pytest.raises(SystemExit):
            annotate_robot.main([*flags, *more])
        assert "must be at least" in capsys.readouterr().err
