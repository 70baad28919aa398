"""Twice the size, and a sum, in one pass on CPUs: see enlarge.cpp."""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F

from model.native import declare, pointer


class _Enlargement(ctypes.Structure):
    """The C++ struct of the same name."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "skip", "y")),
        *((name, ctypes.c_int64) for name in ("batch", "height", "width", "channels")),
        *((name, ctypes.c_int64) for name in ("skip_batch", "is_half", "threads")),
    ]


class Enlarger:
    """The compiled function.

    Raises:
        ValueError: it does not compute what torch does.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._run = library.enlarge_run
        declare(library, ("enlarge_run", None, [ctypes.POINTER(_Enlargement)]))
        x, skip = (
            torch.linspace(-1, 1, n, dtype=torch.float32, device="cpu").view(shape)
            for n, shape in ((384, (2, 64, 1, 3)), (768, (1, 64, 2, 6)))
        )
        expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False) + skip
        if not torch.allclose(self(x, skip), expected, atol=1e-5):
            raise ValueError("enlarged features are wrong.")

    def suits(self, x: torch.Tensor) -> bool:
        """Whether features (B, C, h, w) can be enlarged."""
        return (
            x.shape[1] % 16 == 0
            and x.dtype in (torch.float32, torch.bfloat16)
            and x.device.type == "cpu"
        )

    def __call__(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """x (B, C, h, w) at twice the size, bilinear, plus skip (B, C, 2h, 2w) or (1, ...).

        Both have x's type, and so has the result, which is channels-last.
        """
        batch, channels, height, width = x.shape
        shapes = [(n, channels, 2 * height, 2 * width) for n in (1, batch)]
        if tuple(skip.shape) not in shapes or skip.dtype != x.dtype or not self.suits(x):
            raise ValueError(f"{skip.shape} {skip.dtype} is no skip of {x.shape} {x.dtype}.")
        x = x.contiguous(memory_format=torch.channels_last)
        skip = skip.contiguous(memory_format=torch.channels_last)
        y = torch.empty(
            (batch, channels, 2 * height, 2 * width),
            dtype=x.dtype,
            device="cpu",
            memory_format=torch.channels_last,
        )
        call = _Enlargement(
            pointer(x), pointer(skip), pointer(y), batch, height, width, channels,
            len(skip), x.dtype == torch.bfloat16, torch.get_num_threads(),
        )  # fmt: skip
        self._run(ctypes.byref(call))
        return y
