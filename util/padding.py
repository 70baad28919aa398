"""Padding of images to a multiple of the network's stride."""

from __future__ import annotations

import torch
import torch.nn.functional as F

STRIDE = 16


def padding_of(height: int, width: int, stride: int = STRIDE) -> tuple[int, int, int, int]:
    """Padding (left, right, top, bottom) of a size to a multiple of `stride`.

    Both sides get the same padding; an odd pixel goes to the right and to the bottom, as published.
    """
    extra_height, extra_width = -height % stride, -width % stride
    left, top = extra_width // 2, extra_height // 2
    return left, extra_width - left, top, extra_height - top


def pad(tensor: torch.Tensor, padding: tuple[int, int, int, int]) -> torch.Tensor:
    """Pad with zeros: (..., H, W) -> (..., top + H + bottom, left + W + right)."""
    return F.pad(tensor, padding) if any(padding) else tensor


def unpad(tensor: torch.Tensor, padding: tuple[int, int, int, int]) -> torch.Tensor:
    """Undo `pad`; returns a view of the tensor."""
    left, right, top, bottom = padding
    height, width = tensor.shape[-2:]
    return tensor[..., top : height - bottom, left : width - right]
