"""The benchmarks run, and say what they should; how fast is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from evaluation.protocols import select_davis
from evaluation.scoring import score
from model.native.library import library
from model.native.winograd import Winograd
from scripts.benchmarks import (
    bench_data,
    bench_inference,
    bench_roofline,
    bench_scores,
    bench_train,
)
from scripts.experiments import precisions


def test_samples(synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--static_root", str(synthetic / "static"), "--davis_root", str(synthetic / "DAVIS")]
    flags += [
        "--crop_size",
        "32",
        "--samples",
        "4",
        "--num_workers",
        "0",
        "--json",
        str(tmp_path / "data.json"),
    ]
    assert bench_data.main(flags) == 0
    rows = json.loads((tmp_path / "data.json").read_text())["rows"]
    assert [row["sample"] for row in rows] == ["static", "video"]
    for row in rows:
        assert row["loaded"] > 0
        assert row["units"] == pytest.approx(row["ms"] / row["unit_ms"])
    assert "static" in capsys.readouterr().out


def test_steps(synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
            figures = {"object": float(item.label)}
            for letter, part in (("J", item.region), ("F", item.boundary)):
                figures |= {f"{letter}_{name}": value for name, value in vars(part).items()}
            expected.setdefault(item.sequence, []).append(figures)
    name, (first, *_) = next(iter(expected.items()))
    assert first["J_mean"] < 1  # the delayed masks are off

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
    assert f"not the same: {name} 1" in capsys.readouterr().err
    assert bench_scores.main(["--davis_path", str(tmp_path / "none")]) == 2
    assert "DAVIS 2017 val is not in" in capsys.readouterr().err


def test_precisions(
    synthetic: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--davis_path", str(synthetic / "DAVIS"), "--model", str(tiny_weights)]
    path = tmp_path / "precisions.json"
    flags += ["--device", "cpu", "--year", "2017", "--frames", "3", "--json", str(path)]
    assert precisions.main(flags) == 0
    rows = json.loads(path.read_text())["rows"]
    assert rows["float32"]["mean IoU"] == 1
    assert rows["exact"]["mean IoU"] > 0.99
    assert rows["mem_half"]["mean IoU"] > 0.99
    assert 0.5 < rows["half"]["mean IoU"] < 1
    assert all(row["FPS"] > 0 and len(row["IoU"]) == 2 for row in rows.values())
    assert "bfloat16" in capsys.readouterr().out
    assert precisions.main([*flags[:2], "--model", "nowhere.pth"]) == 2


def test_inference(tmp_path: Path) -> None:
    flags = "--methods gsfm --objects 2 --precision half --net_size tiny --frames 3 --height 48"
    argv = [*flags.split(), "--width", "64", "--device", "cpu", "--output", str(tmp_path)]
    assert bench_inference.main([*argv, "--mem_capacity", "1"]) == 2
    for wrong in (
        ["--repeats", "0"],
        ["--frames", "2"],
        ["--encode_batch", "0"],
        ["--encode_batch", "65"],
        ["--height", "7"],
        ["--device", "foo"],
        ["--mem_half"],
    ):
        with pytest.raises(SystemExit):
            bench_inference.main([*argv, *wrong])
    others = ["--encode_batch", "2"]
    assert bench_inference.main([*argv, "--repeats", "1", "--mem_capacity", "2", *others]) == 0
    content = json.loads((tmp_path / "speed.json").read_text())
    (row,) = content["rows"]
    assert row["units"] == pytest.approx(sum(row["ms"]) / 3 / row["unit_ms"])
    assert (row["method"], row["precision"], len(row["ms"])) == ("gsfm", "bfloat16", 3)
    assert 0 < sum(row["stages_ms"].values()) < sum(row["ms"]) / 3
    assert (tmp_path / "speed.png").stat().st_size > 1000


def test_operations_and_bytes_are_counted() -> None:
    peak = bench_roofline.Peak(operations=1e9, bandwidth=1e9)
    image, weight = torch.randn(1, 64, 12, 10), torch.randn(128, 64, 3, 3)
    operations = 2 * 9 * 64 * 128 * 12 * 10
    moved = 4 * (image.numel() + weight.numel() + 128 * 12 * 10)
    native = library()
    cases: list[tuple[Winograd | None, int]] = [(None, operations)]
    cases += [] if native is None else [(native.winograd, operations // 4)]
    for winograd, done in cases:
        with torch.inference_mode(), bench_roofline.Counter(peak, winograd) as counter:
            result = torch.relu(F.conv2d(image, weight, padding=1))
        assert result.shape == (1, 128, 12, 10)
        assert (counter.direct, counter.operations, counter.bytes) == (operations, done, moved)
        assert counter.bound == pytest.approx(max(done, moved) / 1e9)
        with torch.inference_mode(), counter:  # of stride 2, so direct in any case; and a product
            F.conv2d(image, weight, padding=1, stride=2)
            torch.randn(5, 7) @ torch.randn(7, 3)
        rest = operations // 4 + 2 * 5 * 7 * 3
        assert counter.operations == done + rest
        with torch.inference_mode(), counter:  # of few channels, so direct as well
            F.conv2d(image[:, :8], weight[:4, :8], padding=1)
        assert counter.operations == done + rest + operations // (8 * 32)


def test_roofline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_roofline, "SIDE", 256)
    path = tmp_path / "roofline.json"
    argv = "--methods imsfr --objects 2 --net_size tiny --height 48 --width 64 --device cpu".split()
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
