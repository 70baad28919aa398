"""The training engine: one update of the weights from a batch of clips."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from model.compiled import require_compiler
from model.losses import HardExampleSchedule, mean_iou
from model.methods import METHODS
from model.network import Network, to_channels_last
from util.devices import autocast
from util.files import atomic_path
from util.hyper_para import TrainSettings
from util.parse_settings import run_folder
from util.provenance import Record
from util.ranks import Ranks, any_over_ranks, mean_over_ranks

Scalars = dict[str, torch.Tensor]


class Batch(NamedTuple):
    """The clips of one update in one process."""

    images: torch.Tensor  # (B, T, 3, H, W) uint8 RGB
    labels: torch.Tensor  # (B, T, H, W) uint8: 0 background, o object o
    num_objects: torch.Tensor  # (B,)
    first_masks: torch.Tensor  # (B, O, H, W) in {0, 1}: masks of frame 0 for the memory


def share_of_update(settings: TrainSettings, num_processes: int) -> tuple[int, int]:
    """Return the number of clips of each process per update, and of passes to process them in.

    Raises:
        ValueError: --global_batch is not a multiple of the number of processes.
    """
    if not settings.global_batch:
        return settings.batch_size, 1
    share, rest = divmod(settings.global_batch, num_processes)
    if rest or not share:
        raise ValueError(
            f"--global_batch {settings.global_batch} cannot be divided by {num_processes} "
            f"processes: choose a multiple of {num_processes}."
        )
    fewest = math.ceil(share / settings.batch_size)
    return share, next(passes for passes in range(fewest, share + 1) if share % passes == 0)


def _distribute(module: nn.Module, device: torch.device) -> DistributedDataParallel:
    """Wrap a module in DDP. Buffers are constant, so only the start broadcasts them."""
    for parameter in module.parameters():
        if parameter.requires_grad and parameter.ndim > 2 and parameter[0, 0].numel() == 1:
            parameter.register_hook(partial(_with_strides, parameter.stride()))
    ids = [device.index] if device.type == "cuda" else None
    wrap: Callable[..., DistributedDataParallel] = DistributedDataParallel
    # Torch 2.11 or so renamed the parameter and warns about the former name.
    parameters = inspect.signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    return wrap(module, device_ids=ids, **{name: False})


def _with_strides(strides: tuple[int, ...], gradient: torch.Tensor) -> torch.Tensor:
    """Give the gradient of a 1x1 convolution the strides of its weights, which DDP expects.

    Strides of sides of 1 depend on the layout of the input, although the memory is the same.
    """
    return gradient.as_strided(gradient.shape, strides) if gradient.is_contiguous() else gradient


class Trainer:
    """A network with its optimiser, schedules and counters.

    Args:
        network: on any device; the trainer moves it.
        settings: options of the run.
        record: provenance of the run (util/provenance.py), saved with weights and checkpoints.
        device: device of the training.
        dtype: type of the forward pass; float32 disables mixed precision.
        ranks: this process among all processes of the run.

    Attributes:
        share: clips of this process per update; passes: number of passes to process them in.
        iteration: number of updates so far.
        must_stop: a process was requested to stop; all processes see it after the same update.
        has_bad_files: a process replaced samples in its last batch; the same in all processes.
    """

    def __init__(
        self,
        network: Network,
        settings: TrainSettings,
        record: Record,
        device: torch.device,
        dtype: torch.dtype,
        ranks: Ranks,
    ) -> None:
        self.settings, self.record, self.ranks = settings, record, ranks
        self.device, self.dtype = device, dtype
        self.share, self.passes = share_of_update(settings, ranks.world_size)
        self.network = to_channels_last(network.to(device)).train()
        backbone = [*self.network.key_encoder.backbone.parameters()]
        for parameter in backbone:
            parameter.requires_grad_(settings.backbone_lr > 0)
        for part in self.network.key_encoder.backbone.first_layers(settings.frozen_layers):
            part.requires_grad_(False)
        method = METHODS[network.spec.method]
        unroll: nn.Module = method.unroll(self.network)
        if settings.compile:
            require_compiler()
            unroll.compile()
        self.unroll = unroll
        if ranks.world_size > 1:
            self.unroll = _distribute(unroll, device)
        members = {id(parameter) for parameter in backbone}
        others = [p for p in self.network.parameters() if id(p) not in members]
        groups: list[dict[str, object]] = [{"params": others}]
        learning = [parameter for parameter in backbone if parameter.requires_grad]
        if learning:
            groups.append({"params": learning, "lr": settings.lr * settings.backbone_lr})
        self.optimizer = torch.optim.Adam(
            groups,
            settings.lr,
            weight_decay=settings.weight_decay,
            fused=device.type in ("cpu", "cuda"),  # only recent versions of torch have it on MPS
        )
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        # Only float16 gradients underflow without scaling.
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        loss_options = {name: getattr(settings, name) for name in method.loss_settings}
        self.loss = partial(method.loss, **loss_options)
        self.hard_examples = HardExampleSchedule(settings.start_warm, settings.end_warm)
        self.iteration = 0
        self.must_stop = self.has_bad_files = False

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return run_folder(self.settings)

    def step(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        num_objects: torch.Tensor,
        first_masks: torch.Tensor | None = None,
        stop_requested: bool = False,
        has_bad_files: bool = False,
    ) -> tuple[Scalars, torch.Tensor]:
        """Update the weights once with the clips of this process.

        Args:
            images: (B, T, 3, H, W) uint8 RGB.
            labels: (B, T, H, W) uint8.
            num_objects: (B,).
            first_masks: (B, O, H, W) in {0, 1}, masks of frame 0 for the memory; by default the
                labels.
            stop_requested: this process was requested to stop; see `must_stop`.
            has_bad_files: samples of the batch replace those of files that cannot be used.

        Returns:
            Scalars of this process by name, on its device; and the logits of the last pass,
            detached.

        Raises:
            FloatingPointError: the loss of a process is not finite. The weights are unchanged, and
                the process saves its batch.
        """
        self.optimizer.zero_grad(set_to_none=True)
        sums: Scalars = {}
        batch = [images, labels, num_objects] + ([] if first_masks is None else [first_masks])
        parts = (torch.chunk(t, self.passes) for t in batch)
        for number, part in enumerate(zip(*parts, strict=True), 1):
            # The last pass exchanges the gradients of all passes.
            with self._no_exchange() if number < self.passes else nullcontext():
                scalars, logits = self._losses(*part)
                self.scaler.scale(scalars["total_loss"] / self.passes).backward()
            for name, value in scalars.items():
                sums[name] = sums.get(name, 0) + value.detach() / self.passes
        is_bad = not bool(torch.isfinite(sums["total_loss"]))
        any_bad, self.must_stop, self.has_bad_files = any_over_ranks(
            [is_bad, stop_requested, has_bad_files], self.device
        )
        if any_bad:
            raise FloatingPointError(self._explain_loss(is_bad, sums, batch))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.iteration += 1
        self.set_rates()
        return sums, logits.detach()

    def set_rates(self) -> None:
        """Set the learning rates of the next update; they depend only on the iteration."""
        num_steps = sum(step <= self.iteration for step in self.settings.steps)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.settings.gamma**num_steps

    @property
    def rate(self) -> float:
        """Learning rate of the next update."""
        return self.optimizer.param_groups[0]["lr"]

    def _split(self, labels: torch.Tensor) -> torch.Tensor:
        """Split labels (B, H, W) into masks (B, O, H, W), float32 in {0, 1}."""
        max_objects = 1 if self.network.spec.is_single_object else 2
        objects = torch.arange(1, max_objects + 1, device=labels.device)[None, :, None, None]
        return (labels[:, None] == objects).float()

    def _losses(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        num_objects: torch.Tensor,
        first_masks: torch.Tensor | None = None,
    ) -> tuple[Scalars, torch.Tensor]:
        """Run the forward pass and the loss of one pass; arguments as in `step`."""
        images = images.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True).long()
        if first_masks is None:
            first_masks = self._split(labels[:, 0])
        first_masks = first_masks.to(self.device, non_blocking=True).float()
        num_objects = num_objects.to(self.device, non_blocking=True)

        with autocast(self.device, self.dtype):
            true_masks = None
            if self.settings.perturb_min is not None:
                true_masks = self._split(labels[:, 0])
            normalised = self.network.normalise(images)
            outputs = self.unroll(normalised, first_masks, num_objects, true_masks)
        share = self.hard_examples.share(self.iteration)
        scalars = self.loss(outputs, labels, num_objects, share)
        logits = outputs["logits"]
        scalars["iou"] = mean_iou(logits[:, -1].detach(), labels[:, -1], num_objects)
        return scalars, logits

    def _no_exchange(self) -> AbstractContextManager[None]:
        if isinstance(self.unroll, DistributedDataParallel):
            return self.unroll.no_sync()
        return nullcontext()

    def _explain_loss(self, is_bad: bool, scalars: Scalars, batch: Sequence[torch.Tensor]) -> str:
        """Save the batch of a loss that is not finite, and describe the failure."""
        if not is_bad:
            return f"The loss of another process is not finite at iteration {self.iteration}."
        images, labels, num_objects, *given = batch
        first_masks = given[0] if given else self._split(labels[:, 0])
        path = self.folder / f"bad_batch_{self.iteration}_rank{self.ranks.rank}.pth"
        with atomic_path(path) as temporary:
            torch.save(
                {
                    **Batch(images, labels, num_objects, first_masks)._asdict(),
                    "scalars": {name: value.item() for name, value in scalars.items()},
                    "weights": self.network.state_dict(),
                },
                temporary,
            )
        return (
            f"The loss is {scalars['total_loss'].item()} at iteration {self.iteration}. {path} "
            "holds the batch and the weights. Resume from the last checkpoint with --no_amp, or "
            "start again with a lower --lr."
        )

    def average(self, scalars: Scalars) -> dict[str, float]:
        """Average scalars over the processes; all of them must call it."""
        values = mean_over_ranks(torch.stack([v.float() for v in scalars.values()]))
        return dict(zip(scalars, values.tolist(), strict=True))
