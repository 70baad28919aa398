"""A pretended GPU: runs the code for CUDA without one, and counts what a GPU would do.

Tensors on it are torch's fake tensors: they have shapes, types and a device, but no values. Tensors
on the CPU are real. An operation with tensors on both devices fails, as it does on a GPU.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock
from weakref import finalize

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.spectral import _make_basis
from util.devices import total_memory

GPU = torch.device("cuda", 0)
_TOTAL_BYTES = 16 * 2**30  # memory of the pretended GPU

_ATEN = torch.ops.aten
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
_COPIES = {_ATEN._to_copy.default, _ATEN.copy_.default}
_WITHOUT_KERNEL = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view",
    "set_", "resize_",
}  # fmt: skip


class _Event:
    """A CUDA event, which waits if the process has not waited since it was recorded."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self._recorded = 0

    def record(self, stream: None) -> None:
        self._recorded = self._gpu.num_syncs

    def query(self) -> bool:
        return self._gpu.num_syncs > self._recorded

    def synchronize(self) -> None:
        if not self.query():
            self._gpu.wait("event")


@dataclass
class Work:
    """Work of the pretended GPU during `FakeGpu.measure`.

    Attributes:
        waits: how often the process waited for the GPU: values that it read, blocking copies, and
            results whose shape depends on values.
        copies: copies between CPU and GPU.
        kernels: operations that start a kernel on the GPU; views and allocations start none.
        peak_bytes: largest size of all tensors on the GPU, weights included, without the scratch
            memory of operations.
        operations: name -> number of kernels; waits and copies by their cause.
    """

    waits: int = 0
    copies: int = 0
    kernels: int = 0
    peak_bytes: int = 0
    operations: Counter[str] = field(default_factory=Counter)


class FakeGpu(TorchDispatchMode):
    """Context in which torch runs on a pretended GPU, torch.device("cuda", 0).

    Values that are read from the GPU are ones: True, 1 or 1.0. The CPU's operations are real.
    """

    def __init__(self) -> None:
        super().__init__()
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._work = Work()
        self._bytes = 0  # of all live tensors
        self._storages: set[int] = set()
        self._pinned: dict[int, torch.UntypedStorage] = {}
        self.num_syncs = 0  # how often all work so far was complete

    @contextlib.contextmanager
    def run(self) -> Iterator[FakeGpu]:
        """Enter the context; only here, tensors can be on the GPU."""
        caches = (total_memory, _make_basis)
        with contextlib.ExitStack() as stack:
            for target, name, value in (
                (torch.cuda, "mem_get_info", lambda device: (_TOTAL_BYTES, _TOTAL_BYTES)),
                (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
                (FakeTensor, "tolist", lambda tensor: self._to_list(tensor)),
                (FakeTensor, "__deepcopy__", _deepcopy),
                (torch.Tensor, "backward", _make_gradients),
                # `Module.to`: weights are made on the GPU, so it changes nothing.
                (torch.utils, "swap_tensors", lambda one, other: None),
                (torch.cuda, "current_stream", lambda device: None),
                (torch.cuda, "Event", lambda: _Event(self)),
            ):
                stack.enter_context(mock.patch.object(target, name, value))
            for cache in caches:
                cache.cache_clear()
                stack.callback(cache.cache_clear)
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
            stack.enter_context(self._fake)
            stack.enter_context(self)
            yield self

    @contextlib.contextmanager
    def measure(self) -> Iterator[Work]:
        """Count the work of the block."""
        self._work = Work(peak_bytes=self._bytes)
        yield self._work
        self._work = Work()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        is_on_gpu = any(isinstance(tensor, FakeTensor) for tensor in tensors)
        device = kwargs.get("device")
        if not is_on_gpu and (device is None or torch.device(device).type == "cpu"):
            return self._run_on_cpu(func, args, kwargs)
        if func is torch.ops.prim.device.default:
            return GPU
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE):
            with self:  # made of other operations, which are dispatched in turn
                return func._op_dk(_COMPOSITE, *args, **kwargs)
        if func in _COPIES:
            return self._copy(func, args, kwargs)
        if func is _ATEN._local_scalar_dense.default:
            return self._to_list(args[0])
        is_wait, result = self._run_with_values(func, args, kwargs)
        if is_wait:
            self.wait(func)
        if not _is_view(func) and func.overloadpacket.__name__ not in _WITHOUT_KERNEL:
            self._work.kernels += 1
            self._work.operations[func.overloadpacket.__name__] += 1
        return self._track(result)

    def _run_on_cpu(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in (_ATEN.pin_memory.default, _ATEN._pin_memory.default):  # they need a driver
            storage = args[0].untyped_storage()
            self._pinned[storage._cdata] = storage
            return args[0]
        if func is _ATEN.is_pinned.default:
            return args[0].untyped_storage()._cdata in self._pinned
        with unset_fake_temporarily():
            return func(*args, **kwargs)

    def _run_with_values(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bool, Any]:
        """Run an operation; return whether its result depends on values, and its result."""
        name = func.overloadpacket.__name__
        if name == "nonzero":
            return True, args[0].new_empty(args[0].numel(), args[0].ndim, dtype=torch.int64)
        if name in ("index", "index_put", "index_put_"):
            indices = [i for i in args[1] if i is not None]
            is_mask = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
            if name == "index" and is_mask:
                (mask,) = indices
                first = args[1].index(mask)
                kept = args[0].flatten(first, first + mask.ndim - 1)
                return True, torch.empty_like(kept)
            # torch fills masks with a number of the CPU, without the positions
            return is_mask and isinstance(args[2], FakeTensor), func(*args, **kwargs)
        if name.startswith("cudnn_convolution"):
            return False, _fused_convolution(name, args)
        return False, func(*args, **kwargs)

    def _copy(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Copy a tensor, on the GPU or between CPU and GPU."""
        source = args[0] if func is _ATEN._to_copy.default else args[1]
        target = kwargs.get("device") or args[0].device
        is_from_gpu, is_to_gpu = isinstance(source, FakeTensor), torch.device(target).type == "cuda"
        if is_from_gpu == is_to_gpu or (source.ndim == 0 and func is _ATEN.copy_.default):
            self._work.kernels += 1
            self._work.operations[func.overloadpacket.__name__] += 1
            return self._track(func(*args, **kwargs))
        is_blocking = not (args[2:3] == (True,) or kwargs.get("non_blocking"))
        self._work.copies += 1
        self._work.operations["copy to GPU" if is_to_gpu else "copy to CPU"] += 1
        if is_to_gpu:
            # torch copies other layouts to memory that is not pinned.
            is_pinned = source.untyped_storage()._cdata in self._pinned
            is_blocking |= not (is_pinned and _is_dense(source))
        if is_blocking:
            self.wait(func)
        if is_to_gpu:
            return self._track(func(*args, **kwargs))
        if func is _ATEN.copy_.default:
            return args[0]
        with unset_fake_temporarily():
            return torch.ones(source.shape, dtype=kwargs.get("dtype") or source.dtype)

    def _to_list(self, tensor: torch.Tensor) -> Any:
        """Read values, in place of `tolist` and `item`."""
        self._work.copies += 1
        self.wait("values")
        with unset_fake_temporarily():
            return torch.ones(tensor.shape, dtype=tensor.dtype).tolist()

    def wait(self, cause: object) -> None:
        """Wait until all work so far is complete."""
        self.num_syncs += 1
        self._work.waits += 1
        self._work.operations[f"wait: {cause}"] += 1

    def _track(self, result: Any) -> Any:
        """Count the bytes of new tensors until they are freed."""
        for tensor in tree_leaves(result):
            if not isinstance(tensor, FakeTensor):
                continue
            storage = tensor.untyped_storage()
            if storage._cdata not in self._storages:
                self._storages.add(storage._cdata)
                self._bytes += storage.nbytes()
                finalize(storage, self._free, storage._cdata, storage.nbytes())
        self._work.peak_bytes = max(self._work.peak_bytes, self._bytes)
        return result

    def _free(self, identity: int, num_bytes: int) -> None:
        self._storages.discard(identity)
        self._bytes -= num_bytes


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor of the CPU is contiguous, perhaps after a permutation."""
    order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    with unset_fake_temporarily():
        return tensor.permute(order).is_contiguous()


def _is_view(func: Any) -> bool:
    aliases = [result.alias_info for result in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _fused_convolution(name: str, args: tuple[Any, ...]) -> torch.Tensor:
    """Shape of cuDNN's fused convolutions: (x, weight, [add, alpha,] bias, stride, ...)."""
    x, weight, *rest = args
    if name == "cudnn_convolution_add_relu":
        rest = rest[2:]
    bias, stride, padding, dilation, groups = rest
    place = (stride, padding, dilation, False, [0, 0], groups)
    return torch.ops.aten.convolution(x, weight, bias, *place)


def _deepcopy(tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
    if id(tensor) not in memo:
        copied = tensor.detach().clone()
        if isinstance(tensor, nn.Parameter):
            copied = nn.Parameter(copied, tensor.requires_grad)
        memo[id(tensor)] = copied
    return memo[id(tensor)]


def _make_gradients(loss: torch.Tensor) -> None:
    """Make gradients of the parameters, in place of `backward`, which needs CUDA's streams."""
    todo, seen = [loss.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        parameter = getattr(node, "variable", None)
        if parameter is not None:
            parameter.grad = torch.empty_like(parameter)
        todo += [next_node for next_node, _ in node.next_functions]
