"""Files to damage for scripts/experiments/fuzz.py, and what reads them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from datasets.clips import TrainingClips
from datasets.davis import davis_2017
from datasets.generic import generic, one_video
from datasets.static import StaticClips, find_static_pairs, mix_static
from datasets.synthetic import make_clip
from datasets.training_videos import JumpSchedule, VideoClips, VideoSet
from datasets.video import Video
from datasets.video_list import find_davis, find_youtube
from datasets.youtube import youtube
from evaluation.predictions import Selection
from evaluation.protocols import select_davis, select_folders
from evaluation.scoring import score
from model.checkpoint import load_for_inference, save_network
from model.methods import build_network
from model.network import NetworkSpec
from model.trainer import Trainer
from model.training_state import resume, save
from scripts import make_synthetic
from scripts.experiments.fuzz_damage import Rng, edit_image, edit_json, edit_list
from util.hyper_para import TrainSettings
from util.ranks import Ranks

Damage = Callable[[Rng, bytes], tuple[str, bytes]]
_HEIGHT, _WIDTH, _NUM_FRAMES = 48, 68, 11


@dataclass(frozen=True)
class Target:
    """Files of one kind and a reader that they go through.

    Args:
        kind: kind of file, for the table.
        files: files to damage, one in each case.
        read: reads the data with the damaged file. It raises AssertionError if what it read cannot
            be used, and returns what a checksum protects.
        edits: damage beyond that of bytes.
    """

    kind: str
    files: list[Path]
    read: Callable[[], bytes]
    edits: tuple[Damage, ...] = ()


def make_targets(root: Path) -> list[Target]:
    """Write small data to an empty folder, and list what reads it."""
    with contextlib.redirect_stderr(io.StringIO()):  # the progress bar
        make_synthetic.main([
            str(root), "--num_videos", "1", "--num_frames", str(_NUM_FRAMES), "--num_objects", "2",
            "--height", str(_HEIGHT), "--width", str(_WIDTH),
        ])  # fmt: skip
    davis, yv = root / "DAVIS", root / "YouTube"
    trainval = davis / "2017" / "trainval"
    video, mask = root / "clip.mp4", root / "generic" / "Annotations" / "video000" / "00000.png"
    _write_video(video)
    trainer = _make_trainer(root)
    save(trainer)
    weights = root / "weights.pth"
    save_network(weights, trainer.network, {"settings": {}})

    own = partial(_read_videos, lambda: generic(root / "generic", 32)[0])
    val = partial(_read_videos, lambda: davis_2017(davis, "val", shorter_side=32))
    valid = partial(_read_videos, lambda: youtube(yv, "valid", 32))
    clip = partial(_read_videos, lambda: [one_video(video, mask, 32)])
    static = partial(_read_clips, lambda: _static_clips(root / "static"))
    videos = partial(_read_clips, lambda: _video_clips(yv))
    train_masks, predictions = yv / "train_480p" / "Annotations", root / "predictions"
    shutil.copytree(trainval / "Annotations" / "480p", predictions / "val")
    shutil.copytree(train_masks, predictions / "train")
    listing = trainval / "ImageSets" / "2017"
    images, lists, jsons = (edit_image,), (edit_list,), (edit_json,)
    return [
        Target("evaluation: frame", _files(root / "generic" / "JPEGImages", ".jpg"), own, images),
        Target("evaluation: mask", _files(root / "generic" / "Annotations", ".png"), own, images),
        Target("evaluation: video file", [video], clip),
        Target("evaluation: list", [listing / "val.txt"], val, lists),
        Target("evaluation: meta.json", [yv / "valid" / "meta.json"], valid, jsons),
        Target("evaluation: weights", [weights], partial(_read_weights, weights)),
        Target("scores: prediction", _files(predictions / "val" / "val-000", ".png"),
               partial(_score, lambda: select_davis(predictions / "val", davis / "2017")), images),
        Target("scores: ground truth", _files(train_masks, ".png"),
               partial(_score, lambda: select_folders(predictions / "train", train_masks)), images),
        Target("training: frame", _files(yv / "train_480p", ".jpg"), videos, images),
        Target("training: mask", _files(yv / "train_480p", ".png"), videos, images),
        Target("training: static image", _files(root / "static", ".jpg"), static, images),
        Target("training: static mask", _files(root / "static", ".png"), static, images),
        Target("training: list", [listing / "train.txt"],
               partial(_find_davis, davis), lists),
        Target("training: checkpoint", [trainer.folder / "run_0_checkpoint.pth"],
               partial(_resume, trainer, trainer.folder / "run_0_checkpoint.pth")),
    ]  # fmt: skip


def _files(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.rglob(f"*{suffix}"))


def _write_video(path: Path) -> None:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")  # before the first use of FFmpeg
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 24, (_WIDTH, _HEIGHT))
    for image, _ in make_clip(_NUM_FRAMES, _HEIGHT, _WIDTH, 2, seed=1):
        writer.write(image[..., ::-1])
    writer.release()


def _make_trainer(root: Path) -> Trainer:
    settings = TrainSettings(id="run", size="tiny", save_dir=str(root / "saves"), device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(NetworkSpec("stcn", "tiny"))
    device, record = torch.device("cpu"), {"settings": dataclasses.asdict(settings)}
    return Trainer(network, settings, record, device, torch.float32, Ranks())


def _read_videos(load: Callable[[], list[Video]]) -> bytes:
    """Decode all frames of videos; return their annotations."""
    annotations = []
    for video in load():
        height, width = video.working_size
        assert min(height, width) == 32, "the working size is as requested"
        for frame in video:
            assert frame.image.shape == (height, width, 3), "all frames have the working size"
            assert frame.image.dtype == np.uint8
            if frame.annotation is not None:
                assert frame.annotation.shape == (height, width)
                annotations.append(frame.annotation.tobytes())
    assert annotations, "a video has an annotation"
    return b"".join(annotations)


def _static_clips(root: Path) -> TrainingClips:
    return StaticClips(mix_static(find_static_pairs(root)), crop_size=32, num_objects=2)


def _video_clips(root: Path) -> TrainingClips:
    videos = VideoSet("YouTube", find_youtube(root), jump_divisor=5)
    return VideoClips([videos], JumpSchedule([25], [], 1), crop_size=32)


def _read_clips(load: Callable[[], TrainingClips]) -> bytes:
    """Read every clip of some epochs; return the labels."""
    clips = load()
    labels = []
    for epoch in range(4):
        for index in range(len(clips)):
            sample = clips[epoch, index]
            assert sample.images.shape == (3, 3, 32, 32), "a clip has three frames"
            assert sample.labels.max() <= sample.num_objects <= 2, "labels are objects"
            assert sample.first_masks.shape == (2, 32, 32)
            labels.append(sample.labels.numpy().tobytes())
    return b"".join(labels)


def _find_davis(root: Path) -> bytes:
    videos = find_davis(root)
    assert videos, "there is a video"
    return "".join(video.name for video in videos).encode()


def _score(select: Callable[[], Selection]) -> bytes:
    """Score predictions; return the scores."""
    with contextlib.redirect_stderr(io.StringIO()):  # the progress bar
        scores = score(select())
    values = np.array([(s.region.mean, s.boundary.mean) for s in scores.objects])
    assert ((values >= 0) & (values <= 1)).all(), "scores are from 0 to 1"
    return values.tobytes()


def _read_weights(path: Path) -> bytes:
    return _tensor_bytes(load_for_inference(path).state_dict())


def _resume(trainer: Trainer, path: Path) -> bytes:
    resume(trainer, path)
    return _tensor_bytes(trainer.network.state_dict())


def _tensor_bytes(tensors: dict[str, torch.Tensor]) -> bytes:
    return b"".join(name.encode() + t.numpy().tobytes() for name, t in tensors.items())
