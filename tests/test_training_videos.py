"""Clips drawn from annotated videos."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import progressbar
import pytest
import torch
from PIL import Image

from datasets import training_videos, transforms, video_list
from datasets.clips import ClipSample
from datasets.training_videos import (
    JumpSchedule,
    VideoClips,
    VideoSet,
    draw_crop,
    draw_frames,
)
from datasets.video_list import TrainingVideo, find_bl30k, find_davis, find_youtube
from util.masks import DAVIS_PALETTE, write_mask

CONSTANT = JumpSchedule([5], [], 1)


def same(a: ClipSample, b: ClipSample) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


def write_video(root: Path, images: list[np.ndarray], masks: list[np.ndarray]) -> TrainingVideo:
    """Write lossless frames, so that image and mask agree exactly."""
    for folder in ("frames", "masks"):
        (root / folder).mkdir(parents=True)
    names = [f"{index:05d}" for index in range(len(images))]
    for name, image, mask in zip(names, images, masks, strict=True):
        Image.fromarray(image).save(root / "frames" / f"{name}.png")
        write_mask(root / "masks" / f"{name}.png", mask, DAVIS_PALETTE)
    return TrainingVideo(root / "frames", root / "masks", ".png", "/".join(names))


def draw_ellipses(num_frames: int = 4) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """White ellipses with labels 3 and 9 that move on a black background."""
    masks = []
    for t in range(num_frames):
        mask = np.zeros((90, 120), np.uint8)
        cv2.ellipse(mask, (35 + 3 * t, 48), (24, 18), 25, 0, 360, 3, -1)
        cv2.ellipse(mask, (88, 40 + 2 * t), (18, 24), 10, 0, 360, 9, -1)
        masks.append(mask)
    images = [np.repeat(((mask > 0) * 255).astype(np.uint8)[..., None], 3, 2) for mask in masks]
    return images, masks


# Frames


def test_frame_indices_are_drawn_as_published() -> None:
    rng = np.random.default_rng(0)
    length, jump, num_draws = 20, 5, 4000
    starts, steps, backwards = Counter[int](), Counter[int](), 0
    for _ in range(num_draws):
        frames = draw_frames(rng, length, jump)
        if frames != sorted(frames):
            backwards += 1
            frames = frames[::-1]
        first, second, third = frames
        assert 0 <= first <= length - jump
        assert second == min(second, length - jump)
        assert third <= length - jump // 2
        starts[first] += 1
        if first + jump + 1 <= length - jump:  # no index is limited by the end
            steps[second - first] += 1
    assert sorted(starts) == [*range(length - jump + 1)]
    assert min(starts.values()) > 0.7 * num_draws / len(starts)
    assert sorted(steps) == [*range(1, jump + 2)]
    assert min(steps.values()) > 0.8 * steps.total() / len(steps)
    assert 0.46 < backwards / num_draws < 0.54


def test_short_videos_and_long_clips() -> None:
    rng = np.random.default_rng(0)
    for length in (3, 4, 7):
        for jump in (1, 5, 25):
            for num_frames in (3, 5):
                drawn = [draw_frames(rng, length, jump, num_frames) for _ in range(200)]
                assert all(len(frames) == num_frames for frames in drawn)
                assert all(0 <= i < length for frames in drawn for i in frames)
    five = [sorted(draw_frames(rng, 60, 10, 5)) for _ in range(500)]
    assert {frames[0] for frames in five} == {*range(11)}  # 60 - 5 * 10: all steps fit
    assert max(frames[3] for frames in five) <= 60 - 10 // 3
    assert max(frames[4] for frames in five) <= 60 - 10 // 4


def test_jump_depends_on_the_share_of_the_epochs() -> None:
    schedule = JumpSchedule([5, 10, 15, 20, 25, 5], [0.1, 0.2, 0.3, 0.4, 0.9], 20)
    expected = [5, 5, 10, 10, 15, 15, 20, 20, *[25] * 10, 5, 5]
    assert [schedule.at(epoch) for epoch in range(20)] == expected
    assert schedule.at(25) == 5
    short = JumpSchedule([5, 10, 15, 20, 25, 5], [0.1, 0.2, 0.3, 0.4, 0.9], 1)
    assert short.at(0) == 25  # with one epoch, all shares below a half are rounded to its start


def test_youtube_jumps_are_divided_by_five(
    monkeypatch: pytest.MonkeyPatch, synthetic: Path
) -> None:
    jumps = []

    def record_jump(rng: np.random.Generator, length: int, jump: int, num_frames: int) -> list[int]:
        jumps.append(jump)
        return draw_frames(rng, length, jump, num_frames)

    monkeypatch.setattr(training_videos, "draw_frames", record_jump)
    videos = find_youtube(synthetic / "YouTube")
    schedule = JumpSchedule([4, 25], [0.5], 2)
    clips = VideoClips([VideoSet("YouTube", videos, jump_divisor=5)], schedule, 32)
    for epoch in (0, 1):
        clips[epoch, 0]
    assert {*jumps} == {1, 5}  # a fifth, but at least 1
    assert jumps == sorted(jumps)


# Samples


@pytest.mark.parametrize("name", ["davis", "youtube", "bl30k"])
def test_samples_of_every_layout(synthetic: Path, name: str) -> None:
    videos = {
        "davis": lambda: find_davis(synthetic / "DAVIS"),
        "youtube": lambda: find_youtube(synthetic / "YouTube"),
        "bl30k": lambda: find_bl30k(synthetic / "BL30K"),
    }[name]()
    assert len(videos) == 2
    clips = VideoClips([VideoSet(name, videos, repeats=3)], CONSTANT, 32, seed=5)
    assert len(clips) == 6
    object_counts = set()
    for index in range(6):
        sample = clips[0, index]
        assert sample.images.shape == (3, 3, 32, 32)
        assert sample.images.dtype == sample.labels.dtype == torch.uint8
        assert sample.labels.shape == (3, 32, 32)
        assert sample.labels[0].any()
        assert int(sample.labels.max()) <= sample.num_objects <= 2
        assert sample.name == f"{name}/{videos[index % 2].name}"
        object_counts.add(sample.num_objects)
    assert 2 in object_counts


def test_sample_depends_on_seed_epoch_and_index_only(synthetic: Path) -> None:
    videos = find_davis(synthetic / "DAVIS")

    def make(seed: int) -> VideoClips:
        return VideoClips([VideoSet("DAVIS", videos, repeats=2)], CONSTANT, 32, seed=seed)

    clips = make(1)
    expected = clips[2, 1]
    torch.manual_seed(9)
    np.random.seed(9)  # noqa: NPY002, the test detects its use
    assert same(make(1)[2, 1], expected)
    for other in (clips[1, 1], clips[2, 3], clips[2, 0], make(2)[2, 1]):
        assert not same(other, expected)


def test_mixture_of_data_sets(synthetic: Path) -> None:
    davis, youtube = find_davis(synthetic / "DAVIS"), find_youtube(synthetic / "YouTube")
    clips = VideoClips([VideoSet("D", davis, 5), VideoSet("Y", youtube)], CONSTANT, 32)
    names = Counter(clips[0, index].name for index in range(len(clips)))
    assert names == {
        **{f"D/{video.name}": 5 for video in davis},
        **{f"Y/{video.name}": 1 for video in youtube},
    }
    assert clips.sizes == {"D": 2, "Y": 2}


@pytest.mark.parametrize("crop_size", [32, 144])
def test_image_and_mask_move_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, crop_size: int
) -> None:
    monkeypatch.setattr(training_videos, "draw_colour", lambda rng, jitter, mean: np.eye(3, 4))
    monkeypatch.setattr(transforms, "MEAN_COLOUR", (0, 0, 0))  # outside is background
    video = write_video(tmp_path / "v", *draw_ellipses())
    clips = VideoClips([VideoSet("", [video])], CONSTANT, crop_size, seed=3)
    kernel = np.ones((3, 3), np.uint8)
    for epoch in range(12):
        sample = clips[epoch, 0]
        assert sample.num_objects == 2 or not (sample.labels == 2).any()
        for image, labels in zip(sample.images.numpy(), sample.labels.numpy(), strict=True):
            if sample.num_objects < 2:
                continue  # objects that are not on the first frame become background
            edge = cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)
            assert not (((image[0] > 127) != (labels > 0)) & ~edge).any()


def test_order_of_objects_is_random(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(training_videos, "draw_colour", lambda rng, jitter, mean: np.eye(3, 4))
    _, masks = draw_ellipses()
    images = [np.repeat((mask * 25).astype(np.uint8)[..., None], 3, 2) for mask in masks]
    video = write_video(tmp_path / "v", images, masks)
    clips = VideoClips([VideoSet("", [video], min_crop_area=0.95)], CONSTANT, 64, seed=3)
    is_3_first = []
    for epoch in range(60):
        sample = clips[epoch, 0]
        if sample.num_objects == 2:
            grey = sample.images[0, 0].float()
            one, two = (grey[sample.labels[0] == o].median().item() for o in (1, 2))
            assert sorted((one, two)) == [75, 225]  # labels 3 and 9
            is_3_first.append(one == 75)
    assert len(is_3_first) > 30
    assert 0.3 < np.mean(is_3_first) < 0.7


def test_crops_are_distributed_as_in_torchvision() -> None:
    rng = np.random.default_rng(0)
    areas, ratios = [], []
    for _ in range(2000):
        top, left, height, width = draw_crop(rng, 480, 640, 0.36)
        assert 0 <= top <= 480 - height
        assert 0 <= left <= 640 - width
        areas.append(height * width / (480 * 640))
        ratios.append(width / height)
    assert 0.355 < min(areas) < 0.38
    assert max(areas) > 0.97
    assert 0.74 < min(ratios) < 0.77
    assert 1.3 < max(ratios) < 1.34
    # If no crop fits, the largest one in the centre is taken.
    assert draw_crop(rng, 10, 1000, 0.9) == (0, (1000 - 13) // 2, 10, 13)


def test_distributions_are_as_published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: dict[str, list[Any]] = {"affine": [], "flip": [], "draw_colour": []}
    for name, calls in drawn.items():
        function = getattr(training_videos, name)

        def record(*args: Any, f: Any = function, calls: list[Any] = calls, **options: Any) -> Any:
            calls.append((args, options))
            return f(*args, **options)

        monkeypatch.setattr(training_videos, name, record)
    images, masks = draw_ellipses()
    video = write_video(tmp_path / "v", images, [np.full_like(mask, 1) for mask in masks])
    clips = VideoClips([VideoSet("", [video])], CONSTANT, 16, seed=0)
    num_clips = 300
    for epoch in range(num_clips):
        clips[epoch, 0]
    assert len(drawn["affine"]) == 3 * num_clips
    for name, limit in (("degrees", 15), ("shear", 10)):
        values = np.array([options[name] for _, options in drawn["affine"]])
        assert -limit <= values.min() < -0.95 * limit
        assert 0.95 * limit < values.max() <= limit
        assert abs(values.mean()) < 0.1 * limit
    assert all(options.keys() == {"degrees", "shear"} for _, options in drawn["affine"])
    assert 0.42 < len(drawn["flip"]) / num_clips < 0.58
    jitters = [args[1] for args, _ in drawn["draw_colour"]]
    assert len(jitters) == 4 * num_clips
    shared, own = jitters[0], jitters[1]
    assert (shared.brightness, shared.contrast, shared.saturation, shared.hue) == (
        0.1,
        0.03,
        0.03,
        0,
    )
    assert shared.grey_probability == 0.05
    assert (own.brightness, own.contrast, own.saturation, own.hue) == (0.01, 0.01, 0.01, 0)
    assert own.grey_probability == 0


def test_small_objects_are_skipped() -> None:
    def make_masks(*areas: int) -> list[np.ndarray]:
        masks = []
        for area in areas:
            mask = np.zeros((64, 64), np.uint8)
            mask.ravel()[:area] = 7
            masks.append(mask)
        return masks

    is_large_enough = training_videos._is_large_enough
    assert not is_large_enough(7, make_masks(100, 0, 0))
    assert is_large_enough(7, make_masks(101, 0, 399))
    assert not is_large_enough(7, make_masks(101, 0, 400))
    assert not is_large_enough(7, make_masks(900, 400, 0))
    assert is_large_enough(7, make_masks(901, 900, 900))


def test_empty_first_frames_are_drawn_again_a_few_times(tmp_path: Path) -> None:
    images, masks = draw_ellipses(6)
    masks[:3] = [np.zeros_like(masks[0])] * 3
    video = write_video(tmp_path / "v", images, masks)
    clips = VideoClips([VideoSet("", [video])], JumpSchedule([1], [], 1), 32, seed=0)
    is_visible = [bool(clips[epoch, 0].labels[0].any()) for epoch in range(30)]
    assert np.mean(is_visible) > 0.85
    empty = write_video(tmp_path / "e", images, [np.zeros_like(masks[0])] * 6)
    sample = VideoClips([VideoSet("", [empty])], CONSTANT, 32)[0, 0]
    assert sample.num_objects == 1
    assert not sample.labels.any()


# Errors


def test_invalid_masks_are_rejected(tmp_path: Path) -> None:
    images, masks = draw_ellipses()
    clips = VideoClips(
        [VideoSet("", [write_video(tmp_path / "a", images, [mask[:80] for mask in masks])])],
        CONSTANT,
        32,
    )
    with pytest.raises(ValueError, match=r"frame .* is 120x90, but its mask is 120x80"):
        clips[0, 0]
    masks[0][:] = np.arange(120)
    video = write_video(tmp_path / "b", images, [masks[0]] * 4)
    clips = VideoClips([VideoSet("", [video], min_crop_area=0.9)], CONSTANT, 96)
    with pytest.raises(ValueError, match=r"mask .* has \d+ labels: it looks anti-aliased"):
        clips[0, 0]


def test_invalid_videos_are_rejected(synthetic: Path, tmp_path: Path) -> None:
    root = tmp_path / "BL30K"
    images, masks = draw_ellipses(4)
    video = write_video(tmp_path / "v", images, masks)
    (root / "JPEGImages").mkdir(parents=True)
    (root / "Annotations").mkdir()
    video.frames.rename(root / "JPEGImages" / "one")
    video.masks.rename(root / "Annotations" / "one")
    assert [v.name for v in find_bl30k(root)] == ["one"]
    (root / "JPEGImages" / "one" / "00002.png").unlink()
    with pytest.raises(ValueError, match=r"1 masks of video one have no frame .* 00002: extract"):
        find_bl30k(root)
    for folder in ("JPEGImages", "Annotations"):
        for path in sorted((root / folder / "one").glob("*.png"))[2:]:
            path.unlink()
    with pytest.raises(ValueError, match="contains no video with 3 or more annotated frames"):
        find_bl30k(root)
    (root / "Annotations" / "two").mkdir()
    with pytest.raises(ValueError, match=r"video two has no folder .*JPEGImages"):
        find_bl30k(root)


def test_many_videos_show_progress(synthetic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[progressbar.ProgressBar] = []
    open_bar = video_list._open_bar

    def record(num_videos: int, is_shown: bool) -> progressbar.ProgressBar:
        bars.append(open_bar(num_videos, is_shown))
        return bars[-1]

    monkeypatch.setattr(video_list, "_open_bar", record)
    expected = find_bl30k(synthetic / "BL30K", shows_progress=True)
    monkeypatch.setattr(video_list, "_BATCH", 1)
    assert find_bl30k(synthetic / "BL30K") == expected
    assert find_bl30k(synthetic / "BL30K", shows_progress=True) == expected
    kinds = [progressbar.NullBar, progressbar.NullBar, progressbar.ProgressBar]
    assert [type(bar) for bar in bars] == kinds
    assert bars[-1].value == len(expected)


def test_frames_are_in_natural_order(tmp_path: Path) -> None:
    for names in (["2", "10", "1"], ["00003", "00001", "00002"], ["a2", "a10", "a1"]):
        root = tmp_path / names[0]
        for kind, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".png")):
            folder = root / kind / "a"
            folder.mkdir(parents=True)
            for name in (*names, ".hidden"):
                (folder / f"{name}{suffix}").touch()
        (video,) = find_bl30k(root)
        assert video.names == sorted(names, key=lambda name: int(name.strip("a")))
