"""Reproducible weights and inputs, to compare outputs with those of the published code.

They follow the definition that was used for the published code: generators seeded by tensor names,
and formulas.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch

# NumPy's legacy generator is part of the definition; its sequence never changes.
_LegacyRandom = np.random.RandomState


def fill_weights(shapes: Mapping[str, list[int]], gain: float = 1.5) -> dict[str, torch.Tensor]:
    """Draw well-scaled weights from the tensor names and shapes of a published state_dict.

    Args:
        shapes: published tensor name -> shape.
        gain: variance of the weights times their fan-in (1.2 for IMSFR, 1.5 for the others).
    """
    return {name: _fill(name, shape, shapes, gain) for name, shape in shapes.items()}


def _fill(name: str, shape: list[int], names: Mapping[str, list[int]], gain: float) -> torch.Tensor:
    module, _, kind = name.rpartition(".")
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.long)
    if kind == "running_var":
        return 0.8 + 0.4 * torch.rand(shape, generator=generator)
    if kind == "running_mean":
        return 0.1 * torch.randn(shape, generator=generator)
    if kind == "weight" and f"{module}.running_var" in names:
        return 0.6 + 0.4 * torch.rand(shape, generator=generator)
    if name == "score.fc2.bias":  # keeps QDMN's quality above 0, where its last ReLU is linear
        return torch.full(shape, 0.7)
    if len(shape) == 1:
        return 0.05 * torch.randn(shape, generator=generator)
    variance = 0.15 if name.startswith("mem_compress") else gain
    return math.sqrt(variance / math.prod(shape[1:])) * torch.randn(shape, generator=generator)


def reference_clip(num_frames: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Draw a smooth moving texture in the range of normalised images: (T, 3, H, W) float32."""
    random = _LegacyRandom(seed)
    y, x = _unit_grid(height, width)
    frames = np.zeros((num_frames, 3, height, width))
    for channel in range(3):
        for _ in range(8):
            frequency_y, frequency_x = random.uniform(-14, 14, 2)
            phase, speed = random.uniform(0, 2 * np.pi), random.uniform(-0.3, 0.3)
            amplitude = random.uniform(0.2, 0.7)
            wave = 2 * np.pi * (frequency_y * y + frequency_x * x) / 4 + phase
            for t in range(num_frames):
                frames[t, channel] += amplitude * np.sin(wave + speed * t)
    return torch.from_numpy(frames.astype(np.float32))


def reference_masks(num_frames: int, num_objects: int, height: int, width: int) -> torch.Tensor:
    """Draw moving discs that do not overlap: (O, T, H, W) float32 in {0, 1}."""
    y, x = _unit_grid(height, width)
    masks = np.zeros((num_objects, num_frames, height, width), np.float32)
    for o in range(num_objects):
        for t in range(num_frames):
            centre_y = 0.3 + 0.4 * ((o * 0.37 + 0.02 * t) % 1)
            centre_x = (o + 0.5) / num_objects + 0.01 * t
            inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < (0.35 / num_objects) ** 2
            masks[o, t] = inside & ~masks[:o, t].any(0)
    return torch.from_numpy(masks)


def _unit_grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    return y, x
