"""Every option once: typed fields with a comment each. The command lines are generated from them.

The order of precedence is: default < preset of the method < preset of the stage < command line. To
change a default for good, edit it here; the presets are in util/presets.py. For an option of the
memory, None stands for the value that was published for the method and the benchmark.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import Literal

from util.command_line import PLUGIN_HELP, option

NetworkSize = Literal["base", "small", "tiny"]
CompileMode = Literal["", "default", "reduce-overhead", "max-autotune"]  # of torch.compile
LEFT_OUT = "none"  # value of --davis_root and --yv_root: train without this data set
Precision = Literal["auto", "float32", "bfloat16", "float16"]

# The groups of --help.
_run = partial(option, "run")
_data = partial(option, "data")
_method = partial(option, "method")
_optimisation = partial(option, "optimisation")
_memory = partial(option, "memory")
_output = partial(option, "output")
_machine = partial(option, "machine")


@dataclass
class TrainSettings:
    """Options of train.py."""

    id: str = _run("", "name of the run; results are written to <save_dir>/<id>")
    method: str = _run("stcn", "method to train: stcn, gsfm, qdmn, rde, imsfr or a plugin's")
    size: NetworkSize = _run(
        "base", "widths of the network: base as published, small for laptops, tiny for tests"
    )
    stage: str = _run(
        "0",
        "stage of the curriculum: 0 static images, 1 BL30K, 2 DAVIS and YouTube-VOS after stage 1, "
        "3 DAVIS and YouTube-VOS after stage 0. Several digits, such as 03, train several stages, "
        "as the runs <id>_s0 and <id>_s03; each starts from the weights of the stage before",
    )
    load_network: str = _run("", "file of weights to start from, at iteration 0")
    load_model: str = _run(
        "",
        "resume from this <id>_checkpoint.pth; auto takes the newest undamaged checkpoint of <id>, "
        "or starts a new run if there is none",
    )
    backbone_weights: str = _run(
        "imagenet",
        "initial weights of the backbones without --load_network: imagenet (downloaded by "
        "torchvision), none, or a .pth file of a ResNet for the key encoder, which "
        "replaces that of --load_network",
    )
    save_dir: str = _run("saves", "folder of all runs")
    plugin: list[str] = _run([], PLUGIN_HELP)

    static_root: str = _data(
        "data/static",
        "folder of the static image data sets, for stage 0 and for --static_share",
        only=("0", "2", "3"),
    )
    static_objects: int = _data(
        1,
        "largest number of objects of a static clip, 1 or 2: the second is another object of the "
        "image, or an object that is pasted in front of the first",
        only=("0",),
    )
    static_share: float = _data(
        0.0,
        "share of static clips, with up to two objects, among the clips of an epoch, from 0 to "
        "below 1",
        only=("2", "3"),
    )
    paste_share: float = _data(
        0.0,
        "share of the clips of videos with one object that get a second object, pasted in front "
        "of the first, from 0 to 1",
        only=("1", "2", "3"),
    )
    bl_root: str = _data("data/BL30K", "folder of BL30K", only=("1",))
    davis_root: str = _data(
        "data/DAVIS",
        "folder of DAVIS, which contains 2017/trainval; the value none excludes DAVIS",
        only=("2", "3"),
    )
    yv_root: str = _data(
        "data/YouTube",
        "folder of YouTube-VOS, which contains train_480p; the value none excludes YouTube-VOS",
        only=("2", "3"),
    )
    davis_subset: str = _data(
        "",
        "text file with the names of the DAVIS videos to train on; by default DAVIS' own "
        "ImageSets/2017/train.txt",
        only=("2", "3"),
    )
    yv_subset: str = _data(
        "",
        "text file with the names of the YouTube-VOS videos to train on; by default all",
        only=("2", "3"),
    )
    num_frames: int = _data(3, "frames of a training clip, at least 3")
    crop_size: int = _data(384, "side of the training clips in pixels, a multiple of 16")
    jumps: list[int] = _data(
        [5, 10, 15, 20, 25, 5],
        "largest distance between neighbouring frames of a clip, one value after the other "
        "(YouTube-VOS: a fifth of it, since every fifth frame is annotated)",
        only=("1", "2", "3"),
    )
    davis_jumps: list[int] = _data([], "--jumps of DAVIS, if they differ", only=("2", "3"))
    jump_fractions: list[float] = _data(
        [0.1, 0.2, 0.3, 0.4, 0.9],
        "shares of the epochs after which the next value of --jumps applies",
        only=("1", "2", "3"),
    )

    max_bad_share: float = _data(
        0.01,
        "end the run if more files cannot be used for training than this share of an epoch's "
        "samples, or 5 if that is more; until then, other samples replace theirs; 0: end at the "
        "first one",
    )

    perturb_min: float | None = _method(
        None,
        "perturb the first mask to an IoU with the true mask drawn from [perturb_min, "
        "perturb_max]: rde remembers the perturbed mask, qdmn's quality head also learns from it "
        "(not published)",
        methods=("rde", "qdmn"),
    )
    perturb_max: float | None = _method(
        None, "upper end of the range of --perturb_min", methods=("rde", "qdmn")
    )
    klloss_weight: float = _method(
        10.0,
        "weight of the KL divergence between memory values of the perturbed and the true first "
        "mask",
        methods=("rde",),
    )
    decoder_f2_weight: float = _method(
        10.0,
        "weight of the KL divergence between readouts of the embedding and of all frames, frame 2",
        methods=("rde",),
    )
    decoder_f4_weight: float = _method(
        10.0,
        "weight of the same divergence in frame 4",
        methods=("rde",),
    )
    repeat: int = _method(
        0, "squeeze-and-excitation blocks in the compressor of memory frames", methods=("rde",)
    )

    batch_size: int = _optimisation(8, "clips per process and pass", "-b")
    global_batch: int = _optimisation(
        0,
        "clips per update over all processes: each takes its share, in passes of at most "
        "--batch_size whose gradients are summed; 0: one pass of --batch_size per process",
    )
    iterations: int = _optimisation(300_000, "updates of the run", "-i")
    lr: float = _optimisation(1e-5, "learning rate of Adam")
    backbone_lr: float = _optimisation(
        1.0,
        "learning rate of the key encoder's backbone as a multiple of --lr; 0 freezes the "
        "backbone, which is faster",
    )
    frozen_layers: int = _optimisation(
        0,
        "number of residual layers of the key encoder's backbone to freeze, from the first, 0 to "
        "3, which is faster; 1 also freezes the first convolution",
    )
    steps: list[int] = _optimisation(
        [150_000], "iterations at which the learning rate is multiplied by --gamma"
    )
    gamma: float = _optimisation(0.1, "factor of the learning rate at each of --steps")
    weight_decay: float = _optimisation(1e-7, "L2 penalty of Adam")
    start_warm: int = _optimisation(20_000, "iteration up to which the loss includes every pixel")
    end_warm: int = _optimisation(
        70_000, "iteration from which the loss includes only the hardest 15 % of the pixels"
    )
    seed: int = _optimisation(
        14159265, "seed of all random draws (sums on GPUs may still differ in rounding)"
    )

    device: str = _machine("auto", "auto, cpu, cuda, cuda:1 or mps")
    precision: Precision = _machine(
        "auto", "auto is mixed precision, with float16 on GPUs and bfloat16 on CPUs"
    )
    no_amp: bool = _machine(False, "train in float32, the same as --precision float32")
    compile: bool = _machine(
        False, "compile the network with torch.compile; the first iterations take minutes"
    )
    num_workers: int = _machine(
        min(8, os.cpu_count() or 1), "data loading processes of each training process"
    )
    benchmark: bool = _machine(
        False, "let cuDNN benchmark its algorithms first: faster, less reproducible"
    )

    report_interval: int = _output(100, "iterations between lines of the log")
    image_interval: int = _output(500, "iterations between sample images")
    save_interval: int = _output(
        10_000, "iterations between saves of the weights and of a checkpoint to resume from"
    )
    keep_last: int = _output(3, "number of checkpoints to keep; weights are never deleted")
    milestones: list[int] = _output(
        [], "iterations at which to save a checkpoint that is never deleted"
    )
    debug: bool = _output(False, "report, draw and save every few iterations, for a quick check")


@dataclass
class EvalSettings:
    """Options of the eval_*.py scripts; each script has those that apply to it."""

    model: str = _data("saves/stcn.pth", "file of weights: our own or published")
    davis_path: str = _data(
        "data/DAVIS/2017",
        "folder that contains trainval/ and test-dev/; for DAVIS 2016, 2016/ and 2017/",
        only=("davis", "davis_2016"),
    )
    yv_path: str = _data(
        "data/YouTube", "folder that contains valid/ and all_frames/", only=("youtube",)
    )
    data_path: str = _data(
        "data/generic",
        "folder that contains JPEGImages/<video>/ and Annotations/<video>/",
        only=("generic",),
    )
    video: str = _data(
        "", "one video instead of --data_path: a file or a folder of frames", only=("generic",)
    )
    mask: str = _data(
        "",
        "mask of the first frame of --video, or a folder of masks named like their frames (for a "
        "file: by frame number, as 00040.png); later masks correct objects",
        only=("generic",),
    )
    direction: Literal["forwards", "backwards", "both"] = _data(
        "forwards",
        "propagate forwards from each mask, backwards from each mask, or both ways with a weighted "
        "mean between two masks; backwards and both use every mask, as --video does",
        only=("generic",),
    )
    split: str = _data(
        "val",
        "part of the data set: val, train or test-dev of DAVIS (2016 has no test-dev), valid or "
        "test of YouTube-VOS",
        only=("davis", "davis_2016", "youtube"),
    )
    size: int = _data(
        0,
        "resize frames to this shorter side in pixels, and masks back to the native size; 0 keeps "
        "the native size",
    )
    scales: list[float] = _data(
        [1.0],
        "test-time augmentation: segment at these multiples of the size and average the "
        "probabilities; with --size, frames are first resized to the largest",
    )
    flip: bool = _data(False, "test-time augmentation: also segment mirrored frames")
    plugin: list[str] = _data([], PLUGIN_HELP)

    # Options that are None take the published value of the method.
    dataset: Literal["davis", "davis_2016", "youtube"] = _memory(
        "davis", "benchmark whose published options apply", only=("generic",)
    )
    memory: str | None = _memory(
        None,
        "memory policy: every_n (every n-th frame), quality (frames of good quality, qdmn), sam "
        "(one embedding, rde), isogenous (a random sample of every n-th frame) or a plugin's; "
        "docs/memories.md",
    )
    top: int | None = _memory(None, "number of memory rows that a position reads; 0 reads all")
    no_top: bool = _memory(False, "read all memory rows, the same as --top 0")
    use_km: bool | None = _memory(
        None, "weight each memory row by a Gaussian around its best-matching position"
    )
    mem_every: int | None = _memory(None, "store every n-th frame")
    mem_capacity: int | None = _memory(
        None, "largest number of frames in memory, the first one included; 0: unlimited"
    )
    mem_half: bool | None = _memory(
        None, "store values in float16 under a float32 network: 0.5 to 0.75 of the memory"
    )
    include_last: bool | None = _memory(
        None, "(every_n, isogenous) also read the latest frame, stored for one step"
    )
    mode: str | None = _memory(
        None,
        "(sam) memory that each read uses, such as stm, gt or compress; docs/memories.md lists all",
    )
    quality_threshold: float | None = _memory(
        None, "(quality) store a frame if its quality exceeds this share of the reference, 0 to 1"
    )
    quality_reference: Literal["annotation", "prediction"] | None = _memory(
        None,
        "(quality) the reference: quality of the annotated frame, or of the first predicted one",
    )
    sample_from: int | None = _memory(
        None, "(isogenous) read all frames until more than this number are stored"
    )
    sample_share: float | None = _memory(
        None, "(isogenous) share of the stored frames that each read samples, in (0, 1]"
    )
    sample_keep: str | None = _memory(
        None,
        "(isogenous) stored frames that are always read, as Python indices and slices: 1,-5: is "
        "the second and the last five (write --sample_keep=-5: if it starts with a minus)",
    )
    sample_seed: int | None = _memory(None, "(isogenous) seed of the samples")

    output: str = _output("", "folder of the masks, <output>/<video>/<frame>.png")
    output_all: bool = _output(
        False, "write every frame instead of the scored ones", only=("youtube",)
    )
    overlay: bool = _output(False, "also write <output>/<video>.mp4 with the masks drawn in")
    save_probabilities: bool = _output(
        False,
        "also write probabilities, <output>/<video>/probabilities/<frame>.npz, which "
        "scripts/merge_probabilities.py averages over runs",
    )

    device: str = _machine("auto", "auto, cpu, cuda, cuda:1 or mps")
    precision: Precision = _machine(
        "auto", "auto is float32, or with --amp the half precision of the device"
    )
    amp: bool = _machine(False, "half precision: float16 on GPUs, bfloat16 on CPUs")
    exact: bool = _machine(
        False,
        "float32 with torch's own convolutions: no Winograd convolutions on CPUs, no TF32 on GPUs",
    )
    encode_batch: int = _machine(
        0, "images to encode in one batch, ahead of their turn; 0 chooses automatically"
    )
    compile: CompileMode = _machine(
        "", "compile the network with this mode of torch.compile; reduce-overhead uses CUDA graphs"
    )
    benchmark: bool = _machine(
        False, "let cuDNN benchmark its algorithms first; for videos of one size"
    )

    @property
    def shorter_side(self) -> int | None:
        """Shorter side that frames are resized to, the largest of the scales; None: native."""
        return round(self.size * max(self.scales)) or None
