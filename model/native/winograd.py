"""3x3 convolutions of stride 1 with a quarter of the multiplications, on CPUs: winograd.cpp."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
import torch.nn.functional as F

from model.native import declare, pointer


class _Convolution(ctypes.Structure):
    """The C++ struct of the same name."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "weight", "bias", "add", "y", "scratch")),
        *((name, ctypes.c_int64) for name in ("batch", "height", "width", "channels", "out")),
        *((name, ctypes.c_int64) for name in ("add_batch", "relu_before", "relu_after")),
        *((name, ctypes.c_int64) for name in ("is_half", "multiplies_half", "threads")),
    ]


class Weights(NamedTuple):
    """Packed weights, four times as large as the convolution's."""

    packed: torch.Tensor
    channels: int
    out: int
    dtype: torch.dtype  # type of input and output


class Winograd:
    """The compiled functions.

    Args:
        library: from `build`.

    Raises:
        ValueError: their results differ from torch's.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions = library
        whole, address, call = ctypes.c_int64, ctypes.c_void_p, ctypes.POINTER(_Convolution)
        declare(
            library,
            ("winograd_lanes", whole, []),
            ("winograd_has_half", whole, []),
            ("winograd_packed_size", whole, [whole, whole]),
            ("winograd_pack", None, [address, whole, whole, address, whole]),
            ("winograd_scratch", whole, [call]),
            ("winograd_run", None, [call]),
        )
        self.lanes: int = self._functions.winograd_lanes()
        self._has_half = bool(self._functions.winograd_has_half())
        self._check()

    def supports(self, weight: torch.Tensor) -> bool:
        """Return True if the numbers of channels of weights (out, in, 3, 3) are supported."""
        out, channels = weight.shape[:2]
        return out % self.lanes == 0 and channels % self.lanes == 0 and out >= 64 <= channels

    def pack(self, weight: torch.Tensor, precise: bool = False) -> Weights:
        """Pack weights for `convolve`.

        Args:
            weight: (out, in, 3, 3), float32 or bfloat16.
            precise: multiply bfloat16 as float32. Otherwise, if the CPU multiplies bfloat16, the
                transformed input is rounded to it, and errors are about three times those of a
                direct convolution.
        """
        assert self.supports(weight)
        dtype, (out, channels) = weight.dtype, weight.shape[:2]
        pairs = dtype == torch.bfloat16 and self._has_half and not precise
        weight = weight.float().contiguous(memory_format=torch.contiguous_format)
        size = self._functions.winograd_packed_size(out, channels)
        packed = torch.empty(size, dtype=torch.float32, device="cpu")
        self._functions.winograd_pack(pointer(weight), out, channels, pointer(packed), pairs)
        return Weights(packed.bfloat16() if pairs else packed, channels, out, dtype)

    def convolve(
        self,
        x: torch.Tensor,
        weights: Weights,
        bias: torch.Tensor | None = None,
        add: torch.Tensor | None = None,
        relu_before: bool = False,
        relu_after: bool = False,
    ) -> torch.Tensor:
        """Compute [relu](conv([relu](x)) + bias + add) with padding 1, without gradients.

        Args:
            x: (B, C, h, w) on the CPU, in the type of the packed weights.
            weights: from `pack`.
            bias: (out,).
            add: (B, out, h, w) or (1, out, h, w), in the type of x.
            relu_before: apply ReLU to x.
            relu_after: apply ReLU to the result.

        Returns:
            (B, out, h, w), in the type of x, channels-last.

        Raises:
            ValueError: a shape, type or device does not match.
        """
        batch, channels, height, width = x.shape
        out = weights.out
        if x.device.type != "cpu" or x.dtype != weights.dtype or channels != weights.channels:
            raise ValueError(
                f"Packed weights for {weights.channels} channels, {weights.dtype}, on the CPU do "
                f"not match an input of {channels} channels, {x.dtype}, on {x.device}."
            )
        if add is not None:
            shapes = [(n, out, height, width) for n in (1, batch)]
            if tuple(add.shape) not in shapes or add.dtype != x.dtype or add.device != x.device:
                raise ValueError(
                    f"{tuple(add.shape)}, {add.dtype} cannot be added to {shapes[1]}, {x.dtype}."
                )
            add = add.contiguous(memory_format=torch.channels_last)
        if bias is not None:
            assert len(bias) == out
            bias = bias.float().contiguous()
        x = x.contiguous(memory_format=torch.channels_last)
        y = torch.empty(
            (batch, out, height, width),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        if not y.numel():
            return y
        call = _Convolution(
            pointer(x), pointer(weights.packed), pointer(bias), pointer(add), pointer(y), None,
            batch, height, width, channels, out,
            1 if add is None else add.shape[0], relu_before, relu_after, x.dtype == torch.bfloat16,
            weights.packed.dtype == torch.bfloat16, torch.get_num_threads(),
        )  # fmt: skip
        size = self._functions.winograd_scratch(ctypes.byref(call))
        scratch = torch.empty(size, dtype=torch.float32, device=x.device)
        call.scratch = pointer(scratch)
        self._functions.winograd_run(ctypes.byref(call))
        return y

    def _check(self) -> None:
        generator = torch.Generator().manual_seed(0)
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 1e-1)):
            x, weight = (
                torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu").to(dtype)
                for shape in ((1, 64, 5, 7), (80, 64, 3, 3))
            )
            with torch.no_grad():
                result = self.convolve(x, self.pack(weight / 24)).float()
                expected = F.conv2d(x.float(), weight.float() / 24, padding=1)
            if not torch.allclose(result, expected, atol=tolerance, rtol=tolerance):
                error = (result - expected).abs().max()
                raise ValueError(f"convolutions differ from torch's by {error:g}.")
