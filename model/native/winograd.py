"""3x3 convolutions of stride 1 on CPUs, with a quarter of the multiplications: see winograd.cpp."""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F

from model.native import pointer


class _Convolution(ctypes.Structure):
    """The C++ struct of the same name."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "weight", "bias", "add", "y", "scratch")),
        *((name, ctypes.c_int64) for name in ("batch", "height", "width", "channels", "out")),
        *((name, ctypes.c_int64) for name in ("add_batch", "relu_before", "relu_after")),
        *((name, ctypes.c_int64) for name in ("is_half", "multiplies_half", "threads")),
    ]


class Winograd:
    """The compiled functions.

    Raises:
        ValueError: they do not compute what torch does.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions = library
        whole, address, call = ctypes.c_int64, ctypes.c_void_p, ctypes.POINTER(_Convolution)
        for name, result, arguments in (
            ("lanes", whole, []),
            ("has_half", whole, []),
            ("packed_size", whole, [whole, whole]),
            ("pack", None, [address, whole, whole, address, whole]),
            ("scratch", whole, [call]),
            ("run", None, [call]),
        ):
            function = getattr(self._functions, f"winograd_{name}")
            function.restype, function.argtypes = result, arguments
        self.lanes: int = self._functions.winograd_lanes()
        self._has_half = bool(self._functions.winograd_has_half())
        self._check()

    def suits(self, weight: torch.Tensor) -> bool:
        """Whether weights (out, in, 3, 3) have numbers of channels that this machine can take."""
        out, channels = weight.shape[:2]
        return out % self.lanes == 0 and channels % self.lanes == 0 and out >= 64 <= channels

    def pack(self, weight: torch.Tensor, precise: bool = False) -> torch.Tensor:
        """Weights (out, in, 3, 3), float32 or bfloat16 -> what `convolve` takes: four times as
        large.

        precise: bfloat16 is multiplied as float32. Otherwise the transformed input is rounded to
        bfloat16 too, where the machine multiplies it, and errors are about three times those of a
        direct convolution.
        """
        out, channels = weight.shape[:2]
        pairs = weight.dtype == torch.bfloat16 and self._has_half and not precise
        weight = weight.float().contiguous(memory_format=torch.contiguous_format)
        packed = torch.empty(self._functions.winograd_packed_size(out, channels))
        self._functions.winograd_pack(pointer(weight), out, channels, pointer(packed), pairs)
        return packed.bfloat16() if pairs else packed

    def convolve(
        self,
        x: torch.Tensor,
        packed: torch.Tensor,
        out_channels: int,
        bias: torch.Tensor | None = None,
        add: torch.Tensor | None = None,
        relu_before: bool = False,
        relu_after: bool = False,
    ) -> torch.Tensor:
        """[relu](conv([relu](x)) + bias + add), with padding 1.

        Args:
            x: (B, C, h, w), float32 or bfloat16.
            packed: from `pack`, of weights of x's type.
            bias: (out_channels,) float32.
            add: (B, out_channels, h, w), or (1, ...) for all of the batch; of x's type.

        Returns:
            (B, out_channels, h, w), channels-last, of x's type.
        """
        batch, channels, height, width = x.shape
        x = x.contiguous(memory_format=torch.channels_last)
        if add is not None:
            add = add.contiguous(memory_format=torch.channels_last)
        y = torch.empty(
            (batch, out_channels, height, width), dtype=x.dtype, memory_format=torch.channels_last
        )
        call = _Convolution(
            pointer(x), pointer(packed), pointer(bias), pointer(add), pointer(y), None,
            batch, height, width, channels, out_channels,
            1 if add is None else add.shape[0], relu_before, relu_after,
            x.dtype == torch.bfloat16, packed.dtype == torch.bfloat16, torch.get_num_threads(),
        )  # fmt: skip
        scratch = torch.empty(self._functions.winograd_scratch(ctypes.byref(call)))
        call.scratch = pointer(scratch)
        self._functions.winograd_run(ctypes.byref(call))
        return y

    def _check(self) -> None:
        generator = torch.Generator().manual_seed(0)
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 1e-1)):
            x, weight = (
                torch.randn(shape, generator=generator).to(dtype)
                for shape in ((1, 64, 5, 7), (80, 64, 3, 3))
            )
            with torch.no_grad():
                result = self.convolve(x, self.pack(weight / 24), 80).float()
                expected = F.conv2d(x.float(), weight.float() / 24, padding=1)
            if not torch.allclose(result, expected, atol=tolerance, rtol=tolerance):
                raise ValueError(f"convolutions are wrong by {(result - expected).abs().max():g}.")
