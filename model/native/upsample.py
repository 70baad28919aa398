"""Upsampling by 2 and addition in one pass, on CPUs: see upsample.cpp."""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F

from model.native import declare, pointer


class _Upsampling(ctypes.Structure):
    """The C++ struct of the same name."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "skip", "y")),
        *((name, ctypes.c_int64) for name in ("batch", "height", "width", "channels")),
        *((name, ctypes.c_int64) for name in ("skip_batch", "is_half", "threads")),
    ]


class Upsampler:
    """The compiled function.

    Args:
        library: from `build`.

    Raises:
        ValueError: its result differs from torch's.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._run = library.upsample_run
        declare(library, ("upsample_run", None, [ctypes.POINTER(_Upsampling)]))
        x, skip = (
            torch.linspace(-1, 1, n, dtype=torch.float32, device="cpu").view(shape)
            for n, shape in ((384, (2, 64, 1, 3)), (768, (1, 64, 2, 6)))
        )
        expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False) + skip
        if not torch.allclose(self(x, skip), expected, atol=1e-5):
            raise ValueError("upsampled features differ from torch's.")

    def supports(self, x: torch.Tensor) -> bool:
        """Return True if channels, type and device of features (B, C, h, w) are supported."""
        return (
            x.shape[1] % 16 == 0
            and x.dtype in (torch.float32, torch.bfloat16)
            and x.device.type == "cpu"
        )

    def __call__(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Upsample x by 2, bilinear, and add skip features.

        Args:
            x: (B, C, h, w), float32 or bfloat16.
            skip: (B, C, 2h, 2w) or (1, C, 2h, 2w), in the type of x.

        Returns:
            (B, C, 2h, 2w), in the type of x, channels-last.

        Raises:
            ValueError: a shape or type is not supported.
        """
        batch, channels, height, width = x.shape
        shapes = [(n, channels, 2 * height, 2 * width) for n in (1, batch)]
        if tuple(skip.shape) not in shapes or skip.dtype != x.dtype or not self.supports(x):
            raise ValueError(
                f"Skip features {tuple(skip.shape)}, {skip.dtype} cannot be added to features "
                f"{tuple(x.shape)}, {x.dtype} upsampled by 2."
            )
        x = x.contiguous(memory_format=torch.channels_last)
        skip = skip.contiguous(memory_format=torch.channels_last)
        y = torch.empty(
            (batch, channels, 2 * height, 2 * width),
            dtype=x.dtype,
            device="cpu",
            memory_format=torch.channels_last,
        )
        call = _Upsampling(
            pointer(x), pointer(skip), pointer(y), batch, height, width, channels,
            len(skip), x.dtype == torch.bfloat16, torch.get_num_threads(),
        )  # fmt: skip
        self._run(ctypes.byref(call))
        return y
