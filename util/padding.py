"""Padding to the network's stride, and back."""

from __future__ import annotations

import torch
import torch.nn.functional as F

STRIDE = 16


def padding_of(height: int, width: int, stride: int = STRIDE) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) that bring a size to a multiple of `stride`.

    Split evenly, the odd pixel at the end, as published.
    """
    extra_height, extra_width = -height % stride, -width % stride
    left, top = extra_width // 2, extra_height // 2
    return left, extra_width - left, top, extra_height - top


def pad(tensor: torch.Tensor, padding: tuple[int, int, int, int]) -> torch.Tensor:
    """(..., H, W) -> (..., top + H + bottom, left + W + right), with zeros."""
    return F.pad(tensor, padding) if any(padding) else tensor


def unpad(tensor: torch.Tensor, padding: tuple[int, int, int, int]) -> torch.Tensor:
    """Undo `pad`; a view."""
    left, right, top, bottom = padding
    height, width = tensor.shape[-2:]
    return tensor[..., top : height - bottom, left : width - right]
