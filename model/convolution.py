"""Convolutions that take along what follows them, and lay their weights out once for CPUs.

Shapes: see the legend in network.py.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def per_object(shared: torch.Tensor, num_objects: int) -> torch.Tensor:
    """(B, ...) -> (B*O, ...): what the image gives, the same for every object of a sample."""
    if shared.shape[0] == 1:
        return shared.expand(num_objects, *shared.shape[1:])  # a view: inference copies nothing
    return shared.repeat_interleave(num_objects, 0) if num_objects > 1 else shared


def plus(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """x + other; over x, where no gradient is wanted."""
    return x + other if torch.is_grad_enabled() else x.add_(other)


class Conv2d(nn.Conv2d):
    """torch's, with an addend and a relu behind it.

    After `pack` it runs oneDNN's convolution, which torch.compile takes too: weights stay in the
    blocked layout that torch otherwise makes of them in every call, and the addend costs no pass of
    its own over the result.
    """

    _packs = False

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

    def pack(self, packs: bool = True) -> None:
        """Prepare for inference on a CPU, with these weights; or go back to torch's convolution."""
        self._packs = packs
        self._packed: dict[str, torch.Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For copies, which pack for themselves: packed weights cannot be copied."""
        state = self.__dict__.copy()
        if self._packs:
            state["_packed"] = {}
        return state

    def forward(
        self, x: torch.Tensor, add: torch.Tensor | None = None, relu: bool = False
    ) -> torch.Tensor:
        """x (B, in_channels, h, w), add (B, out_channels, h', w') -> that shape.

        add: added to the convolution, before the relu.
        """
        return self._run("whole", x, self.bias, add, relu)

    def _run(
        self,
        part: str,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        add: torch.Tensor | None = None,
        relu: bool = False,
    ) -> torch.Tensor:
        """Convolve with the part of the weight that sees x."""
        if not self._packs:
            result = self._conv_forward(x, self._weight_of(part, x), bias)
            result = result if add is None else plus(result, add)
            return F.relu_(result) if relu else result
        weight = self._packed.get(part)
        if weight is None:
            weight = self._pack(part, x)
        place = ([*self.padding], [*self.stride], [*self.dilation], self.groups)
        run = torch.ops.mkldnn._convolution_pointwise
        if add is None:
            result = run(x, weight, bias, *place, "none", [], "")
        else:
            layout = torch.channels_last
            add = add.expand(x.shape[0], *add.shape[1:]).contiguous(memory_format=layout)
            result = run.binary(x, add, weight, bias, *place, "add", 1.0, None, [], "")
        # oneDNN's own relu makes 0 of a NaN, which would hide broken weights and overflows.
        return F.relu_(result) if relu else result

    def _weight_of(self, part: str, x: torch.Tensor) -> torch.Tensor:
        return self.weight

    def _pack(self, part: str, x: torch.Tensor) -> torch.Tensor:
        weight = self._weight_of(part, x).detach()
        self._packed[part] = torch.ops.mkldnn._reorder_convolution_weight(
            weight, [*self.padding], [*self.stride], [*self.dilation], self.groups, [*x.shape]
        )
        return self._packed[part]


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
    ) -> torch.Tensor:
        """own (B*O, C1, h, w), shared (B, C2, h, w) -> (B*O, out_channels, h, w)."""
        if shared is None:
            return self._run("whole", own, self.bias, add, relu)
        num_objects = own.shape[0] // shared.shape[0]
        if num_objects == 1 or shared.shape[0] > 1 or torch.is_grad_enabled():
            both = torch.cat([own, per_object(shared, num_objects)], 1)
            return self._run("whole", both, self.bias, add, relu)
        rest = self._run("shared", shared, self.bias)
        if add is None:
            return self._run("own", own, None, rest, relu)
        result = plus(self._run("own", own, None, add), rest)
        return F.relu_(result) if relu else result

    def _weight_of(self, part: str, x: torch.Tensor) -> torch.Tensor:
        if part == "whole":
            return self.weight
        channels = x.shape[1]
        some = self.weight[:, :channels] if part == "own" else self.weight[:, -channels:]
        return some.contiguous(memory_format=torch.channels_last)


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN's convolutions are there for a device and type."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32
