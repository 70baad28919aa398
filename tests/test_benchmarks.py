"""scripts/benchmarks/ run and report what they should. Speed is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from evaluation.protocols import select_davis
from evaluation.scoring import score
from model.native.library import load_library
from model.native.winograd import Winograd
from scripts.benchmarks import (
    bench_data,
    bench_inference,
    bench_roofline,
    bench_scores,
    bench_train,
)
from scripts.benchmarks.inference_report import format_growth
from scripts.benchmarks.inference_row import Row


def test_training_samples(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--static_root", str(synthetic / "static"), "--davis_root", str(synthetic / "DAVIS")]
    flags += "--crop_size 32 --samples 4 --num_workers 0 --json".split()
    flags.append(str(tmp_path / "data.json"))
    assert bench_data.main(flags) == 0
    rows = json.loads((tmp_path / "data.json").read_text())["rows"]
    assert [row["sample"] for row in rows] == ["static", "video"]
    for row in rows:
        assert row["loaded"] > 0
        assert row["units"] == pytest.approx(row["ms"] / row["unit_ms"])
    assert "static" in capsys.readouterr().out


def test_missing_data_is_reported_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_train, "measure_all", lambda *_: pytest.fail("measured"))
    flags = ["--static_root", str(tmp_path / "nowhere")]
    assert bench_train.main([*flags, "--device", "cpu"]) == 2
    assert bench_data.main([*flags, "--davis_root", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("nowhere") == 2


def test_training_steps(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--size tiny --crop_size 32 -b 1 --iterations 1 --device cpu --num_workers 0".split()
    flags += ["--static_root", str(synthetic / "static"), "--json", str(tmp_path / "train.json")]
    assert bench_train.main(flags) == 0
    rows = json.loads((tmp_path / "train.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [
        "plain eager float32", "float32", "bfloat16", "float32, images", "bfloat16, images",
    ]  # fmt: skip
    assert all(row["seconds"] > 0 for row in rows)
    assert all(0 <= row["waiting"] <= 1 for row in rows[3:])
    assert "plain eager float32" in capsys.readouterr().out


def test_scores(synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = synthetic / "DAVIS"
    expected: dict[str, list[dict[str, float]]] = {}
    for year in (2016, 2017):
        bench_scores.link_delayed(root, year, "val", tmp_path / str(year))
        for item in score(select_davis(tmp_path / str(year), root, year)).objects:
            values = {"object": float(item.label)}
            for letter, part in (("J", item.region), ("F", item.boundary)):
                values |= {f"{letter}_{name}": value for name, value in vars(part).items()}
            expected.setdefault(item.sequence, []).append(values)
    name, (first, *_) = next(iter(expected.items()))
    assert first["J_mean"] < 1  # delayed masks differ from the ground truth

    def run() -> int:
        path = tmp_path / "expected.json"
        path.write_text(json.dumps({"sequences": expected}))
        flags = ["--davis_path", str(root), "--repeats", "1", "--expected", str(path)]
        return bench_scores.main([*flags, "--json", str(tmp_path / "scores.json")])

    assert run() == 0
    content = json.loads((tmp_path / "scores.json").read_text())
    assert [row["name"] for row in content["rows"]] == ["DAVIS 2016", "DAVIS 2017", "all"]
    for row in content["rows"]:
        assert min(row[name] for name in ("ms", "cpu_ms", "measuring_cpu_ms")) > 0
    assert (
        content["rows"][2]["count"] == 2 * 9 + 2 * 2 * 9
    )  # the first and last frame are not scored
    assert content["difference"] == 0
    first["F_decay"] += 2e-6
    assert run() == 1
    del first["F_decay"]
    assert run() == 2
    assert "lacks 'F_decay'" in capsys.readouterr().err
    del expected[name]
    assert run() == 2
    assert (
        f"The scored and the expected objects are not the same: {name} 1" in capsys.readouterr().err
    )
    assert bench_scores.main(["--davis_path", str(tmp_path / "none")]) == 2
    assert "DAVIS 2017 val is not in" in capsys.readouterr().err


SMALL_RUN = "--net_size tiny --height 48 --width 64 --device cpu"


def test_inference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = f"{SMALL_RUN} --methods gsfm --objects 2 --precision half --frames 3"
    argv = [*flags.split(), "--output", str(tmp_path)]
    assert bench_inference.main([*argv, "--mem_capacity", "1"]) == 2
    assert "error: gsfm, half, 2 objects, 3 frames, memory at most 1: " in capsys.readouterr().err
    assert bench_inference.main([*argv, "--height", "7"]) == 2
    assert bench_inference.main([*argv, "--device", "foo"]) == 2
    for wrong in (
        ["--repeats", "0"],
        ["--frames", "2"],
        ["--encode_batch", "0"],
        ["--encode_batch", "65"],
        ["--mem_half"],
        ["--mem_capacity", "all"],
    ):
        with pytest.raises(SystemExit) as error:
            bench_inference.main([*argv, *wrong])
        assert error.value.code == 2
    others = ["--encode_batch", "2"]
    assert bench_inference.main([*argv, "--repeats", "1", "--mem_capacity", "2", *others]) == 0
    content = json.loads((tmp_path / "speed.json").read_text())
    (row,) = content["rows"]
    assert row["units"] == pytest.approx(sum(row["ms"]) / 3 / row["unit_ms"])
    assert (row["method"], row["precision"], len(row["ms"])) == ("gsfm", "bfloat16", 3)
    assert 0 < sum(row["stages_ms"].values()) < sum(row["ms"]) / 3
    assert len(row["stored_mib"]) == 3
    assert row["stored_mib"][0] > 0
    assert (tmp_path / "speed.png").stat().st_size > 1000
    assert not (tmp_path / "growth.png").exists()


def test_memory_over_a_long_clip(tmp_path: Path) -> None:
    flags = f"{SMALL_RUN} --methods stcn --objects 1 --precision float32 --repeats 1"
    flags += " --frames 24 --mem_every 2 --mem_capacity published 3"
    assert bench_inference.main([*flags.split(), "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert [row["mem_capacity"] for row in rows] == [None, 3]
    slot = rows[0]["stored_mib"][0]
    assert rows[0]["stored_mib"][-1] == pytest.approx(12 * slot)  # frames 0, 2, ..., 22
    assert rows[1]["stored_mib"][-1] == pytest.approx(3 * slot)
    assert (tmp_path / "growth.png").stat().st_size > 1000


def test_the_table_of_memory() -> None:
    def make_row(frames: int, peak: float) -> Row:
        stored = [0.5 * (index + 1) for index in range(frames)]
        ms = [float(index) for index in range(frames)]
        return Row(
            "stcn", 1, "float32", frames, 3, None, ms, {}, stored, peak_mib=peak, loaded_mib=100.0
        )

    lines = format_growth([make_row(3, 11.5), make_row(40, 41.0)]).splitlines()
    assert [len(line) for line in lines[1:3]] == [89, len(lines[0])]
    assert lines[1].split()[-4:] == ["1.5", "11.5", "10.0", "111.5"]
    values = ["20.0", "41.0", "21.0", "141.0", "5.5", "37.5", "6.82"]
    assert lines[2].split()[-7:] == values
    assert lines[3] == (
        "stcn, float32, 1 objects, memory at most 3: process - stored of 40 frames / of 3 frames = "
        "1.1000"
    )


def test_capacities_that_change_nothing_are_not_measured(tmp_path: Path) -> None:
    flags = f"--output {tmp_path} --objects 1 --precision half --frames 9"
    arguments = bench_inference.parse([*flags.split(), "--mem_capacity", "published", "22"])
    runs = [(run.method, run.mem_capacity) for run in bench_inference.plan(arguments)]
    assert runs == [
        ("stcn", None), ("stcn", 22), ("gsfm", None), ("gsfm", 22), ("qdmn", None), ("rde", None),
        ("imsfr", None), ("imsfr", 22),
    ]  # fmt: skip
    arguments = bench_inference.parse([*flags.split(), "--mem_capacity", "22", "0"])
    assert len(bench_inference.plan(arguments)) == 10


def test_operations_and_bytes_are_counted() -> None:
    peak = bench_roofline.Peak(operations=1e9, bandwidth=1e9)
    image, weight = torch.randn(1, 64, 12, 10), torch.randn(128, 64, 3, 3)
    operations = 2 * 9 * 64 * 128 * 12 * 10
    moved = 4 * (image.numel() + weight.numel() + 128 * 12 * 10)
    native = load_library()
    cases: list[tuple[Winograd | None, int]] = [(None, operations)]
    cases += [] if native is None else [(native.winograd, operations // 4)]
    for winograd, done in cases:
        with torch.inference_mode(), bench_roofline.Counter(peak, winograd) as counter:
            result = torch.relu(F.conv2d(image, weight, padding=1))
        assert result.shape == (1, 128, 12, 10)
        assert (counter.direct, counter.operations, counter.bytes) == (operations, done, moved)
        assert counter.bound == pytest.approx(max(done, moved) / 1e9)
        with torch.inference_mode(), counter:  # stride 2: direct; and a product
            F.conv2d(image, weight, padding=1, stride=2)
            torch.randn(5, 7) @ torch.randn(7, 3)
        rest = operations // 4 + 2 * 5 * 7 * 3
        assert counter.operations == done + rest
        with torch.inference_mode(), counter:  # few channels: direct
            F.conv2d(image[:, :8], weight[:4, :8], padding=1)
        assert counter.operations == done + rest + operations // (8 * 32)


def test_roofline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_roofline, "SIDE", 256)
    path = tmp_path / "roofline.json"
    argv = f"{SMALL_RUN} --methods imsfr --objects 2".split()
    assert bench_roofline.main([*argv, "--output", str(path)]) == 0
    content = json.loads(path.read_text())
    assert [*content["peaks"]] == ["float32", "bfloat16"]
    whole, half = content["rows"]
    assert (whole["precision"], half["precision"]) == ("float32", "bfloat16")
    assert whole["direct_gflop"] == pytest.approx(half["direct_gflop"])
    for row in (whole, half):
        assert 0 < row["gflop"] <= row["direct_gflop"]
        assert row["share"] == pytest.approx(row["bound_ms"] / row["ms"])
    assert bench_roofline.main([*argv, "--device", "foo", "--output", str(path)]) == 2
