"""Training losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class HardExampleSchedule:
    """The share of pixels that count: all before `start_warm`, `top_p` from `end_warm` on.

    In between it falls linearly from 1 (Cheng et al., STCN, section 3.4).
    """

    start_warm: int
    end_warm: int
    top_p: float = 0.15

    def share(self, iteration: int) -> float:
        """The share in (0, 1] at an iteration."""
        if iteration < self.start_warm:
            return 1.0
        if iteration > self.end_warm:
            return self.top_p
        remaining = (self.end_warm - iteration) / max(self.end_warm - self.start_warm, 1)
        return self.top_p + (1 - self.top_p) * remaining


def hard_example_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, num_objects: torch.Tensor, share: float
) -> torch.Tensor:
    """Cross entropy over the hardest pixels of each sample, averaged over the batch.

    Args:
        logits: (B, O+1, H, W), aggregated, background first.
        labels: (B, H, W), long: 0 for background, o for object o.
        num_objects: (B,): objects that a sample has; logits of those beyond do not take part.
        share: share of a sample's pixels, the hardest first.

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
    """Mean IoU of the objects that exist, for logging; arguments as above; union 0 counts as 1."""
    best = logits.argmax(1)
    objects = torch.arange(1, logits.shape[1], device=logits.device)[None, :, None, None]
    predicted, true = best[:, None] == objects, labels[:, None] == objects  # (B, O, H, W)
    union = (predicted | true).sum((2, 3))
    iou = torch.where(union > 0, (predicted & true).sum((2, 3)) / union.clamp(min=1), 1.0)
    exists = objects[:, :, 0, 0] <= num_objects[:, None]
    return iou[exists].mean()
