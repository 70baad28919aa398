"""The training engine: one update from a batch of clips."""

from __future__ import annotations

import inspect
import math
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

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
from util.ranks import Ranks, any_over_ranks, mean_over_ranks

Scalars = dict[str, torch.Tensor]


def share_of_update(settings: TrainSettings, num_processes: int) -> tuple[int, int]:
    """Clips that a process takes of every update, and in how many passes.

    Raises:
        ValueError: the clips do not divide evenly.
    """
    if not settings.global_batch:
        return settings.batch_size, 1
    share, rest = divmod(settings.global_batch, num_processes)
    if rest or not share:
        raise ValueError(
            f"--global_batch {settings.global_batch} cannot be dealt out evenly to {num_processes} "
            "processes: choose a multiple."
        )
    fewest = math.ceil(share / settings.batch_size)
    return share, next(passes for passes in range(fewest, share + 1) if share % passes == 0)


def _distribute(module: nn.Module, device: torch.device) -> DistributedDataParallel:
    """DDP; buffers (statistics that nothing changes) are exchanged at the start alone."""
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    # The newer name since torch 2.11 or so, where the older one warns.
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    ids = [device.index] if device.type == "cuda" else None
    options: dict[str, Any] = {"device_ids": ids, name: False}
    return DistributedDataParallel(module, **options)


class Trainer:
    """A network in training, with its optimiser, schedule and counters.

    Args:
        network: on any device; it is moved.
        settings: of the run.
        record: what made the run (util/provenance.py); saved with everything.
        dtype: of the forward pass; float32 turns mixed precision off.
    """

    def __init__(
        self,
        network: Network,
        settings: TrainSettings,
        record: dict[str, Any],
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
        row = METHODS[network.spec.method]
        unroll: nn.Module = row.unroll(self.network)
        if settings.compile:
            require_compiler()
            unroll.compile()
        self.unroll = unroll
        if ranks.world_size > 1:
            self.unroll = _distribute(unroll, device)
        members = {id(parameter) for parameter in backbone}
        others = [p for p in self.network.parameters() if id(p) not in members]
        groups: list[dict[str, Any]] = [{"params": others}]
        if settings.backbone_lr > 0:
            groups.append({"params": backbone, "lr": settings.lr * settings.backbone_lr})
        self.optimizer = torch.optim.Adam(
            groups,
            settings.lr,
            weight_decay=settings.weight_decay,
            fused=device.type in ("cpu", "cuda"),  # MPS has it only in later releases of torch
        )
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        # Only float16 gradients vanish without scaling.
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.loss = partial(row.loss, **{k: getattr(settings, k) for k in row.loss_settings})
        self.hard_examples = HardExampleSchedule(settings.start_warm, settings.end_warm)
        self.iteration = 0
        self.must_stop = False  # some process was asked to stop: all know it after the same update

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path(self.settings.save_dir) / self.settings.id

    def step(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        num_objects: torch.Tensor,
        first_masks: torch.Tensor | None = None,
        stop_asked: bool = False,
    ) -> tuple[Scalars, torch.Tensor]:
        """One update from this process's clips, in as many passes as the settings ask for.

        Args:
            images: (B, T, 3, H, W) uint8 RGB; labels: (B, T, H, W) uint8; num_objects: (B,).
            first_masks: (B, O, H, W) in {0, 1}, frame 0 as it is remembered; None: as labelled.
            stop_asked: this process was asked to stop; see `must_stop`.

        Returns:
            Scalars by name (this process's; still on the device), and the logits of the last pass,
            detached.

        Raises:
            FloatingPointError: the loss of some process is not finite; the weights are as before
                the step, and the batches of those processes are saved.
        """
        self.optimizer.zero_grad(set_to_none=True)
        sums: Scalars = {}
        if first_masks is None:
            first_masks = self._split(labels[:, 0])
        batch = (images, labels, num_objects, first_masks)
        parts = (torch.chunk(t, self.passes) for t in batch)
        for number, part in enumerate(zip(*parts, strict=True), 1):
            # Gradients are exchanged once, with the last pass.
            with self._no_exchange() if number < self.passes else nullcontext():
                scalars, logits = self._losses(*part)
                self.scaler.scale(scalars["total_loss"] / self.passes).backward()
            for name, value in scalars.items():
                sums[name] = sums.get(name, 0) + value.detach() / self.passes
        is_lost = not bool(torch.isfinite(sums["total_loss"]))
        any_lost, self.must_stop = any_over_ranks([is_lost, stop_asked], self.device)
        if any_lost:
            raise FloatingPointError(self._explain_loss(is_lost, sums, *batch))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.iteration += 1
        self.set_rates()
        return sums, logits.detach()

    def set_rates(self) -> None:
        """The learning rates of the next update: a function of the iteration alone."""
        num_steps = sum(step <= self.iteration for step in self.settings.steps)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.settings.gamma**num_steps

    @property
    def rate(self) -> float:
        """The learning rate of the next update."""
        return self.optimizer.param_groups[0]["lr"]

    def _split(self, labels: torch.Tensor) -> torch.Tensor:
        """Labels (B, H, W) -> masks (B, O, H, W), float32 in {0, 1}."""
        num_slots = 1 if self.network.spec.is_single_object else 2
        objects = torch.arange(1, num_slots + 1, device=labels.device)[None, :, None, None]
        return (labels[:, None] == objects).float()

    def _losses(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        num_objects: torch.Tensor,
        first_masks: torch.Tensor,
    ) -> tuple[Scalars, torch.Tensor]:
        """Forward pass and losses of some clips; arguments as in `step`."""
        images = images.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True).long()
        first_masks = first_masks.to(self.device, non_blocking=True).float()
        num_objects = num_objects.to(self.device)

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

    def _no_exchange(self) -> AbstractContextManager:
        if isinstance(self.unroll, DistributedDataParallel):
            return self.unroll.no_sync()
        return nullcontext()

    def _explain_loss(self, is_lost: bool, sums: Scalars, *batch: torch.Tensor) -> str:
        """Save the batch of a loss that is not finite, and say so."""
        if not is_lost:
            return f"The loss of another process is not finite at iteration {self.iteration}."
        path = self.folder / f"bad_batch_{self.iteration}_rank{self.ranks.rank}.pth"
        names = ("images", "labels", "num_objects", "first_masks")
        with atomic_path(path) as temporary:
            torch.save(
                {
                    **dict(zip(names, batch, strict=True)),
                    "scalars": {name: value.item() for name, value in sums.items()},
                    "weights": self.network.state_dict(),
                },
                temporary,
            )
        return (
            f"The loss is {sums['total_loss'].item()} at iteration {self.iteration}. The batch and "
            f"the weights that gave it are in {path}. Go on from the last checkpoint with "
            "--no_amp, or start anew with a lower --lr."
        )

    def average(self, scalars: Scalars) -> dict[str, float]:
        """Scalars averaged over the processes; all of them must call it."""
        values = mean_over_ranks(torch.stack([v.float() for v in scalars.values()]))
        return dict(zip(scalars, values.tolist(), strict=True))
