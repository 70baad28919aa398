"""A factory of sessions: one network with its device, precision and memory policy."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from inference_core import InferenceCore
from inference_core_yv import InferenceCoreYV
from inference_memory_bank import POLICIES, MemoryPolicy, SamCompression
from model.checkpoint import load_for_inference
from model.network import Network
from util.check_settings import check_predictor, check_types
from util.devices import pick_device, pick_dtype, tune
from util.files import sha256
from util.hyper_para import EvalSettings
from util.parse_settings import of_method, policy_settings
from util.plugins import load_plugin
from util.ranks import started_ranks

# Standard deviation of the Gaussian kernel in positions (Cheng et al., MiVOS, CVPR 2021; QDMN's
# --use_km).
KERNEL_SIGMA = 5.6

# Options of the eval scripts that select their input.
_INPUTS = {"davis_path", "yv_path", "data_path", "video", "mask", "direction", "split"}

# Limits of a batch of encoded images: larger ones are no faster, and a 4K image takes gigabytes.
_MAX_BATCH, _MAX_BATCH_PIXELS = 4, 4 * 480 * 864


class Predictor:
    """Makes a session for each video, all with one network and one memory policy.

    On a CPU, it makes the process keep freed memory for reuse (see `util.devices.tune`).

    Args:
        settings: options of an eval script. Options that are None take the method's published
            values, which `self.settings` then holds.
        session_type: InferenceCoreYV accepts masks on any frame, InferenceCore on one frame only.
        network: replaces the weights in `settings.model`.

    Raises:
        ValueError: the weights cannot be loaded, the device is not available, or options
            contradict each other.
    """

    def __init__(
        self,
        settings: EvalSettings,
        session_type: type[InferenceCore] = InferenceCoreYV,
        network: Network | None = None,
    ) -> None:
        check_predictor(settings)
        self.device = pick_device(settings.device, started_ranks().local_rank)
        dtype = pick_dtype(settings.precision, self.device, use_half=settings.amp)
        if settings.exact and dtype != torch.float32:
            raise ValueError(
                f"exact needs float32, but the precision is {dtype}: choose one of them."
            )
        tune(self.device, settings.exact, settings.benchmark)
        self.weights_sha256 = ""
        if network is None:
            network = load_for_inference(settings.model)
            self.weights_sha256 = sha256(Path(settings.model))
        self.settings = settings = of_method(settings, network.spec.method)
        self.network = network.for_inference(self.device, dtype, settings.exact, settings.compile)
        self.policy = make_policy(self.network, settings)
        self.session_type = session_type

    @classmethod
    def load(cls, model: str | Path, **options: Any) -> Predictor:
        """Load weights and make a predictor.

        Args:
            model: file of weights, our own or published.
            options: options of the eval scripts by name, such as size=480, amp=True or
                plugin=["my_method.py"]; not those of their input and output.

        Raises:
            ValueError: an option or its value is unknown, a plugin cannot be imported, or the
                constructor raises it.
        """
        known = {f.name for f in fields(EvalSettings) if f.metadata["group"] != "output"}
        unknown = sorted({*options} - (known - _INPUTS))
        if unknown:
            raise ValueError(
                f"A predictor has no option {', '.join(unknown)}: util/hyper_para.py lists its "
                "options, in the groups data, memory and machine."
            )
        settings = EvalSettings(model=str(model), **options)
        check_types(settings)
        for plugin in settings.plugin:
            load_plugin(plugin)
        return cls(settings)

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        """Normalise RGB for `InferenceCore.step`: (3, H, W) uint8 -> (3, H, W) float32."""
        return self.network.normalise(image)

    def encode_batch_size(self, num_pixels: int) -> int:
        """Return the number of images of `num_pixels` pixels that are fastest in one batch."""
        if self.settings.encode_batch:
            return self.settings.encode_batch
        if self.device.type == "cpu" and self.network.dtype == torch.float32:
            return 1  # one image keeps all cores busy
        return min(max(_MAX_BATCH_PIXELS // num_pixels, 1), _MAX_BATCH)

    def start(self, num_frames: int | None = None, num_objects: int | None = None) -> InferenceCore:
        """Start a session for one video.

        Args:
            num_frames: length of the video. If given, memory is allocated once.
            num_objects: number of objects in the whole video; see InferenceCoreYV.
        """
        sigma = KERNEL_SIGMA if self.settings.use_km else None
        top_k = self.settings.top or None
        if self.settings.dataset != "youtube":
            num_objects = None
        halves = bool(self.settings.mem_half)
        return self.session_type(
            self.network, self.policy, top_k, num_frames, sigma, num_objects, halves
        )


def make_policy(network: Network, settings: EvalSettings) -> MemoryPolicy:
    """Build the memory policy of settings that `of_method` completed.

    Raises:
        ValueError: the network lacks a part that the policy needs, or an option is out of range.
    """
    assert settings.memory is not None
    method, options = network.spec.method, policy_settings(settings)
    lacking, advice = "", ""
    if POLICIES[settings.memory].needs_quality and not network.predicts_quality:
        lacking, advice = "a quality head, as qdmn has", "choose another policy"
    if settings.memory == "sam":
        options["compressor"] = network.compressor
        is_learned = (settings.mode or SamCompression.mode).endswith("compress")
        if network.compressor is None and is_learned:
            lacking = "a compressor of memory frames, as rde has"
            advice = "use --mode stm, two-frames, gt or last, or choose another policy"
    if lacking:
        raise ValueError(
            f"--memory {settings.memory} needs {lacking}, but {method} has none: {advice}."
        )
    return POLICIES[settings.memory](**options)
