"""The eval scripts, from command line to files, with a tiny network on synthetic videos."""

from __future__ import annotations

import fcntl
import importlib
import json
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import inference.writer
import inference_core
from model.checkpoint import save_network
from model.methods import build_network
from model.network import NetworkSpec
from util.masks import DAVIS_PALETTE, read_mask, write_mask
from util.presets import EVAL_SCRIPTS
from util.signals import INTERRUPTED

NUM_FRAMES, SIZE = 11, (48, 68)  # as tests/conftest.py makes them
NAMES = [f"{index:05d}" for index in range(NUM_FRAMES)]
FPS = re.compile(r"FPS [\d.]+ without I/O \([\d.]+ s\), [\d.]+ by the clock \([\d.]+ s\)")


@dataclass
class Result:
    code: int
    out: str
    err: str


Evaluate = Callable[..., Result]


@pytest.fixture
def evaluate(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_weights: Path
) -> Callable[..., Result]:
    """Runs an eval script on data, with tiny weights, into tmp_path/out if not told otherwise."""

    def run(script: str, data: Path, *flags: object) -> Result:
        path_flag = {"youtube": "--yv_path", "generic": "--data_path"}.get(script, "--davis_path")
        argv = [path_flag, str(data), *map(str, flags)]
        for flag, value in [("--model", tiny_weights), ("--output", tmp_path / "out")]:
            if flag not in argv:
                argv += [flag, str(value)]
        if "--device" not in argv:
            argv += ["--device", "cpu"]
        if script in ("youtube", "generic") and "--size" not in argv:
            argv += ["--size", "0"]
        capsys.readouterr()
        code = importlib.import_module(f"eval_{script}").main(argv)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def davis(synthetic: Path, tmp_path: Path) -> Path:
    """A DAVIS that a test may damage: val-000 and val-001 of trainval."""
    root = tmp_path / "DAVIS"
    shutil.copytree(synthetic / "DAVIS" / "2017" / "trainval", root / "trainval")
    return root


def frames_of(davis: Path, video: str) -> Path:
    return davis / "trainval" / "JPEGImages" / "480p" / video


def masks_of(davis: Path, video: str) -> Path:
    return davis / "trainval" / "Annotations" / "480p" / video


def labels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, save the record of the run, whose time differs."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


def names_in(folder: Path) -> set[str]:
    """What a run shows in its folder; the lock is hidden and stays."""
    return {path.name for path in folder.iterdir()} - {".lock"}


def make_generic(root: Path, source: Path, video: str, masks: dict[int, np.ndarray]) -> None:
    shutil.copytree(source, root / "JPEGImages" / video)
    for index, mask in masks.items():
        write_mask(root / "Annotations" / video / f"{index:05d}.png", mask, DAVIS_PALETTE)


def square(top: int, left: int, value: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + 14, left : left + 14] = value
    return mask


# What is written


@pytest.mark.parametrize("split", ["val", "test-dev"])
def test_davis_2017(evaluate: Evaluate, synthetic: Path, tmp_path: Path, split: str) -> None:
    root = synthetic / "DAVIS" / "2017"
    result = evaluate("davis", root, "--split", split)
    assert result.code == 0
    assert names_in(tmp_path / "out") == {"run.json", f"{split}-000", f"{split}-001"}
    part = "trainval" if split == "val" else split
    for video in (f"{split}-000", f"{split}-001"):
        paths = sorted((tmp_path / "out" / video).iterdir())
        assert [path.name for path in paths] == [f"{name}.png" for name in NAMES]
        given = root / part / "Annotations" / "480p" / video / "00000.png"
        np.testing.assert_array_equal(labels(paths[0]), labels(given))
        for path in paths:
            with Image.open(path) as mask:
                assert mask.mode == "P"
                assert mask.size == SIZE[::-1]
                assert bytes(mask.getpalette() or []) == DAVIS_PALETTE
            assert set(np.unique(labels(path))) <= {0, 1, 2}
    assert "2 videos, 22 frames" in result.out
    assert FPS.search(result.out)
    assert "memory frames: largest 2" in result.out  # the last of frames 0, 5 and 10 is not read


def test_davis_2016(evaluate: Evaluate, synthetic: Path, tmp_path: Path) -> None:
    result = evaluate("davis_2016", synthetic / "DAVIS")
    assert result.code == 0
    for video in ("single-val-000", "single-val-001"):
        paths = sorted((tmp_path / "out" / video).iterdir())
        assert [path.name for path in paths] == [f"{name}.png" for name in NAMES]
        given = synthetic / "DAVIS" / "2016" / "Annotations" / "480p" / video / "00000.png"
        np.testing.assert_array_equal(labels(paths[0]), labels(given))
        for path in paths:
            with Image.open(path) as mask:
                assert mask.mode == "L"
            assert labels(path).shape == SIZE
            assert set(np.unique(labels(path))) <= {0, 255}
    assert FPS.search(result.out)


def test_youtube(evaluate: Evaluate, synthetic: Path, tmp_path: Path) -> None:
    """Only the frames that meta.json asks for, and objects from their first mask on."""
    root = synthetic / "YouTube"
    result = evaluate("youtube", root)
    assert result.code == 0
    few = tmp_path / "out"
    for video in ("valid00000", "valid00001"):
        names = [path.stem for path in sorted((few / video).iterdir())]
        assert names == ["00000", "00005", "00010"]
    assert FPS.search(result.out)

    every = tmp_path / "all"
    assert evaluate("youtube", root, "--output_all", "--output", every).code == 0
    for video in ("valid00000", "valid00001"):
        assert [path.stem for path in sorted((every / video).iterdir())] == NAMES
        for path in (few / video).iterdir():
            np.testing.assert_array_equal(labels(path), labels(every / video / path.name))

    meta = json.loads((root / "valid" / "meta.json").read_text())["videos"]
    late = 0
    for video, entry in meta.items():
        for label, item in entry["objects"].items():
            first = item["frames"][0]
            given = labels(root / "valid" / "Annotations" / video / f"{first}.png") == int(label)
            there = labels(every / video / f"{first}.png") == int(label)
            assert there[given].all()
            for name in NAMES[: int(first)]:
                assert int(label) not in labels(every / video / f"{name}.png")
                late += 1
        for name in NAMES:
            found = set(np.unique(labels(every / video / f"{name}.png")))
            assert found <= {0, *map(int, entry["objects"])}
    assert late, "the synthetic videos have an object that enters late"


def test_generic_gives_labels_back(evaluate: Evaluate, davis: Path, tmp_path: Path) -> None:
    root = tmp_path / "generic"
    first = np.maximum(square(3, 4, 3), square(25, 40, 200))
    make_generic(root, frames_of(davis, "val-000"), "mine", {0: first, 4: square(20, 5, 255)})
    make_generic(root, frames_of(davis, "val-001"), "later", {2: square(9, 9, 77)})
    result = evaluate("generic", root)
    assert result.code == 0
    masks = {name: labels(tmp_path / "out" / "mine" / f"{name}.png") for name in NAMES}
    np.testing.assert_array_equal(masks["00000"], first)
    assert (masks["00004"][square(20, 5, 255) > 0] == 255).all()
    for index, mask in enumerate(masks.values()):
        assert set(np.unique(mask)) <= {0, 3, 200} | ({255} if index >= 4 else set())
    later = [labels(path) for path in sorted((tmp_path / "out" / "later").iterdir())]
    assert len(later) == NUM_FRAMES
    assert not later[0].any()
    assert not later[1].any()
    np.testing.assert_array_equal(later[2], square(9, 9, 77))


@pytest.mark.parametrize("script", [*EVAL_SCRIPTS])
@pytest.mark.parametrize("side", [32, 57])
def test_masks_come_in_the_videos_size(
    evaluate: Evaluate, davis: Path, synthetic: Path, tmp_path: Path, script: str, side: int
) -> None:
    """Whatever size was worked at; the first mask must survive the way there and back."""
    generic = tmp_path / "generic"
    make_generic(generic, frames_of(davis, "val-000"), "mine", {0: square(9, 9, 9)})
    root = {"youtube": synthetic / "YouTube", "generic": generic, "davis": davis}
    assert evaluate(script, root.get(script, synthetic / "DAVIS"), "--size", side).code == 0
    paths = sorted((tmp_path / "out").rglob("*.png"))
    assert paths
    assert {labels(path).shape for path in paths} == {SIZE}
    if script == "generic":
        there, given = labels(paths[0]) == 9, square(9, 9, 9) == 9
        assert (there & given).sum() / (there | given).sum() > 0.8


def test_a_video_of_one_frame(evaluate: Evaluate, davis: Path, tmp_path: Path) -> None:
    for name in NAMES[1:]:
        (frames_of(davis, "val-000") / f"{name}.jpg").unlink()
        (masks_of(davis, "val-000") / f"{name}.png").unlink()
    result = evaluate("davis", davis)
    assert result.code == 0
    (path,) = (tmp_path / "out" / "val-000").iterdir()
    given = masks_of(davis, "val-000") / "00000.png"
    np.testing.assert_array_equal(labels(path), labels(given))
    assert f"2 videos, {NUM_FRAMES + 1} frames" in result.out


@pytest.mark.parametrize("script", ["davis", "youtube"])
@pytest.mark.parametrize("side", [0, 32])
def test_overlay(
    evaluate: Evaluate, synthetic: Path, tmp_path: Path, script: str, side: int
) -> None:
    root = synthetic / {"davis": "DAVIS/2017", "youtube": "YouTube"}[script]
    assert evaluate(script, root, "--overlay", "--size", side).code == 0
    videos = sorted((tmp_path / "out").glob("*.mp4"))
    assert len(videos) == 2
    for path in videos:
        masks = sorted((tmp_path / "out" / path.stem).iterdir())
        assert {mask.suffix for mask in masks} == {".png"}
        reader = cv2.VideoCapture(str(path))
        num_frames = 0
        while True:
            is_read, frame = reader.read()
            if not is_read:
                break
            assert frame.shape == (*SIZE, 3)
            num_frames += 1
        reader.release()
        assert num_frames == len(masks)


def test_the_record_of_a_run(evaluate: Evaluate, davis: Path, tmp_path: Path) -> None:
    assert evaluate("davis", davis, "--mem_every", 3).code == 0
    (record,) = json.loads((tmp_path / "out" / "run.json").read_text())["runs"]
    assert record["settings"]["mem_every"] == 3
    assert record["settings"]["davis_path"] == str(davis)
    assert {"command", "git", "torch", "time", "weights_sha256"} <= record.keys()
    assert evaluate("davis", davis, "--mem_every", 3, "--benchmark").code == 0
    runs = json.loads((tmp_path / "out" / "run.json").read_text())["runs"]
    assert [run["settings"]["benchmark"] for run in runs] == [False, True]


# Settings that change what comes out


def test_memory_settings_do_something(evaluate: Evaluate, davis: Path, tmp_path: Path) -> None:
    """Random weights make every change of what is read show in the masks."""
    outputs = {}
    for flags in ("", "--mem_every 1", "--include_last", "--top 0", "--top 1", "--size 64"):
        output = tmp_path / f"out{flags.replace(' ', '')}"
        assert evaluate("davis", davis, "--output", output, *flags.split()).code == 0
        outputs[flags] = tuple(files(output).items())
    assert len({*outputs.values()}) == len(outputs)


def test_half_precision_runs_on_the_cpu(evaluate: Evaluate, davis: Path, tmp_path: Path) -> None:
    half, whole = tmp_path / "half", tmp_path / "whole"
    assert evaluate("davis", davis, "--amp", "--output", half).code == 0
    assert evaluate("davis", davis, "--output", whole).code == 0
    assert files(half).keys() == files(whole).keys()
    same = np.mean(
        [
            (labels(path) == labels(half / path.relative_to(whole))).mean()
            for path in whole.rglob("*.png")
        ]
    )
    assert 0.8 < same < 1


def test_weights_of_stage_0(evaluate: Evaluate, davis: Path, tmp_path: Path) -> None:
    """They lack a channel, which evaluation adds."""
    torch.manual_seed(0)
    network = build_network(NetworkSpec("stcn", "tiny", is_single_object=True))
    save_network(tmp_path / "stage0.pth", network, {})
    result = evaluate("davis", davis, "--model", tmp_path / "stage0.pth")
    assert result.code == 0


# Run again


def test_a_second_run_skips_what_is_there(
    evaluate: Evaluate, davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate("davis", davis).code == 0
    before = files(tmp_path / "out")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished video was segmented again")

    monkeypatch.setattr(inference_core.InferenceCore, "step", refuse)
    result = evaluate("davis", davis, "--benchmark")  # makes no difference to the masks
    assert result.code == 0
    assert "0 videos, 0 frames; 2 videos were complete before" in result.out
    assert "FPS" not in result.out
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize("stop", [1, NUM_FRAMES, NUM_FRAMES + 1, 2 * NUM_FRAMES - 1])
def test_an_interrupted_run_goes_on(
    evaluate: Evaluate,
    davis: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
) -> None:
    """By Ctrl-C after `stop` frames; every video is complete or absent."""
    assert evaluate("davis", davis, "--overlay", "--output", tmp_path / "whole").code == 0
    whole = files(tmp_path / "whole")
    step = inference_core.InferenceCore.step
    calls = 0

    def interrupted(*args: Any, **options: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > stop:
            raise KeyboardInterrupt
        return step(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(inference_core.InferenceCore, "step", interrupted)
        result = evaluate("davis", davis, "--overlay")
    assert result.code == INTERRUPTED
    assert "Interrupted: the same command goes on with what is left." in result.err
    names = names_in(tmp_path / "out")
    num_done = stop // NUM_FRAMES
    done = {f"val-{index:03d}" for index in range(num_done)}
    assert names == {"run.json", *done, *(f"{name}.mp4" for name in done)}

    result = evaluate("davis", davis, "--overlay")
    assert result.code == 0
    assert f"{2 - num_done} videos, {(2 - num_done) * NUM_FRAMES} frames" in result.out
    again = files(tmp_path / "out")
    assert again.keys() == whole.keys()
    assert {k: v for k, v in again.items() if k.endswith("png")} == {
        k: v for k, v in whole.items() if k.endswith("png")
    }


def test_what_a_killed_run_leaves_is_cleared(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    """A process that is killed cannot clean up: its half-written folder is hidden and remains."""
    output = tmp_path / "out"
    assert evaluate("davis", davis).code == 0
    whole = files(output)
    for name in (".val-001.partial", ".val-001.outdated"):
        half = output / name
        half.mkdir()
        (half / "00000.png").write_bytes(b"half a mask")
    (output / ".mine.partial").mkdir()  # not ours
    shutil.rmtree(output / "val-001")
    result = evaluate("davis", davis)
    assert result.code == 0
    assert f"1 videos, {NUM_FRAMES} frames; 1 videos were complete before" in result.out
    assert files(output) == whole
    assert names_in(output) == {"run.json", "val-000", "val-001", ".mine.partial"}


def test_a_video_that_changed_is_segmented_again(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    own = tmp_path / "davis"
    shutil.copytree(davis, own)
    assert evaluate("davis", own).code == 0
    before = files(output)
    folder = own / "trainval" / "Annotations" / "480p" / "val-001"
    first = read_mask(folder / "00000.png")
    write_mask(folder / "00000.png", np.fliplr(first.labels).copy(), first.palette)
    result = evaluate("davis", own)
    assert "1 videos, 11 frames; 1 videos were complete before" in result.out
    assert "masks or results had changed or were missing: val-001" in result.out
    after = files(output)
    changed = {name for name in after if after[name] != before[name]} - {"run.json", ".lock"}
    assert changed
    assert all(name.startswith("val-001/") for name in changed)
    (output / "val-000" / "00003.png").unlink()
    assert "missing: val-000" in evaluate("davis", own).out
    assert (output / "val-000" / "00003.png").exists()
    result = evaluate("davis", own, "--overlay")  # changes no mask
    assert result.code == 0
    assert (output / "val-000.mp4").exists() or (output / "val-000.avi").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--mem_every 4", "mem_every was 5 and is 4"),
        ("--include_last", "include_last was False and is True"),
        ("--amp", "amp was False and is True"),
        ("--exact", "exact was False and is True"),
        ("--mem_half", "mem_half was False and is True"),
    ],
)
def test_another_run_into_the_same_folder_is_refused(
    evaluate: Evaluate, davis: Path, tmp_path: Path, flags: str, sentence: str
) -> None:
    assert evaluate("davis", davis).code == 0
    before = files(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "val-001")
    result = evaluate("davis", davis, *flags.split())
    assert result.code == 2
    assert f"{tmp_path / 'out'} holds masks made with other settings: {sentence}." in result.err
    assert files(tmp_path / "out") == {k: v for k, v in before.items() if "val-001" not in k}


def test_other_weights_into_the_same_folder_are_refused(
    evaluate: Evaluate, davis: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    shutil.copy(tiny_weights, path)
    assert evaluate("davis", davis, "--model", path).code == 0
    same = tmp_path / "same.pth"
    shutil.copy(path, same)
    assert evaluate("davis", davis, "--model", same).code == 0
    torch.manual_seed(1)
    save_network(path, build_network(NetworkSpec("stcn", "tiny")), {})
    result = evaluate("davis", davis, "--model", path)
    assert result.code == 2
    assert "holds masks made with other settings: weights_sha256" in result.err


# Bad input


def test_a_truncated_frame_fails_its_video_alone(
    evaluate: Evaluate, davis: Path, tmp_path: Path, truncate: Callable[[Path], None]
) -> None:
    assert evaluate("davis", davis, "--output", tmp_path / "whole").code == 0
    frame = frames_of(davis, "val-000") / "00006.jpg"
    good = frame.read_bytes()
    truncate(frame)
    for _ in range(2):  # it does not count as complete
        result = evaluate("davis", davis)
        assert result.code == 1
        assert re.search(r"FAILED val-000: .*val-000/00006\.jpg cannot be read", result.out)
        assert names_in(tmp_path / "out") == {"run.json", "val-001"}
    frame.write_bytes(good)
    assert evaluate("davis", davis).code == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_frame_of_another_size_fails_its_video(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (70, 48)).save(frames_of(davis, "val-001") / "00010.jpg")
    result = evaluate("davis", davis, "--overlay")
    assert result.code == 1
    assert re.search(r"FAILED val-001: frame .*00010\.jpg is 70x48", result.out)
    assert names_in(tmp_path / "out") == {"run.json", "val-000", "val-000.mp4"}


def test_a_video_that_does_not_fit_into_memory_fails_alone(
    evaluate: Evaluate, davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = inference_core.InferenceCore.step
    calls = 0

    def hungry(*args: Any, **options: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise torch.OutOfMemoryError("CUDA out of memory.\nOf the allocated memory ...")
        return step(*args, **options)

    monkeypatch.setattr(inference_core.InferenceCore, "step", hungry)
    result = evaluate("davis", davis)
    assert result.code == 1
    assert "FAILED val-000: CUDA out of memory. (try --amp, --encode_batch 1," in result.out
    assert names_in(tmp_path / "out") == {"run.json", "val-001"}


def test_two_runs_do_not_write_into_one_folder(
    evaluate: Evaluate, davis: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = evaluate("davis", davis)
        assert result.code == 2
        assert f"Another run is writing to {tmp_path / 'out'}: wait for it" in result.err
        assert names_in(tmp_path / "out") == set()
    assert evaluate("davis", davis).code == 0


def test_masks_that_cannot_be_written_fail_their_video(
    evaluate: Evaluate, davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *args: Any) -> None:
        if path.parent.name.startswith(".val-000") and path.stem == "00009":
            raise OSError(28, "No space left on device")
        write_mask(path, *args)

    monkeypatch.setattr(inference.writer, "write_mask", full)
    result = evaluate("davis", davis, "--overlay")
    assert result.code == 1
    assert re.search(r"FAILED val-000: .*No space left on device", result.out)
    assert names_in(tmp_path / "out") == {"run.json", "val-001", "val-001.mp4"}


def remove_frame(davis: Path) -> None:
    (frames_of(davis, "val-001") / "00004.jpg").unlink()


def blur_mask(davis: Path) -> None:
    path = masks_of(davis, "val-001") / "00000.png"
    mask = cv2.GaussianBlur((labels(path) > 0).astype(np.uint8) * 255, (0, 0), 1.5)
    Image.fromarray(mask).save(path)


def resize_mask(davis: Path) -> None:
    path = masks_of(davis, "val-001") / "00000.png"
    write_mask(path, labels(path)[:-1], DAVIS_PALETTE)


def empty_mask(davis: Path) -> None:
    write_mask(masks_of(davis, "val-001") / "00000.png", np.zeros(SIZE, np.uint8), DAVIS_PALETTE)


def remove_mask(davis: Path) -> None:
    (masks_of(davis, "val-001") / "00000.png").unlink()


def remove_video(davis: Path) -> None:
    shutil.rmtree(frames_of(davis, "val-001"))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (remove_frame, r"frame 00004\.jpg is missing in .*val-001: there is 00003\.jpg and 00005"),
        (blur_mask, r"mask .*val-001/00000\.png has .* it looks anti-aliased"),
        (resize_mask, r"mask .*val-001/00000\.png is 68x47 .*, but its frame is 68x48"),
        (empty_mask, r"mask .*val-001/00000\.png has no object"),
        (remove_mask, r"sequence val-001 has no first mask: expected .*00000\.png"),
        (remove_video, r"the frames folder .*val-001 does not exist"),
    ],
)
def test_bad_videos_are_refused_before_anything_is_segmented(
    evaluate: Evaluate,
    davis: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    sentence: str,
) -> None:
    damage(davis)
    result = evaluate("davis", davis)
    assert result.code == 2
    assert re.search(rf"^error: {sentence}", result.err)
    assert result.out == ""
    assert not (tmp_path / "out").exists()


class Payload:
    """What must not run when weights are loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_what_is_no_checkpoint(
    evaluate: Evaluate,
    davis: Path,
    tmp_path: Path,
    tiny_weights: Path,
    truncate: Callable[[Path], None],
) -> None:
    path = tmp_path / "weights.pth"
    ran = tmp_path / "ran"

    def code() -> None:
        path.write_bytes(pickle.dumps({"a": Payload(ran)}))

    def torch_code() -> None:
        torch.save({"a": Payload(ran)}, path)

    def cut() -> None:
        shutil.copy(tiny_weights, path)
        truncate(path)

    def checkpoint_of_something_else() -> None:
        torch.save({"weight": torch.zeros(3)}, path)

    for make, sentence in [
        (lambda: None, "There is no file"),
        (lambda: path.write_text("no weights"), "is not a checkpoint that torch can read"),
        (lambda: path.write_bytes(b""), "is not a checkpoint that torch can read (0 bytes)"),
        (cut, "is not a checkpoint that torch can read"),
        (lambda: shutil.copy(frames_of(davis, "val-000") / "00000.jpg", path), "is not a check"),
        (code, "holds pickled Python objects, which could run code"),
        (torch_code, "holds pickled Python objects, which could run code"),
        (lambda: torch.save([1], path), "holds a list, not a dictionary of weights"),
        (checkpoint_of_something_else, "is no checkpoint of a method known here"),
    ]:
        make()
        result = evaluate("davis", davis, "--model", path)
        assert result.code == 2
        assert result.err.startswith("error: ")
        assert str(path) in result.err
        assert sentence in result.err
        assert result.out == ""
        assert not (tmp_path / "out").exists()
    assert not ran.exists()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_that_cannot_be_written(
    evaluate: Evaluate, davis: Path, tmp_path: Path, place: str
) -> None:
    """A file in the folder's place, since nothing else stops a test that runs as root."""
    (tmp_path / "file").write_text("mine")
    result = evaluate("davis", davis, "--output", tmp_path / place)
    assert result.code == 2
    assert f"The output folder {tmp_path / place} cannot be written (" in result.err
    assert "choose another with --output" in result.err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_others_filled(evaluate: Evaluate, davis: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "out" / "val-000"
    foreign.mkdir(parents=True)
    (foreign / "00000.png").write_text("theirs")
    result = evaluate("davis", davis)
    assert result.code == 2
    assert "holds val-000, which no run here wrote" in result.err
    assert (foreign / "00000.png").read_text() == "theirs"
    (tmp_path / "out" / "run.json").write_text("{}")
    result = evaluate("davis", davis)
    assert result.code == 2
    assert "run.json is not a record of a run" in result.err


def test_data_that_is_not_there(evaluate: Evaluate, davis: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for script in EVAL_SCRIPTS:
        result = evaluate(script, nowhere)
        assert result.code == 2
        assert str(nowhere) in result.err
    result = evaluate("davis", davis, "--split", "vall")
    assert result.code == 2
    assert "there is no split vall" in result.err
    assert not (tmp_path / "out").exists()


def test_devices_that_are_not_there(evaluate: Evaluate, davis: Path) -> None:
    result = evaluate("davis", davis, "--device", "quux")
    assert result.code == 2
    assert "'quux' is no device: use auto, cpu" in result.err
    result = evaluate("davis", davis, "--device", "cuda:99")
    assert result.code == 2
    assert re.search("There is no cuda device|GPU 99 was asked for", result.err)
