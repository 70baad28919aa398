"""Published settings of each method, stage, benchmark and script, as changes to the defaults."""

from __future__ import annotations

from typing import Any

# method -> changes to the defaults of TrainSettings.
METHOD_PRESETS: dict[str, dict[str, Any]] = {
    "stcn": {},
    "gsfm": {},
    "qdmn": {},
    "rde": {"lr": 2e-5, "num_frames": 5, "perturb_min": 0.85, "perturb_max": 1.0},
    "imsfr": {},
}

# --jump_fractions of stage 1 (BL30K).
_BL30K_FRACTIONS = [0.1, 0.2, 0.3, 0.4, 0.8]
_QDMN_VIDEOS: dict[str, Any] = {
    "iterations": 150_000,
    "steps": [70_000],
    "jumps": [5, 10, 15, 20, 25, 10, 5],
    "davis_jumps": [5, 10, 15, 25, 10, 5, 1],
    "jump_fractions": [0.1, 0.2, 0.3, 0.4, 0.7, 0.9],
}

# (method, stage) -> changes to the preset of the method.
STAGE_PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("stcn", "0"): {},  # the defaults
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

# Values that --debug sets, unless the command line does.
DEBUG_PRESET: dict[str, Any] = {"report_interval": 5, "image_interval": 5, "save_interval": 50}

# --memory -> its options.
POLICY_OPTIONS: dict[str, tuple[str, ...]] = {
    "every_n": ("mem_every", "mem_capacity", "include_last"),
    "quality": ("mem_every", "mem_capacity", "quality_threshold", "quality_reference"),
    "sam": ("mem_every", "mem_capacity", "mode"),
    "isogenous": (
        "mem_every", "mem_capacity", "include_last", "sample_from", "sample_share", "sample_keep",
        "sample_seed",
    ),
}  # fmt: skip

# method, or (method, --dataset) -> published values of the options that are None. The checkpoint
# determines the method.
EVAL_METHOD_PRESETS: dict[str | tuple[str, str], dict[str, Any]] = {
    "stcn": {"memory": "every_n", "top": 20, "mem_every": 5},
    "gsfm": {"memory": "every_n", "top": 50, "mem_every": 3},
    # 20 frames, the annotated frame and the previous frame.
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

# eval script -> changes to the defaults of EvalSettings.
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
