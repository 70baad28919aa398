"""Convolutions fused with addition and ReLU, whose weights are packed once.

Shapes: see the legend in network.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from model.native.library import Library, load_library
from model.native.winograd import Weights


def per_object(shared: torch.Tensor, num_objects: int) -> torch.Tensor:
    """Repeat image features for each object of a sample: (B, ...) -> (B*O, ...)."""
    if shared.shape[0] == 1:
        return shared.expand(num_objects, *shared.shape[1:])  # a view, without a copy
    return shared.repeat_interleave(num_objects, 0) if num_objects > 1 else shared


def accumulate(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return x + other; if autograd is off, overwrite x."""
    return x + other if torch.is_grad_enabled() else x.add_(other)


def upsample_and_add(x: torch.Tensor, skip: torch.Tensor, packing: Packing | None) -> torch.Tensor:
    """Upsample x by 2, bilinear, and add skip features.

    Args:
        x: (B*O, C, h, w).
        skip: (B, C, 2h, 2w).
        packing: packing of the network's convolutions.

    Returns:
        (B*O, C, 2h, 2w).
    """
    native = packing and packing.native
    if native is not None and len(skip) in (1, len(x)) and native.upsample.supports(x):
        return native.upsample(x, skip)
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)  # (B*O, C, 2h, 2w)
    return accumulate(x, per_object(skip, len(x) // len(skip)))


class Packing(NamedTuple):
    """How packed convolutions run."""

    native: Library | None  # the C++ functions; None to run all convolutions in oneDNN
    precise: bool = False  # multiply bfloat16 as float32 in Winograd convolutions
    is_cudnn: bool = False  # run on a GPU, in cuDNN's fused convolutions

    def __reduce__(self) -> tuple[Any, ...]:
        """Support copy and pickle: each process loads its own C++ library."""
        return _restore, (self.native is not None, self.precise, self.is_cudnn)


def _restore(is_native: bool, precise: bool, is_cudnn: bool) -> Packing:
    return Packing(load_library() if is_native else None, precise, is_cudnn)


class _Packed(NamedTuple):
    """Packed weights for one part of a convolution's input: for Winograd, oneDNN or cuDNN."""

    winograd: Weights | None = None
    onednn: torch.Tensor | None = None
    cudnn: torch.Tensor | None = None
    fuses: bool = False  # cuDNN can fuse the convolution with ReLU


class Conv2d(nn.Conv2d):
    """torch's Conv2d, with optional ReLU before, and addition and ReLU after the convolution.

    `pack` prepares it for inference. On a CPU, 3x3 convolutions of stride 1 use Winograd's
    algorithm (native/winograd.py) if the machine supports it. All others use oneDNN, with weights
    in its blocked layout, which torch would otherwise compute in every call. The addition takes no
    extra pass over the result. On a GPU, cuDNN fuses addition and ReLU with the convolution, if its
    results are those of torch (see `_fuses`).
    """

    packing: Packing | None = None

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Conv2d:
        """Return a convolution that shares the parameters of `conv`."""
        has_bias = conv.bias is not None
        copied = cls(
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
        copied.weight, copied.bias = conv.weight, conv.bias
        return copied

    def pack(self, packing: Packing | None) -> None:
        """Prepare for inference; None restores torch's convolution.

        After a change of the weights, call it again.
        """
        self.packing = packing
        self._packed: dict[str, _Packed] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Support copy and pickle: packed weights cannot be copied, so the copy packs again."""
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
        overwrite_add: bool = False,
    ) -> torch.Tensor:
        """Compute [relu](conv([relu](x)) [+ add]).

        Args:
            x: (B, in_channels, h, w).
            add: (B, out_channels, h', w'), of the output's shape, or (1, ...).
            relu: apply ReLU to the output.
            relu_first: apply ReLU to x.
            overwrite_add: allow the result to overwrite `add`.

        Returns:
            (B, out_channels, h', w').
        """
        return self._run("whole", x, self.bias, add, relu, relu_first, overwrite_add)

    def _run(
        self,
        part: str,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        add: torch.Tensor | None = None,
        relu: bool = False,
        relu_first: bool = False,
        overwrite_add: bool = False,
    ) -> torch.Tensor:
        """Convolve with the part of the weight that applies to x."""
        if self.packing is None or (torch.is_grad_enabled() and x.requires_grad):
            x = F.relu(x) if relu_first else x
            result = self._conv_forward(x, self._weight_of(part, x), bias)
            result = result if add is None else accumulate(result, add)
            return F.relu_(result) if relu else result
        packed = self._packed.get(part)
        if packed is None:
            packed = self._packed[part] = self._pack(part, x)
        if packed.winograd is not None:
            assert self.packing.native is not None
            convolve = self.packing.native.winograd.convolve
            return convolve(x, packed.winograd, bias, add, relu_first, relu)
        x = F.relu(x) if relu_first else x
        if packed.cudnn is not None:
            return self._run_cudnn(packed.cudnn, x, bias, add, relu, packed.fuses)
        place = ([*self.padding], [*self.stride], [*self.dilation], self.groups)
        ops = torch.ops.mkldnn
        if add is None:
            result = ops._convolution_pointwise(x, packed.onednn, bias, *place, "none", [], "")
        else:  # oneDNN adds in place; its variant for a separate addend is several times slower
            add = add.expand(x.shape[0], *add.shape[1:])
            into = torch.Tensor.contiguous if overwrite_add else torch.Tensor.clone
            result = ops._convolution_pointwise_.binary(
                into(add, memory_format=torch.channels_last), x, packed.onednn, bias, *place,
                "add", 1.0, None, [], "",
            )  # fmt: skip
        # oneDNN's ReLU turns NaN into 0, which would hide broken weights and overflows.
        return F.relu_(result) if relu else result

    def _run_cudnn(
        self,
        weight: torch.Tensor,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        add: torch.Tensor | None,
        relu: bool,
        fuses: bool,
    ) -> torch.Tensor:
        """Convolve on a GPU, in one kernel if it fuses the ReLU."""
        place = (self.stride, self.padding, self.dilation, self.groups)
        if not (relu and fuses):
            result = F.conv2d(x, weight, bias, *place)  # type: ignore[arg-type]
            result = result if add is None else accumulate(result, add)
            return F.relu_(result) if relu else result
        if add is None:
            return torch.ops.aten.cudnn_convolution_relu(x, weight, bias, *place)
        add = add.expand(x.shape[0], *add.shape[1:])
        add = add.contiguous(memory_format=torch.channels_last)
        return torch.ops.aten.cudnn_convolution_add_relu(x, weight, add, 1.0, bias, *place)

    def _fuses(self, weight: torch.Tensor, x: torch.Tensor) -> bool:
        """Compare cuDNN's fused convolution with torch's on a part of x.

        cuDNN has no such kernel for some shapes and types. A ReLU that turns NaN into 0 would hide
        broken weights and overflows.
        """
        x = x[:1, :, :32, :32].contiguous(memory_format=torch.channels_last)
        broken = x.clone()
        broken[..., 0, 0] = float("nan")
        place = (self.stride, self.padding, self.dilation, self.groups)
        expected = F.relu(F.conv2d(x, weight, None, *place))  # type: ignore[arg-type]
        zero = torch.zeros_like(expected)
        run = torch.ops.aten.cudnn_convolution_add_relu
        try:
            error = (run(x, weight, zero, 1.0, None, *place) - expected).abs().amax()
            keeps_nan = run(broken, weight, zero, 1.0, None, *place).isnan().any()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return False
        return bool((error <= 0.02 * expected.amax()) & keeps_nan)

    def _weight_of(self, part: str, x: torch.Tensor) -> torch.Tensor:
        """Return the part of the weight that applies to x."""
        return self.weight

    def _pack(self, part: str, x: torch.Tensor) -> _Packed:
        assert self.packing is not None
        weight = self._weight_of(part, x).detach()
        if self.packing.is_cudnn:
            return _Packed(cudnn=weight, fuses=self._fuses(weight, x))
        native = self.packing.native
        if native is not None and self._is_plain() and native.winograd.supports(weight):
            return _Packed(winograd=native.winograd.pack(weight, self.packing.precise))
        place = ([*self.padding], [*self.stride], [*self.dilation], self.groups)
        run = torch.ops.mkldnn._reorder_convolution_weight
        return _Packed(onednn=run(weight, *place, [*x.shape]))

    def _is_plain(self) -> bool:
        """Return True for a 3x3 convolution of stride 1 with padding 1."""
        place = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups)
        return place == ((3, 3), (1, 1), (1, 1), (1, 1), 1)


class JointConv2d(Conv2d):
    """A convolution of [features of each object, image features that all objects share].

    Convolution is linear, so at inference the shared part is computed once for all objects.
    """

    def forward(  # type: ignore[override]
        self,
        own: torch.Tensor,
        shared: torch.Tensor | None = None,
        add: torch.Tensor | None = None,
        relu: bool = False,
        relu_first: bool = False,
    ) -> torch.Tensor:
        """Convolve the concatenation of `own` and `shared`; without `shared`, `own` alone.

        Args:
            own: (B*O, C1, h, w).
            shared: (B, C2, h, w); C1 + C2 is in_channels.
            add: (B*O, out_channels, h, w).
            relu: apply ReLU to the output.
            relu_first: apply ReLU to the inputs.

        Returns:
            (B*O, out_channels, h, w).
        """
        if shared is None:
            return self._run("whole", own, self.bias, add, relu, relu_first)
        num_objects = own.shape[0] // shared.shape[0]
        if num_objects == 1 or shared.shape[0] > 1 or torch.is_grad_enabled():
            both = torch.cat([own, per_object(shared, num_objects)], 1)  # (B*O, C1 + C2, h, w)
            return self._run("whole", both, self.bias, add, relu, relu_first)
        rest = self._run("shared", shared, self.bias, relu_first=relu_first)  # (1, out, h, w)
        if add is None:
            return self._run("own", own, None, rest, relu, relu_first)
        result = accumulate(self._run("own", own, None, add, relu_first=relu_first), rest)
        return F.relu_(result) if relu else result

    def _weight_of(self, part: str, x: torch.Tensor) -> torch.Tensor:
        if part == "whole":
            return self.weight
        channels = x.shape[1]
        weight = self.weight[:, :channels] if part == "own" else self.weight[:, -channels:]
        return weight.contiguous(memory_format=torch.channels_last)


def bias_of(conv: nn.Conv2d) -> torch.Tensor:
    """Return the bias of a convolution that has one."""
    assert conv.bias is not None
    return conv.bias


def find_packing(device: torch.device, dtype: torch.dtype, exact: bool = False) -> Packing | None:
    """Choose the packing of convolutions; None for torch's own convolutions.

    Args:
        device: device of the network.
        dtype: type of the weights.
        exact: disable Winograd's algorithm and cuDNN's fused convolutions, whose rounding differs
            from torch's.
    """
    if device.type == "cuda":
        return None if exact else Packing(None, is_cudnn=True)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise_"):
        return None
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    if dtype not in (torch.float32, torch.bfloat16):
        return None
    return Packing(None if exact else load_library())
