"""Synthetic clips: determinism, visibility, late objects, and layouts on disk."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.synthetic import make_clip
from datasets.synthetic_layouts import LAYOUTS, STATIC_FLAT
from datasets.synthetic_scene import Clip
from scripts import evaluate, make_synthetic


def share(labels: np.ndarray, label: int) -> float:
    return float((labels == label).mean())


def small_clip(seed: int | tuple[int, ...] = 0, late_objects: int = 0) -> Clip:
    return make_clip(12, 96, 160, 3, seed, late_objects)


def test_frames_depend_on_the_arguments_only() -> None:
    first, again, other = small_clip((5, 1)), small_clip((5, 1)), small_clip((5, 2))
    for (image, labels), (image_again, labels_again) in zip(first, again, strict=True):
        np.testing.assert_array_equal(image, image_again)
        np.testing.assert_array_equal(labels, labels_again)
    assert (first.frame(0)[1] != other.frame(0)[1]).any()


def test_frames_in_any_order() -> None:
    clip = small_clip()
    frames = iter(clip)
    assert iter(frames) is frames  # frames are drawn when they are needed
    image, labels = next(frames)
    assert (image.shape, image.dtype) == ((96, 160, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((96, 160), np.uint8)
    clip.frame(7)
    np.testing.assert_array_equal(clip.frame(0)[0], image)
    assert len(list(clip)) == len(clip) == 12
    with pytest.raises(IndexError, match="12 frames"):
        clip.frame(12)


@pytest.mark.parametrize("num_objects", [1, 2, 5, 16, 50])
@pytest.mark.parametrize("size", [(120, 214), (96, 96), (200, 50)])
def test_objects_are_visible_on_the_first_frame(num_objects: int, size: tuple[int, int]) -> None:
    for seed in range(3):
        _, labels = make_clip(1, *size, num_objects, (seed, num_objects)).frame(0)
        assert set(np.unique(labels)) == set(range(num_objects + 1))
        assert min(share(labels, label) for label in range(1, num_objects + 1)) >= 0.003


def test_objects_move_and_deform_smoothly() -> None:
    clip = make_clip(40, 96, 160, 3, seed=3)
    masks = [labels for _, labels in clip]
    changes = [(before != after).mean() for before, after in itertools.pairwise(masks)]
    assert min(changes) > 0
    assert max(changes) < 0.2
    contours = [clip.objects[0].contour(index) / clip.objects[0].radius for index in (0, 20)]
    assert np.abs(contours[0] - contours[1]).max() > 0.02
    assert min(contour.min() for contour in contours) > 0


def test_objects_occlude_each_other() -> None:
    hidden_shares = []
    for seed in range(4):
        clip = make_clip(40, 96, 160, 3, seed)
        for index in range(0, 40, 4):
            image, labels = clip.frame(index)
            alone = np.zeros_like(labels)
            clip.objects[0].paint(image.astype(np.float32), alone, 1, index)
            hidden_shares.append(1 - share(labels, 1) / share(alone, 1))
    assert min(hidden_shares) == 0
    assert max(hidden_shares) > 0.3


def test_objects_are_textured_and_differ_from_the_background() -> None:
    for seed in range(5):
        image, labels = make_clip(1, 120, 160, 3, seed).frame(0)
        background = image[labels == 0].mean(axis=0)
        for label in range(1, 4):
            pixels = image[labels == label].astype(float)
            assert np.abs(pixels.mean(axis=0) - background).max() > 15
            assert pixels.std(axis=0).mean() > 8


@pytest.mark.parametrize("num_frames", [2, 6, 12, 30])
def test_late_objects_enter_on_their_entry_frame(num_frames: int) -> None:
    for seed in range(5):
        clip = make_clip(num_frames, 96, 160, 4, seed, late_objects=2)
        visible = [set(np.unique(labels)) for _, labels in clip]
        assert visible[0] == {0, 1, 2}
        for label in (3, 4):
            entry = next(index for index, labels in enumerate(visible) if label in labels)
            assert entry == clip.objects[label - 1].entry_frame
            if num_frames >= 6:
                assert entry % 5 == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 96, 160, 3, 0, 0), "at least one frame"),
        ((5, 16, 160, 3, 0, 0), "at least 32"),
        ((5, 32, 300, 3, 0, 0), "at most 4 times"),
        ((5, 96, 160, 0, 0, 0), "from 1 to 50"),
        ((5, 96, 160, 51, 0, 0), "from 1 to 50"),
        ((5, 96, 160, 2, 0, 2), "from 0 to 1"),
        ((1, 96, 160, 2, 0, 1), "one frame cannot have late objects"),
    ],
)
def test_invalid_clips_are_rejected(arguments: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_clip(*arguments)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("synthetic")
    arguments = [
        "--num_frames",
        "11",
        "--height",
        "48",
        "--width",
        "80",
        "--num_objects",
        "2",
        "--seed",
        "4",
    ]
    assert make_synthetic.main([str(output), *arguments]) == 0
    return output


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_davis_2017_layout(written: Path) -> None:
    trainval = written / "DAVIS" / "2017" / "trainval"
    for split in ("train", "val"):
        sequences = (trainval / "ImageSets" / "2017" / f"{split}.txt").read_text().split()
        assert sequences == [f"{split}-000", f"{split}-001"]
        for video in sequences:
            assert names(trainval / "JPEGImages" / "480p" / video) == [
                f"{index:05d}.jpg" for index in range(11)
            ]
            assert len(names(trainval / "Annotations" / "480p" / video)) == 11
    with Image.open(trainval / "Annotations" / "480p" / "val-000" / "00000.png") as mask:
        assert (mask.mode, mask.size) == ("P", (80, 48))
        assert set(np.unique(np.array(mask))) == {0, 1, 2}

    test_dev = written / "DAVIS" / "2017" / "test-dev"
    sequences = (test_dev / "ImageSets" / "2017" / "test-dev.txt").read_text().split()
    for video in sequences:
        assert names(test_dev / "Annotations" / "480p" / video) == ["00000.png"]
        assert len(names(test_dev / "JPEGImages" / "480p" / video)) == 11


def test_davis_2016_layout(written: Path) -> None:
    davis = written / "DAVIS"
    for split in ("train", "val"):
        list_path = davis / "2017" / "trainval" / "ImageSets" / "2016" / f"{split}.txt"
        for video in list_path.read_text().split():
            masks = sorted((davis / "2016" / "Annotations" / "480p" / video).iterdir())
            assert len(masks) == len(names(davis / "2016" / "JPEGImages" / "480p" / video)) == 11
            with Image.open(masks[0]) as mask:
                assert mask.mode == "L"
                assert set(np.unique(np.array(mask))) == {0, 255}


def test_youtube_layout(written: Path) -> None:
    youtube = written / "YouTube"
    annotated = ["00000", "00005", "00010"]
    for video in names(youtube / "train_480p" / "JPEGImages"):
        images = names(youtube / "train_480p" / "JPEGImages" / video)
        masks = names(youtube / "train_480p" / "Annotations" / video)
        assert images == [f"{name}.jpg" for name in annotated]
        assert masks == [f"{name}.png" for name in annotated]

    meta = json.loads((youtube / "valid" / "meta.json").read_text())["videos"]
    all_frames = youtube / "all_frames" / "valid_all_frames" / "JPEGImages"
    assert sorted(meta) == names(youtube / "valid" / "JPEGImages") == names(all_frames)
    num_late = 0
    for video, entry in meta.items():
        assert names(youtube / "valid" / "JPEGImages" / video) == [f"{n}.jpg" for n in annotated]
        assert len(names(all_frames / video)) == 11
        first: dict[str, set[int]] = {}
        for label, item in entry["objects"].items():
            assert set(item) == {"category", "frames"}
            assert item["frames"] == annotated[annotated.index(item["frames"][0]) :]
            first.setdefault(item["frames"][0], set()).add(int(label))
        annotations = youtube / "valid" / "Annotations" / video
        assert names(annotations) == [f"{name}.png" for name in sorted(first)]
        for name, labels in first.items():
            with Image.open(annotations / f"{name}.png") as mask:
                assert set(np.unique(np.array(mask))) - {0} == labels
        num_late += sum(len(labels) for name, labels in first.items() if name != "00000")
    assert num_late >= 1
    train_meta = json.loads((youtube / "train_480p" / "meta.json").read_text())["videos"]
    assert sorted(train_meta) == names(youtube / "train_480p" / "JPEGImages")


def test_youtube_layout_can_be_scored(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    youtube = written / "YouTube"
    results = tmp_path / "results"
    shutil.copytree(youtube / "all_frames" / "valid_all_frames" / "Annotations", results)
    paths = ["--results_path", str(results), "--yv_path", str(youtube)]
    assert evaluate.main(paths) == 0
    captured = capsys.readouterr()
    lines = [line.split()[:2] for line in captured.out.splitlines()]
    assert ["G", "1.000"] in lines
    assert "warning" not in captured.err
    videos = json.loads((youtube / "valid" / "meta.json").read_text())["videos"]
    num_objects = sum(len(entry["objects"]) for entry in videos.values())
    assert f"Scored {num_objects} objects" in captured.out


def test_bl30k_and_static_layouts(written: Path) -> None:
    for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        for video in names(written / "BL30K" / kind):
            assert names(written / "BL30K" / kind / video) == [
                f"{index:05d}.{suffix}" for index in range(11)
            ]
    static = written / "static"
    assert names(static) == sorted(["FSS", *STATIC_FLAT])
    for folder in [*(static / "FSS").iterdir(), *(static / n for n in STATIC_FLAT)]:
        images = sorted(folder.glob("*.jpg"))
        assert images
        for image in images:
            with Image.open(image.with_suffix(".png")) as mask:
                assert mask.mode == "L"
                assert set(np.unique(np.array(mask))) == {0, 255}


def test_chosen_layouts_and_existing_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [
        "--num_videos",
        "1",
        "--num_frames",
        "2",
        "--height",
        "32",
        "--width",
        "32",
        "--num_objects",
        "1",
    ]
    assert make_synthetic.main([str(tmp_path), "--layouts", "bl30k", *small]) == 0
    assert names(tmp_path) == ["BL30K"]
    assert make_synthetic.main([str(tmp_path), "--layouts", "static", "bl30k", *small]) == 2
    assert "BL30K exists and is not empty" in capsys.readouterr().err
    assert names(tmp_path) == ["BL30K"]  # no layout was written
    (tmp_path / "file").touch()
    assert make_synthetic.main([str(tmp_path / "file"), *small]) == 2
    assert "file is a file; choose a folder" in capsys.readouterr().err


def test_layout_names() -> None:
    assert tuple(LAYOUTS) == make_synthetic.LAYOUT_NAMES


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--num_frames", "10", "--layouts", "youtube"], "at least 11"),
        (["--num_objects", "0"], "num_objects"),
        (["--num_videos", "0"], "--num_videos"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_invalid_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    assert make_synthetic.main([str(tmp_path / "out"), *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert not (tmp_path / "out").exists()
