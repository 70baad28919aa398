"""Every knob, once: typed fields with a comment each; the command lines are made from them.

A value comes from, in this order: the field's default < the method's preset < the stage's preset
< the command line. To change a default for good, edit it here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from util.command_line import option

CompileMode = Literal["", "default", "reduce-overhead", "max-autotune"]  # torch.compile's


@dataclass
class TrainSettings:
    """Settings of train.py."""

    # --- what to train
    id: str = option("", "name of the run: results go to <save_dir>/<id>")
    method: str = option("stcn", "system to train: stcn, gsfm, qdmn, rde or imsfr")
    size: Literal["base", "small", "tiny"] = option(
        "base", "widths: base as published, small for laptops, tiny for tests"
    )
    stage: str = option(
        "0",
        "0 static images, 1 BL30K, 2 DAVIS and YouTube after stage 1, 3 the same after stage 0; or "
        "several in turn, such as 03 or 012: run <id>_s0, then <id>_s03 from its weights",
    )

    # --- where from, where to
    load_network: str = option("", "start from these weights, at iteration 0")
    load_model: str = option(
        "",
        "resume the run of this <id>_checkpoint.pth; or auto: the newest good one of <id>, and a "
        "new run where there is none",
    )
    backbone_weights: str = option(
        "imagenet",
        "initial weights of the backbones without --load_network: imagenet (downloaded by "
        "torchvision) or none; or a .pth file of a ResNet for the key encoder, which replaces that "
        "of --load_network",
    )
    save_dir: str = option("saves", "folder of all runs")

    # --- data
    static_root: str = option("data/static", "folder of the static image data sets", only=("0",))
    bl_root: str = option("data/BL30K", "folder of BL30K", only=("1",))
    davis_root: str = option(
        "data/DAVIS", "folder of DAVIS, with 2017/trainval in it", only=("2", "3")
    )
    yv_root: str = option(
        "data/YouTube", "folder of YouTube-VOS, with train_480p in it", only=("2", "3")
    )
    davis_subset: str = option(
        "",
        "text file with the names of the DAVIS videos to train on, instead of DAVIS' own "
        "ImageSets/2017/train.txt",
        only=("2", "3"),
    )
    yv_subset: str = option(
        "", "text file with the names of the YouTube videos to train on, not all", only=("2", "3")
    )
    num_frames: int = option(3, "frames of a training clip")
    crop_size: int = option(384, "side of the training clips in pixels, a multiple of 16")
    jumps: list[int] = option(
        [5, 10, 15, 20, 25, 5],
        "most frames between neighbours of a clip (YouTube: a fifth, as every fifth frame is "
        "annotated), one after the other",
        only=("1", "2", "3"),
    )
    davis_jumps: list[int] = option([], "the same for DAVIS, where it has its own", only=("2", "3"))
    jump_fractions: list[float] = option(
        [0.1, 0.2, 0.3, 0.4, 0.9],
        "shares of the epochs after which the next of --jumps holds",
        only=("1", "2", "3"),
    )

    # --- method
    perturb_min: float | None = option(
        None,
        "perturb the first mask, down to an IoU with the true one that is drawn from here: rde "
        "remembers it so, qdmn's quality head learns from it besides (not published)",
        methods=("rde", "qdmn"),
    )
    perturb_max: float | None = option(None, "the other end of that range", methods=("rde", "qdmn"))
    klloss_weight: float = option(
        10.0, "of the divergence of what a perturbed first mask leaves in memory", methods=("rde",)
    )
    decoder_f2_weight: float = option(
        10.0,
        "of the divergence of what the embedding gives in frame 2",
        only=("1", "2", "3"),
        methods=("rde",),
    )
    decoder_f4_weight: float = option(
        10.0,
        "of the divergence of what the embedding gives in frame 4",
        only=("1", "2", "3"),
        methods=("rde",),
    )
    repeat: int = option(
        0, "squeeze-and-excitation blocks in the memory's compressor", methods=("rde",)
    )

    # --- optimisation
    batch_size: int = option(8, "clips per process and pass", "-b")
    global_batch: int = option(
        0,
        "clips per update, over all processes, whatever their number: each takes its share in "
        "passes of at most --batch_size, whose gradients are summed; 0: one pass of --batch_size "
        "on each process",
    )
    iterations: int = option(300_000, "updates of the run", "-i")
    lr: float = option(1e-5, "learning rate of Adam")
    backbone_lr: float = option(
        1.0,
        "learning rate of the key encoder's backbone as a multiple of --lr; 0 freezes it, which is "
        "faster",
    )
    steps: list[int] = option([150_000], "iterations at which the learning rate is multiplied")
    gamma: float = option(0.1, "what the learning rate is multiplied by at each of the steps")
    weight_decay: float = option(1e-7, "L2 penalty of Adam")
    start_warm: int = option(20_000, "until here every pixel counts in the loss")
    end_warm: int = option(70_000, "from here only the hardest 15 % count")
    seed: int = option(14159265, "seed of all random draws (a GPU may still add in another order)")

    # --- machine
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", "auto: mixed, float16 on GPUs and bfloat16 on CPUs"
    )
    no_amp: bool = option(False, "float32 throughout, the same as --precision float32")
    compile: bool = option(
        False, "compile the network first (torch.compile): minutes at the start, then faster"
    )
    num_workers: int = option(
        min(8, os.cpu_count() or 1), "processes that load data, for each that trains"
    )
    benchmark: bool = option(False, "let cuDNN try its algorithms first: faster, less reproducible")

    # --- watching, keeping
    report_interval: int = option(100, "iterations between lines of the log")
    image_interval: int = option(500, "iterations between sample images")
    save_interval: int = option(
        10_000, "iterations between saves: of the weights alone, and of a checkpoint to resume from"
    )
    keep_last: int = option(3, "checkpoints kept; older ones go, their weights alone stay")
    milestones: list[int] = option([], "iterations at which to save a checkpoint that never goes")
    debug: bool = option(False, "report, draw and save every few iterations, to see that all works")


@dataclass
class EvalSettings:
    """Settings of the eval_*.py scripts; each script has those that do something in it."""

    # --- what to segment with, and where
    model: str = option("saves/stcn.pth", "weights: our own, or published ones")
    output: str = option("", "folder for the masks: <output>/<video>/<frame>.png")
    davis_path: str = option(
        "data/DAVIS/2017",
        "the folder with trainval/ and test-dev/ in it (DAVIS 2016: with 2016/ and 2017/ in it)",
        only=("davis", "davis_2016"),
    )
    yv_path: str = option(
        "data/YouTube", "the folder with valid/ and all_frames/ in it", only=("youtube",)
    )
    data_path: str = option(
        "data/generic",
        "the folder with JPEGImages/<video>/ and Annotations/<video>/ in it",
        only=("generic",),
    )
    video: str = option(
        "", "one video instead of --data_path: a file, or a folder of frames", only=("generic",)
    )
    mask: str = option(
        "",
        "of --video: a mask of its first frame, or a folder of masks named like their frames (of a "
        "file: by their numbers, as 00040.png); later masks correct the objects in them",
        only=("generic",),
    )
    direction: Literal["forwards", "backwards", "both"] = option(
        "forwards",
        "forwards from each mask; backwards from each to the start; or both, with the mean of two "
        "passes between two masks. With the latter two every mask counts, as with --video",
        only=("generic",),
    )
    split: str = option(
        "val",
        "part of the data set: val, train or test-dev of DAVIS (2016 has no test-dev), valid or "
        "test of YouTube-VOS",
        only=("davis", "davis_2016", "youtube"),
    )
    size: int = option(
        0,
        "work at this shorter side in pixels and resize the masks back; 0 for the frames' own",
    )
    scales: list[float] = option(
        [1.0],
        "multiples of that size to segment at, for the mean of their probabilities; with --size, "
        "frames are brought to the largest first",
    )
    flip: bool = option(False, "also segment the mirrored frames, for the mean of both")

    # --- memory; what is left out is as the method was published for the data set
    dataset: Literal["davis", "davis_2016", "youtube"] = option(
        "davis", "whose published settings a method takes where it has several", only=("generic",)
    )
    memory: str = option(
        "",
        "what is remembered: every n-th frame, those of good quality (qdmn), all in one embedding "
        "(rde), or a random part of every n-th for each read; docs/methods.md explains them",
    )
    top: int = option(
        -1, "rows of memory that a position reads; 0 for all, -1 as the method was published"
    )
    no_top: bool = option(False, "the same as --top 0")
    use_km: bool = option(
        False, "weigh each row of memory by a Gaussian around the position that it fits best"
    )
    mem_every: int = option(0, "remember every n-th frame; 0: as the method was published")
    mem_capacity: int | None = option(
        None,
        "frames that memory holds at most, the first one and all others counted; 0: any number",
    )
    mem_half: bool = option(
        False, "keep values in memory in float16, even of a float32 network: 0.5 to 0.75 as large"
    )
    include_last: bool = option(
        False, "(every_n, isogenous) also read the latest frame, remembered for one step"
    )
    mode: str = option(
        "", "(sam) which memory is read, such as stm, gt or compress: docs/methods.md has them all"
    )
    quality_threshold: float | None = option(
        None, "(quality) a frame is stored where its quality exceeds this share of the reference"
    )
    quality_reference: Literal["", "annotation", "prediction"] = option(
        "", "(quality) whose quality that is: of the annotated frame or of the first one after it"
    )
    sample_from: int | None = option(
        None, "(isogenous) all frames are read until more than so many are stored"
    )
    sample_share: float | None = option(
        None, "(isogenous) share of the stored frames that are drawn for each read"
    )
    sample_keep: str = option(
        "",
        "(isogenous) stored frames always read, as Python's indices and slices, such as 1,-5: for "
        "the second and the last five (with = where a minus comes first: --sample_keep=-5:)",
    )
    sample_seed: int | None = option(None, "(isogenous) seed of the draws")

    # --- output
    output_all: bool = option(
        False, "write every frame, not the scored ones alone", only=("youtube",)
    )
    overlay: bool = option(False, "also write <output>/<video>.mp4 with the masks drawn in")
    save_probabilities: bool = option(
        False,
        "also write probabilities, <output>/<video>/scores/<frame>.npz, of which "
        "scripts/merge_probabilities.py makes the mean of several runs",
    )

    # --- machine
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", "auto: float32, or with --amp the device's half precision"
    )
    amp: bool = option(False, "half precision: float16 on GPUs, bfloat16 on CPUs")
    exact: bool = option(
        False,
        "float32, convolutions summed as torch does: none of Winograd's on CPUs, no TF32 on GPUs",
    )
    encode_batch: int = option(
        0, "frames whose images are encoded at once, ahead of their turn; 0: as many as pay"
    )
    compile: CompileMode = option(
        "", "run the network through torch.compile in this mode; reduce-overhead has CUDA graphs"
    )
    benchmark: bool = option(False, "let cuDNN try its algorithms first, where all sizes are alike")

    @property
    def shorter_side(self) -> int | None:
        """Of the frames as they are read, at the largest of the scales; None: as they are."""
        return round(self.size * max(self.scales)) or None
