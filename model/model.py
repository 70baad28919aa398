"""The training engine: unroll, step, log, save, resume."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from model.checkpoint import FORMAT, read_file, save_network, write_file
from model.losses import HardExampleSchedule, hard_example_cross_entropy, mean_iou
from model.network import Network
from model.unroll import ClipUnroll
from util.devices import Ranks, autocast, mean_over_ranks
from util.hyper_para import TrainSettings

# What may differ between a run and its continuation; all else must be as it was.
_MAY_CHANGE = {
    "load_network", "load_model", "save_dir", "static_root", "device", "num_workers", "benchmark",
    "report_interval", "image_interval", "save_interval", "debug", "iterations", "id",
    "trunk_weights",
}  # fmt: skip


class Model:
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
        self.network = network.to(device).to(memory_format=torch.channels_last).train()
        trunk = [*self.network.key_encoder.trunk.parameters()]
        for parameter in trunk:
            parameter.requires_grad_(settings.trunk_lr > 0)
        self.unroll: nn.Module = ClipUnroll(self.network)
        if ranks.world_size > 1:
            ids = [device.index] if device.type == "cuda" else None
            self.unroll = DistributedDataParallel(
                self.unroll, device_ids=ids, broadcast_buffers=False
            )
        members = {id(parameter) for parameter in trunk}
        others = [p for p in self.network.parameters() if id(p) not in members]
        groups: list[dict[str, Any]] = [{"params": others}]
        if settings.trunk_lr > 0:
            groups.append({"params": trunk, "lr": settings.lr * settings.trunk_lr})
        self.optimizer = torch.optim.Adam(groups, settings.lr, weight_decay=settings.weight_decay)
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(
            self.optimizer, settings.steps, settings.gamma
        )
        # Only float16 gradients vanish without scaling.
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.hard_examples = HardExampleSchedule(settings.start_warm, settings.end_warm)
        self.iteration = 0

    def step(
        self, images: torch.Tensor, labels: torch.Tensor, num_objects: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """One update from a batch of clips.

        Args:
            images: (B, T, 3, H, W) uint8 RGB; labels: (B, T, H, W) uint8; num_objects: (B,).

        Returns:
            Scalars by name (this process's; still on the device), and the logits, detached.

        Raises:
            FloatingPointError: the loss is not finite; the weights are as before the step.
        """
        images = images.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True).long()
        num_objects = num_objects.to(self.device)
        num_slots = 1 if self.network.spec.is_single_object else 2
        objects = torch.arange(1, num_slots + 1, device=self.device)[None, :, None, None]
        first_masks = (labels[:, 0, None] == objects).float()  # (B, O, H, W)

        with autocast(self.device, self.dtype):
            logits = self.unroll(self.network.normalise(images), first_masks, num_objects)
        share = self.hard_examples.share(self.iteration)
        scalars: dict[str, torch.Tensor] = {}
        total = torch.zeros((), device=self.device)
        for t in range(1, images.shape[1]):
            loss = hard_example_cross_entropy(logits[:, t - 1], labels[:, t], num_objects, share)
            scalars[f"loss_{t}"] = loss.detach()
            total = total + loss
        last = images.shape[1] - 1
        scalars["iou"] = mean_iou(logits[:, -1].detach(), labels[:, last], num_objects)
        scalars["total_loss"] = total.detach()
        if not torch.isfinite(total):
            raise FloatingPointError(
                f"The loss is {total.item()} at iteration {self.iteration}: lower --lr, or train "
                "with --no_amp."
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.iteration += 1
        return scalars, logits.detach()

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path(self.settings.save_dir) / self.settings.id

    @property
    def checkpoint_path(self) -> Path:
        """What --load_model takes."""
        return self.folder / f"{self.settings.id}_checkpoint.pth"

    def save(self) -> None:
        """Write the weights alone, and the checkpoint to resume from. One process calls it."""
        name = f"{self.settings.id}_{self.iteration}.pth"
        record = {**self.record, "iteration": self.iteration}
        save_network(self.folder / name, self.network, record)
        write_file(
            self.checkpoint_path,
            {
                "format": f"{FORMAT}-training",
                "spec": asdict(self.network.spec),
                "record": record,
                "iteration": self.iteration,
                "weights": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "scaler": self.scaler.state_dict(),
            },
        )

    def resume(self, path: Path | str) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: it is no checkpoint of a run, or of one with other settings.
        """
        content = read_file(path)
        if content.get("format") != f"{FORMAT}-training":
            raise ValueError(
                f"{path} is no checkpoint to resume from: give the file that ends in "
                "_checkpoint.pth, or start a new run from these weights with --load_network."
            )
        if content["spec"] != asdict(self.network.spec):
            raise ValueError(
                f"{path} holds another network ({content['spec']}) than the one asked for "
                f"({asdict(self.network.spec)}): give the same --method, --size and --stage."
            )
        then, now = content["record"]["settings"], asdict(self.settings)
        changed = [
            f"{name} was {content['record'].get(name)} and is {self.record[name]}"
            for name in ("num_processes", "num_samples")
            if content["record"].get(name) != self.record.get(name)
        ]
        differing = changed + [
            f"--{name} was {then.get(name)!r} and is {now[name]!r}"
            for name in now
            if name not in _MAY_CHANGE and then.get(name) != now[name]
        ]
        if differing:
            raise ValueError(
                f"{path} belongs to a run with other settings: {'; '.join(differing)}. Resume with "
                "the same, or start a new run from its weights with --load_network."
            )
        self.network.load_state_dict(content["weights"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scheduler.load_state_dict(content["scheduler"])
        if content["scaler"]:  # empty where the run did not scale, on a CPU
            self.scaler.load_state_dict(content["scaler"])
        self.iteration = content["iteration"]

    def average(self, scalars: dict[str, torch.Tensor]) -> dict[str, float]:
        """Scalars averaged over the processes; all of them must call it."""
        values = mean_over_ranks(torch.stack([v.float() for v in scalars.values()]))
        return dict(zip(scalars, values.tolist(), strict=True))
