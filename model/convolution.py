"""Convolutions that take along what follows them, and lay their weights out once for CPUs.

Shapes: see the legend in network.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from model.native.library import Library, library
from model.native.winograd import Weights


def per_object(shared: torch.Tensor, num_objects: int) -> torch.Tensor:
    """(B, ...) -> (B*O, ...): what the image gives, the same for every object of a sample."""
    if shared.shape[0] == 1:
        return shared.expand(num_objects, *shared.shape[1:])  # a view: inference copies nothing
    return shared.repeat_interleave(num_objects, 0) if num_objects > 1 else shared


def plus(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """x + other; over x, where no gradient is wanted."""
    return x + other if torch.is_grad_enabled() else x.add_(other)


def add_enlarged(x: torch.Tensor, skip: torch.Tensor, packing: Packing | None) -> torch.Tensor:
    """x (B*O, C, h, w) at twice the size, bilinear, plus skip (B, C, 2h, 2w) of each sample.

    packing: of the convolutions around.
    """
    native = packing and packing.native
    if native is not None and len(skip) in (1, len(x)) and native.enlarge.suits(x):
        return native.enlarge(x, skip)
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    return plus(x, per_object(skip, len(x) // len(skip)))


class Packing(NamedTuple):
    """How convolutions run once they are packed."""

    native: Library | None  # what is compiled, where the machine has it and it is wanted
    precise: bool = False  # Winograd's products are float32, even of bfloat16

    def __reduce__(self) -> tuple[Any, ...]:
        """For copies and pickles of networks: what is compiled is each process's own."""
        return _restore, (self.native is not None, self.precise)


def _restore(is_native: bool, precise: bool) -> Packing:
    return Packing(library() if is_native else None, precise)


class _Packed(NamedTuple):
    """Weights laid out for one part of a convolution's input, one way or the other."""

    winograd: Weights | None = None
    onednn: torch.Tensor | None = None


class Conv2d(nn.Conv2d):
    """torch's, with relus, and an addend, before and behind it.

    After `pack` it is for inference on a CPU: 3x3 convolutions of stride 1 run by Winograd's
    algorithm (native/winograd.py), where the machine can, and all others as oneDNN's with weights
    that stay in the blocked layout that torch otherwise makes of them in every call. Addends cost
    no pass of their own over the result.
    """

    packing: Packing | None = None

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Conv2d:
        """The same convolution, with the same parameters."""
        has_bias = conv.bias is not None
        made = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            bias=has_bias,
            device="meta",
        )
        made.weight, made.bias = conv.weight, conv.bias
        return made

    def pack(self, packing: Packing | None) -> None:
        """Prepare for inference on a CPU, with these weights; or go back to torch's convolution.

        Weights that change later are not seen: pack again.
        """
        self.packing = packing
        self._packed: dict[str, _Packed] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For copies, which pack for themselves: packed weights cannot be copied."""
        state = self.__dict__.copy()
        if self.packing is not None:
            state["_packed"] = {}
        return state

    def forward(
        self,
        x: torch.Tensor,
        add: torch.Tensor | None = None,
        relu: bool = False,
        relu_first: bool = False,
        spends_add: bool = False,
    ) -> torch.Tensor:
        """x (B, in_channels, h, w), add (B, out_channels, h', w') -> that shape.

        add: added to the convolution, before the relu.
        relu_first: of x.
        spends_add: nobody needs the addend any more: the result may take its place.
        """
        return self._run("whole", x, self.bias, add, relu, relu_first, spends_add)

    def _run(
        self,
        part: str,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        add: torch.Tensor | None = None,
        relu: bool = False,
        relu_first: bool = False,
        spends_add: bool = False,
    ) -> torch.Tensor:
        """Convolve with the part of the weight that sees x."""
        if self.packing is None or (torch.is_grad_enabled() and x.requires_grad):
            x = F.relu(x) if relu_first else x
            result = self._conv_forward(x, self._weight_of(part, x), bias)
            result = result if add is None else plus(result, add)
            return F.relu_(result) if relu else result
        packed = self._packed.get(part)
        if packed is None:
            packed = self._packed[part] = self._pack(part, x)
        if packed.winograd is not None:
            assert self.packing.native is not None
            convolve = self.packing.native.winograd.convolve
            return convolve(x, packed.winograd, bias, add, relu_first, relu)
        x = F.relu(x) if relu_first else x
        place = ([*self.padding], [*self.stride], [*self.dilation], self.groups)
        ops = torch.ops.mkldnn
        if add is None:
            result = ops._convolution_pointwise(x, packed.onednn, bias, *place, "none", [], "")
        else:  # oneDNN adds to what is there; its sum of three takes several times as long
            add = add.expand(x.shape[0], *add.shape[1:])
            into = torch.Tensor.contiguous if spends_add else torch.Tensor.clone
            result = ops._convolution_pointwise_.binary(
                into(add, memory_format=torch.channels_last), x, packed.onednn, bias, *place,
                "add", 1.0, None, [], "",
            )  # fmt: skip
        # oneDNN's own relu makes 0 of a NaN, which would hide broken weights and overflows.
        return F.relu_(result) if relu else result

    def _weight_of(self, part: str, x: torch.Tensor) -> torch.Tensor:
        return self.weight

    def _pack(self, part: str, x: torch.Tensor) -> _Packed:
        assert self.packing is not None
        weight = self._weight_of(part, x).detach()
        native = self.packing.native
        if native is not None and self._is_plain() and native.winograd.suits(weight):
            return _Packed(winograd=native.winograd.pack(weight, self.packing.precise))
        place = ([*self.padding], [*self.stride], [*self.dilation], self.groups)
        run = torch.ops.mkldnn._reorder_convolution_weight
        return _Packed(onednn=run(weight, *place, [*x.shape]))

    def _is_plain(self) -> bool:
        """Whether this is a 3x3 convolution that keeps the size, without further ado."""
        place = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups)
        return place == ((3, 3), (1, 1), (1, 1), (1, 1), 1)


class JointConv2d(Conv2d):
    """A convolution of [what each object has, what the image gives all of them], side by side.

    Convolutions are linear, so that at inference the image's part is computed once for all objects.
    """

    def forward(  # type: ignore[override]
        self,
        own: torch.Tensor,
        shared: torch.Tensor | None = None,
        add: torch.Tensor | None = None,
        relu: bool = False,
        relu_first: bool = False,
    ) -> torch.Tensor:
        """own (B*O, C1, h, w), shared (B, C2, h, w) -> (B*O, out_channels, h, w)."""
        if shared is None:
            return self._run("whole", own, self.bias, add, relu, relu_first)
        num_objects = own.shape[0] // shared.shape[0]
        if num_objects == 1 or shared.shape[0] > 1 or torch.is_grad_enabled():
            both = torch.cat([own, per_object(shared, num_objects)], 1)
            return self._run("whole", both, self.bias, add, relu, relu_first)
        rest = self._run("shared", shared, self.bias, relu_first=relu_first)
        if add is None:
            return self._run("own", own, None, rest, relu, relu_first)
        result = plus(self._run("own", own, None, add, relu_first=relu_first), rest)
        return F.relu_(result) if relu else result

    def _weight_of(self, part: str, x: torch.Tensor) -> torch.Tensor:
        if part == "whole":
            return self.weight
        channels = x.shape[1]
        some = self.weight[:, :channels] if part == "own" else self.weight[:, -channels:]
        return some.contiguous(memory_format=torch.channels_last)


def find_packing(device: torch.device, dtype: torch.dtype, exact: bool = False) -> Packing | None:
    """How convolutions of a type are packed for a device; None for torch's own convolutions.

    exact: sums as torch computes them, so without Winograd's algorithm.
    """
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise_"):
        return None
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    if dtype not in (torch.float32, torch.bfloat16):
        return None
    return Packing(None if exact else library())
