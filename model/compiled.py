"""torch.compile, for training and for the parts of a network for inference."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn

from model.spectral import SpectralFilter


def has_compiler() -> bool:
    """Return True if there is a C++ compiler for torch.compile."""
    chosen = os.environ.get("CXX")
    return any(shutil.which(name) for name in ([chosen] if chosen else ["c++", "g++", "clang++"]))


def require_compiler() -> None:
    """Check that there is a C++ compiler for torch.compile.

    Raises:
        ValueError: there is none.
    """
    if not has_compiler():
        raise ValueError(
            "--compile needs a C++ compiler: install g++ or clang++, name one in the environment "
            "variable CXX, or leave out --compile."
        )


def compile_parts(network: nn.Module, parts: Iterable[tuple[nn.Module, str]], mode: str) -> None:
    """Replace functions of a network by compiled ones; torch compiles them at their first call.

    In all modes but "default", torch uses CUDA graphs, whose next run overwrites the results of the
    previous one. So results are copied.

    Args:
        network: a network for inference, with unpacked convolutions.
        parts: modules of the network and the names of the functions to compile.
        mode: mode of torch.compile.

    Raises:
        ValueError: there is no C++ compiler.
    """
    require_compiler()
    for module in network.modules():
        if isinstance(module, SpectralFilter):  # the shapes of its basis depend on values
            module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign]
    for module, name in parts:
        run = torch.compile(getattr(module, name), mode=mode)
        object.__setattr__(module, name, run if mode == "default" else _copying(run))


def _copying(run: Callable[..., Any]) -> Callable[..., Any]:
    def run_and_copy(*args: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        result = run(*args)
        # Arguments that are returned, such as features, are no results of the graph.
        return _copy(result, {id(tensor): tensor for tensor in tensors_of(args)})

    return run_and_copy


def _copy(result: Any, copies: dict[int, torch.Tensor]) -> Any:
    """Copy tensors, also those in tuples and dataclasses.

    Args:
        result: value that a function returned.
        copies: id of a tensor -> its copy; new copies are added. Each tensor is copied once.
    """
    if isinstance(result, torch.Tensor):
        if id(result) not in copies:
            copies[id(result)] = result.clone()
        return copies[id(result)]
    if isinstance(result, tuple):
        parts = (_copy(part, copies) for part in result)
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    if is_dataclass(result) and not isinstance(result, type):
        named = {f.name: _copy(getattr(result, f.name), copies) for f in fields(result)}
        return type(result)(**named)
    return result


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Yield all tensors in tuples, lists and dataclasses."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors_of(part)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_of(getattr(value, field.name))
