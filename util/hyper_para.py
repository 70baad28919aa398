"""Every knob, once: typed fields with a comment each; the command lines are made from them.

A value comes from, in this order: the field's default < the method's preset < the stage's preset
< the command line. To change a default for good, edit it here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

from util.command_line import knob

CompileMode = Literal["", "default", "reduce-overhead", "max-autotune"]  # torch.compile's


@dataclass
class TrainSettings:
    """Settings of train.py."""

    # --- what to train
    id: str = knob("", "name of the run: results go to <save_dir>/<id>")
    method: str = knob("stcn", "system to train: stcn, gsfm, qdmn, rde or imsfr")
    size: Literal["base", "small", "tiny"] = knob(
        "base", "widths: base as published, small for laptops, tiny for tests"
    )
    stage: str = knob(
        "0",
        "0 static images, 1 BL30K, 2 DAVIS and YouTube after stage 1, 3 the same after stage 0; or "
        "several in turn, such as 03 or 012: run <id>_s0, then <id>_s03 from its weights",
    )

    # --- where from, where to
    load_network: str = knob("", "start from these weights, at iteration 0")
    load_model: str = knob(
        "",
        "resume the run of this <id>_checkpoint.pth; or auto: the newest good one of <id>, and a "
        "new run where there is none",
    )
    trunk_weights: str = knob(
        "imagenet",
        "what the trunks start from without --load_network: imagenet (torchvision downloads it) or "
        "none; or a .pth file of a ResNet for the key encoder, which overrules --load_network's",
    )
    save_dir: str = knob("saves", "folder of all runs")

    # --- data
    static_root: str = knob("data/static", "folder of the static image data sets", only=("0",))
    bl_root: str = knob("data/BL30K", "folder of BL30K", only=("1",))
    davis_root: str = knob(
        "data/DAVIS", "folder of DAVIS, with 2017/trainval in it", only=("2", "3")
    )
    yv_root: str = knob(
        "data/YouTube", "folder of YouTube-VOS, with train_480p in it", only=("2", "3")
    )
    davis_subset: str = knob(
        "",
        "text file with the names of the DAVIS videos to train on, instead of DAVIS' own "
        "ImageSets/2017/train.txt",
        only=("2", "3"),
    )
    yv_subset: str = knob(
        "", "text file with the names of the YouTube videos to train on, not all", only=("2", "3")
    )
    num_frames: int = knob(3, "frames of a training clip")
    crop_size: int = knob(384, "side of the training clips in pixels, a multiple of 16")
    jumps: list[int] = knob(
        [5, 10, 15, 20, 25, 5],
        "most frames between neighbours of a clip (YouTube: a fifth, as every fifth frame is "
        "annotated), one after the other",
        only=("1", "2", "3"),
    )
    davis_jumps: list[int] = knob([], "the same for DAVIS, where it has its own", only=("2", "3"))
    jump_fractions: list[float] = knob(
        [0.1, 0.2, 0.3, 0.4, 0.9],
        "shares of the epochs after which the next of --jumps holds",
        only=("1", "2", "3"),
    )

    # --- method
    perturb_min: float | None = knob(
        None,
        "perturb the first mask, down to an IoU with the true one that is drawn from here: rde "
        "remembers it so, qdmn's quality head learns from it besides (not published)",
        methods=("rde", "qdmn"),
    )
    perturb_max: float | None = knob(None, "the other end of that range", methods=("rde", "qdmn"))
    klloss_weight: float = knob(
        10.0, "of the divergence of what a perturbed first mask leaves in memory", methods=("rde",)
    )
    decoder_f2_weight: float = knob(
        10.0,
        "of the divergence of what the embedding gives in frame 2",
        only=("1", "2", "3"),
        methods=("rde",),
    )
    decoder_f4_weight: float = knob(
        10.0,
        "of the divergence of what the embedding gives in frame 4",
        only=("1", "2", "3"),
        methods=("rde",),
    )
    repeat: int = knob(
        0, "squeeze-and-excitation blocks in the memory's compressor", methods=("rde",)
    )

    # --- optimisation
    batch_size: int = knob(8, "clips per process and pass", "-b")
    global_batch: int = knob(
        0,
        "clips per update, over all processes, whatever their number: each takes its share in "
        "passes of at most --batch_size, whose gradients are summed; 0: one pass of --batch_size "
        "on each process",
    )
    iterations: int = knob(300_000, "updates of the run", "-i")
    lr: float = knob(1e-5, "learning rate of Adam")
    trunk_lr: float = knob(
        1.0, "the key encoder's trunk learns at so many times --lr; 0 freezes it, which is faster"
    )
    steps: list[int] = knob([150_000], "iterations at which the learning rate is multiplied")
    gamma: float = knob(0.1, "what the learning rate is multiplied by at each of the steps")
    weight_decay: float = knob(1e-7, "L2 penalty of Adam")
    start_warm: int = knob(20_000, "until here every pixel counts in the loss")
    end_warm: int = knob(70_000, "from here only the hardest 15 % count")
    seed: int = knob(14159265, "seed of all random draws (a GPU may still add in another order)")

    # --- machine
    device: str = knob("auto", "auto, cpu, cuda, cuda:1 or mps")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = knob(
        "auto", "auto: mixed, float16 on GPUs and bfloat16 on CPUs"
    )
    no_amp: bool = knob(False, "float32 throughout, the same as --precision float32")
    compile: bool = knob(
        False, "compile the network first (torch.compile): minutes at the start, then faster"
    )
    num_workers: int = knob(
        min(8, os.cpu_count() or 1), "processes that load data, for each that trains"
    )
    benchmark: bool = knob(False, "let cuDNN try its algorithms first: faster, less reproducible")

    # --- watching, keeping
    report_interval: int = knob(100, "iterations between lines of the log")
    image_interval: int = knob(500, "iterations between sample images")
    save_interval: int = knob(
        10_000, "iterations between saves: of the weights alone, and of a checkpoint to resume from"
    )
    keep_last: int = knob(3, "checkpoints kept; older ones go, their weights alone stay")
    milestones: list[int] = knob([], "iterations at which to save a checkpoint that never goes")
    debug: bool = knob(False, "report, draw and save every few iterations, to see that all works")


@dataclass
class EvalSettings:
    """Settings of the eval_*.py scripts; each script has those that do something in it."""

    # --- what to segment with, and where
    model: str = knob("saves/stcn.pth", "weights: our own, or published ones")
    output: str = knob("", "folder for the masks: <output>/<video>/<frame>.png")
    davis_path: str = knob(
        "data/DAVIS/2017",
        "the folder with trainval/ and test-dev/ in it (DAVIS 2016: with 2016/ and 2017/ in it)",
        only=("davis", "davis_2016"),
    )
    yv_path: str = knob(
        "data/YouTube", "the folder with valid/ and all_frames/ in it", only=("youtube",)
    )
    data_path: str = knob(
        "data/generic",
        "the folder with JPEGImages/<video>/ and Annotations/<video>/ in it",
        only=("generic",),
    )
    video: str = knob(
        "", "one video instead of --data_path: a file, or a folder of frames", only=("generic",)
    )
    mask: str = knob(
        "",
        "of --video: a mask of its first frame, or a folder of masks named like their frames (of a "
        "file: by their numbers, as 00040.png); later masks correct the objects in them",
        only=("generic",),
    )
    direction: Literal["forwards", "backwards", "both"] = knob(
        "forwards",
        "forwards from each mask; backwards from each to the start; or both, with the mean of two "
        "passes between two masks. With the latter two every mask counts, as with --video",
        only=("generic",),
    )
    split: str = knob(
        "val",
        "part of the data set: val, train or test-dev of DAVIS (2016 has no test-dev), valid or "
        "test of YouTube-VOS",
        only=("davis", "davis_2016", "youtube"),
    )
    size: int = knob(
        0,
        "work at this shorter side in pixels and resize the masks back; 0 for the frames' own",
    )
    scales: list[float] = knob(
        [1.0],
        "multiples of that size to segment at, for the mean of their probabilities; with --size, "
        "frames are brought to the largest first",
    )
    flip: bool = knob(False, "also segment the mirrored frames, for the mean of both")

    # --- memory; what is left out is as the method was published for the data set
    dataset: Literal["davis", "davis_2016", "youtube"] = knob(
        "davis", "whose published settings a method takes where it has several", only=("generic",)
    )
    memory: str = knob(
        "",
        "what is remembered: every n-th frame, those of good quality (qdmn), all in one embedding "
        "(rde), or a random part of every n-th for each read; docs/methods.md explains them",
    )
    top: int = knob(
        -1, "rows of memory that a position reads; 0 for all, -1 as the method was published"
    )
    no_top: bool = knob(False, "the same as --top 0")
    use_km: bool = knob(
        False, "weigh each row of memory by a Gaussian around the position that it fits best"
    )
    mem_every: int = knob(0, "remember every n-th frame; 0: as the method was published")
    mem_capacity: int | None = knob(
        None,
        "frames that memory holds at most, the first one and all others counted; 0: any number",
    )
    mem_half: bool = knob(
        False, "keep values in memory in float16, even of a float32 network: 0.5 to 0.75 as large"
    )
    include_last: bool = knob(
        False, "(every_n, isogenous) also read the latest frame, remembered for one step"
    )
    mode: str = knob(
        "", "(sam) which memory is read, such as stm, gt or compress: docs/methods.md has them all"
    )
    quality_threshold: float | None = knob(
        None, "(quality) a frame is stored where its quality exceeds this share of the reference"
    )
    quality_reference: Literal["", "annotation", "prediction"] = knob(
        "", "(quality) whose quality that is: of the annotated frame or of the first one after it"
    )
    sample_from: int | None = knob(
        None, "(isogenous) all frames are read until more than so many are stored"
    )
    sample_share: float | None = knob(
        None, "(isogenous) share of the stored frames that are drawn for each read"
    )
    sample_keep: str = knob(
        "",
        "(isogenous) stored frames always read, as Python's indices and slices, such as 1,-5: for "
        "the second and the last five (with = where a minus comes first: --sample_keep=-5:)",
    )
    sample_seed: int | None = knob(None, "(isogenous) seed of the draws")

    # --- output
    output_all: bool = knob(
        False, "write every frame, not the scored ones alone", only=("youtube",)
    )
    overlay: bool = knob(False, "also write <output>/<video>.mp4 with the masks drawn in")
    save_scores: bool = knob(
        False,
        "also write probabilities, <output>/<video>/scores/<frame>.npz, of which "
        "scripts/merge_scores.py makes the mean of several runs",
    )

    # --- machine
    device: str = knob("auto", "auto, cpu, cuda, cuda:1 or mps")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = knob(
        "auto", "auto: float32, or with --amp the device's half precision"
    )
    amp: bool = knob(False, "half precision: float16 on GPUs, bfloat16 on CPUs")
    exact: bool = knob(
        False,
        "float32, convolutions summed as torch does: none of Winograd's on CPUs, no TF32 on GPUs",
    )
    encode_batch: int = knob(
        0, "frames whose images are encoded at once, ahead of their turn; 0: as many as pay"
    )
    compile: CompileMode = knob(
        "", "run the network through torch.compile in this mode; reduce-overhead has CUDA graphs"
    )
    benchmark: bool = knob(False, "let cuDNN try its algorithms first, where all sizes are alike")

    @property
    def shorter_side(self) -> int | None:
        """Of the frames as they are read, at the largest of the scales; None: as they are."""
        return round(self.size * max(self.scales)) or None


# method -> what differs from the defaults above.
METHOD_PRESETS: dict[str, dict[str, Any]] = {
    "stcn": {},
    "gsfm": {},
    "qdmn": {"batch_size": 8},
    "rde": {"lr": 2e-5, "num_frames": 5, "perturb_min": 0.85, "perturb_max": 1.0},
    "imsfr": {},
}

# When BL30K's jump falls back.
_BL30K_FRACTIONS = [0.1, 0.2, 0.3, 0.4, 0.8]
_QDMN_VIDEOS: dict[str, Any] = {
    "iterations": 150_000,
    "steps": [70_000],
    "jumps": [5, 10, 15, 20, 25, 10, 5],
    "davis_jumps": [5, 10, 15, 25, 10, 5, 1],
    "jump_fractions": [0.1, 0.2, 0.3, 0.4, 0.7, 0.9],
}

# (method, stage) -> what differs from the method's preset.
STAGE_PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("stcn", "0"): {},  # the defaults above are its
    ("stcn", "1"): {
        "batch_size": 4,
        "iterations": 500_000,
        "steps": [400_000],
        "jump_fractions": _BL30K_FRACTIONS,
    },
    ("stcn", "2"): {"batch_size": 4, "iterations": 300_000, "steps": [250_000]},
    ("stcn", "3"): {"batch_size": 4, "iterations": 150_000, "steps": [125_000]},
    ("gsfm", "0"): {
        "lr": 4e-5,
        "batch_size": 16,
        "iterations": 40_000,
        "steps": [20_000],
        "start_warm": 3_000,
        "end_warm": 10_000,
    },
    ("gsfm", "1"): {
        "lr": 6e-5,
        "batch_size": 8,
        "iterations": 65_000,
        "steps": [50_000],
        "start_warm": 5_000,
        "end_warm": 20_000,
        "jump_fractions": _BL30K_FRACTIONS,
    },
    ("gsfm", "2"): {
        "lr": 6e-5,
        "batch_size": 8,
        "iterations": 40_000,
        "steps": [30_000],
        "start_warm": 3_000,
        "end_warm": 10_000,
    },
    ("gsfm", "3"): {
        "lr": 4e-5,
        "batch_size": 8,
        "iterations": 30_000,
        "steps": [25_000],
        "start_warm": 3_000,
        "end_warm": 15_000,
    },
    ("qdmn", "0"): {"lr": 2e-5, "batch_size": 14, "iterations": 160_000},
    ("qdmn", "1"): {
        "iterations": 250_000,
        "steps": [200_000],
        "jump_fractions": _BL30K_FRACTIONS,
    },
    ("qdmn", "2"): _QDMN_VIDEOS,
    ("qdmn", "3"): _QDMN_VIDEOS,
    ("rde", "0"): {
        "num_frames": 3,
        "batch_size": 16,
        "iterations": 75_000,
        "steps": [37_500],
        "start_warm": 5_000,
        "end_warm": 17_500,
    },
    ("rde", "1"): {
        "lr": 1e-5,
        "batch_size": 4,
        "iterations": 500_000,
        "steps": [400_000],
        "jump_fractions": _BL30K_FRACTIONS,
    },
    ("rde", "2"): {
        "batch_size": 8,
        "iterations": 75_000,
        "steps": [62_500],
        "start_warm": 5_000,
        "end_warm": 17_500,
        "klloss_weight": 5.0,
        "decoder_f2_weight": 5.0,
        "decoder_f4_weight": 5.0,
    },
    ("rde", "3"): {"batch_size": 4, "iterations": 150_000, "steps": [125_000]},
    ("imsfr", "0"): {},
    ("imsfr", "1"): {
        "batch_size": 4,
        "iterations": 580_000,
        "steps": [400_000],
        "jump_fractions": _BL30K_FRACTIONS,
    },
    ("imsfr", "2"): {"batch_size": 4, "iterations": 680_000, "steps": [250_000]},
    ("imsfr", "3"): {"batch_size": 4, "iterations": 150_000, "steps": [125_000]},
}

# What --debug sets, where the command line does not.
DEBUG_PRESET: dict[str, Any] = {"report_interval": 5, "image_interval": 5, "save_interval": 50}

# What of the above belongs to which --memory.
POLICY_KNOBS: dict[str, tuple[str, ...]] = {
    "every_n": ("mem_every", "mem_capacity", "include_last"),
    "quality": ("mem_every", "mem_capacity", "quality_threshold", "quality_reference"),
    "sam": ("mem_every", "mem_capacity", "mode"),
    "isogenous": (
        "mem_every", "mem_capacity", "include_last", "sample_from", "sample_share", "sample_keep",
        "sample_seed",
    ),
}  # fmt: skip

# method, or (method, --dataset) -> what an eval script does where the command line leaves it to the
# method, which the checkpoint tells.
EVAL_METHOD_PRESETS: dict[str | tuple[str, str], dict[str, Any]] = {
    "stcn": {"memory": "every_n", "top": 20, "mem_every": 5},
    "gsfm": {"memory": "every_n", "top": 50, "mem_every": 3},
    # 20 frames, the annotated one and the one before.
    "qdmn": {"memory": "quality", "top": 50, "mem_every": 5, "mem_capacity": 22},
    ("qdmn", "youtube"): {
        "mem_capacity": 12,
        "quality_threshold": 0.75,
        "quality_reference": "prediction",
    },
    "rde": {"memory": "sam", "top": 40, "mem_every": 3, "mode": "two-frames-compress"},
    ("rde", "youtube"): {"top": 20, "mem_every": 4},
    "imsfr": {"memory": "isogenous", "top": 4, "mem_every": 6, "sample_keep": "1,-5:"},
    ("imsfr", "davis_2016"): {
        "top": 12,
        "sample_from": 8,
        "sample_share": 0.1,
        "sample_keep": "0,-2:",
    },
    ("imsfr", "youtube"): {"top": 20, "mem_every": 3, "sample_keep": "0:2,-5:"},
}

# eval script -> what differs from the defaults above.
EVAL_PRESETS: dict[str, dict[str, Any]] = {
    "davis": {},
    "davis_2016": {"davis_path": "data/DAVIS", "dataset": "davis_2016"},
    "youtube": {"split": "valid", "size": 480, "dataset": "youtube"},
    "generic": {"size": 480},
}

EVAL_SCRIPTS = {
    "davis": "eval_davis.py",
    "davis_2016": "eval_davis_2016.py",
    "youtube": "eval_youtube.py",
    "generic": "eval_generic.py",
}
