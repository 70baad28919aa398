"""Training losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

# Outputs of ClipUnroll by name.
Outputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class HardExampleSchedule:
    """Share of the hardest pixels in the loss: 1 up to `start_warm`, `top_p` from `end_warm`.

    In between it decreases linearly (Cheng et al., STCN, section 3.4).
    """

    start_warm: int
    end_warm: int
    top_p: float = 0.15

    def share(self, iteration: int) -> float:
        """Return the share, in (0, 1], at an iteration."""
        if iteration < self.start_warm:
            return 1.0
        if iteration > self.end_warm:
            return self.top_p
        remaining = (self.end_warm - iteration) / max(self.end_warm - self.start_warm, 1)
        return self.top_p + (1 - self.top_p) * remaining


def hard_example_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, num_objects: torch.Tensor, share: float
) -> torch.Tensor:
    """Compute the cross entropy of the hardest pixels of each sample, averaged over the batch.

    Args:
        logits: (B, O+1, H, W), aggregated, background first.
        labels: (B, H, W), long: 0 background, o object o.
        num_objects: (B,), number of objects of each sample; logits of absent objects are ignored.
        share: share of the pixels of a sample, in (0, 1].

    Returns:
        A scalar.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)
    absent = classes[None] > num_objects[:, None]  # (B, O+1)
    logits = logits.masked_fill(absent[:, :, None, None], float("-inf"))
    loss = F.cross_entropy(logits, labels, reduction="none").flatten(1)  # (B, H*W)
    if share < 1:
        loss = loss.topk(max(int(loss.shape[1] * share), 1), dim=1, sorted=False).values
    return loss.mean()


def mean_iou(logits: torch.Tensor, labels: torch.Tensor, num_objects: torch.Tensor) -> torch.Tensor:
    """Compute the mean IoU of the present objects, for the log; an empty union counts as 1.

    Args: see `hard_example_cross_entropy`.
    """
    best = logits.argmax(1)  # (B, H, W)
    objects = torch.arange(1, logits.shape[1], device=logits.device)[None, :, None, None]
    predicted, true = best[:, None] == objects, labels[:, None] == objects  # (B, O, H, W)
    union = (predicted | true).sum((2, 3))
    iou = torch.where(union > 0, (predicted & true).sum((2, 3)) / union.clamp(min=1), 1.0)
    exists = objects[:, :, 0, 0] <= num_objects[:, None]
    return torch.where(exists, iou, 0).sum() / exists.sum()  # selecting them waits for a GPU


def segmentation_loss(
    outputs: Outputs, labels: torch.Tensor, num_objects: torch.Tensor, share: float
) -> dict[str, torch.Tensor]:
    """Compute STCN's loss: hard-example cross entropy, summed over the frames after the first.

    Args:
        outputs: of ClipUnroll.
        labels: (B, T, H, W), long.
        num_objects, share: see `hard_example_cross_entropy`.

    Returns:
        "loss_1", "loss_2", ... of frames 1 to T-1, and "total_loss".
    """
    logits = outputs["logits"]
    losses = {
        f"loss_{t + 1}": hard_example_cross_entropy(
            logits[:, t], labels[:, t + 1], num_objects, share
        )
        for t in range(logits.shape[1])
    }
    return {**losses, "total_loss": torch.stack([*losses.values()]).sum()}


# Weight of GSFM's boundary loss relative to the cross entropy.
_BOUNDARY_WEIGHT = 0.05


def segmentation_and_boundary_loss(
    outputs: Outputs, labels: torch.Tensor, num_objects: torch.Tensor, share: float
) -> dict[str, torch.Tensor]:
    """Compute GSFM's loss: `segmentation_loss`, plus 0.05 times `boundary_loss` in each frame.

    Args: see `segmentation_loss`; `outputs` has "boundary", (B, T-1, O, H, W) logits.
    """
    losses = segmentation_loss(outputs, labels, num_objects, share)
    boundary = outputs["boundary"]
    objects = torch.arange(1, boundary.shape[2] + 1, device=labels.device)[None, :]
    exists = (objects <= num_objects[:, None]).float()  # (B, O)
    total = losses.pop("total_loss")
    for t in range(boundary.shape[1]):
        masks = (labels[:, t + 1, None] == objects[:, :, None, None]).float()  # (B, O, H, W)
        each = boundary_loss(boundary[:, t], masks)  # (B, O)
        loss = _BOUNDARY_WEIGHT * ((each * exists).sum(1) / exists.sum(1)).mean()
        losses[f"loss_{t + 1}"] = losses[f"loss_{t + 1}"] + loss
        total = total + loss
    return {**losses, "total_loss": total}


def boundary_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Compute binary cross entropy plus Dice loss (smoothed by 1) on the boundaries of masks.

    The boundary of an object consists of the pixels where the 3x3 Laplacian of its mask exceeds
    0.1, all of which lie inside the mask.

    Args:
        logits: (B, O, H, W), of the boundaries.
        masks: (B, O, H, W) in {0, 1}.

    Returns:
        (B, O).
    """
    kernel = masks.new_full((1, 1, 3, 3), -1.0)
    kernel[..., 1, 1] = 8
    ground_truth = (F.conv2d(masks.flatten(0, 1)[:, None], kernel, padding=1)[:, 0] > 0.1).float()
    logits, ground_truth = (
        logits.float().flatten(2),
        ground_truth.unflatten(0, masks.shape[:2]).flatten(2),
    )
    entropy = F.binary_cross_entropy_with_logits(logits, ground_truth, reduction="none").mean(2)
    prob = torch.sigmoid(logits)
    intersection = 2 * (prob * ground_truth).sum(2) + 1
    return entropy + 1 - intersection / (prob.sum(2) + ground_truth.sum(2) + 1)


def segmentation_and_quality_loss(
    outputs: Outputs, labels: torch.Tensor, num_objects: torch.Tensor, share: float
) -> dict[str, torch.Tensor]:
    """Compute QDMN's loss: `segmentation_loss`, plus the squared error of the quality head.

    The target of the quality is the IoU of (probability > 0.5) with the ground truth. Quality and
    IoU of a frame are averaged over all object indices; an absent object has IoU 0, as published.
    The quality of perturbed first masks is compared object by object.

    Args: see `segmentation_loss`; `outputs` is that of QualityUnroll.

    Returns:
        As `segmentation_loss`, and the errors "quality_1", ... and "quality_perturbed".
    """
    losses = segmentation_loss(outputs, labels, num_objects, share)
    logits, quality = outputs["logits"], outputs["quality"].float()  # (B, T-1, O)
    objects = torch.arange(1, quality.shape[2] + 1, device=labels.device)[None, :, None, None]
    total = losses.pop("total_loss")
    for t in range(quality.shape[1]):
        predicted = torch.softmax(logits[:, t].detach(), 1)[:, 1:] > 0.5  # (B, O, H, W)
        true = labels[:, t + 1, None] == objects
        iou = (predicted & true).sum((2, 3)) / (predicted | true).sum((2, 3)).clamp(min=1)
        error = (quality[:, t].mean(1) - iou.mean(1)).square().mean()
        losses[f"loss_{t + 1}"] = losses[f"loss_{t + 1}"] + error
        losses[f"quality_{t + 1}"] = error
        total = total + error
    if "perturbed_quality" in outputs:
        errors = (outputs["perturbed_quality"] - outputs["perturbed_iou"])[:, 0].float().square()
        exists = objects[0, :, 0, 0] <= num_objects[:, None]  # (B, O)
        losses["quality_perturbed"] = (errors * exists).sum() / exists.sum()
        total = total + losses["quality_perturbed"]
    return {**losses, "total_loss": total}


def recurrent_loss(
    outputs: Outputs,
    labels: torch.Tensor,
    num_objects: torch.Tensor,
    share: float,
    klloss_weight: float = 10.0,
    decoder_f2_weight: float = 10.0,
    decoder_f4_weight: float = 10.0,
) -> dict[str, torch.Tensor]:
    """Compute RDE's loss: cross entropies, whose running total is halved after each frame, plus
    the divergences.

    Args:
        outputs: of RecurrentUnroll.
        labels, num_objects, share: see `segmentation_loss`.
        klloss_weight: weight of the divergence between the values of the perturbed and the true
            first mask.
        decoder_f2_weight: weight of the divergence between the readouts of the embedding and of
            all frames, in frame 2.
        decoder_f4_weight: the same in frame 4 and later frames.
    """
    losses = segmentation_loss(outputs, labels, num_objects, share)
    del losses["total_loss"]
    total = torch.zeros((), device=labels.device)
    for loss in losses.values():
        total = (total + loss) / 2
    losses["klloss_loss"] = klloss_weight * outputs["mask_divergence"]
    for number, value in enumerate(outputs.get("readout_divergence", ())):
        weight = decoder_f2_weight if number == 0 else decoder_f4_weight
        losses[f"df{2 * number + 2}_distillation"] = weight * value
    for name, loss in losses.items():
        if not name.startswith("loss_"):
            total = total + loss
    return {**losses, "total_loss": total}
