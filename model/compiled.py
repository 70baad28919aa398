"""torch.compile: for training, and for the parts of a network that segments."""

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
    """Whether torch.compile finds what it writes its kernels for."""
    chosen = os.environ.get("CXX")
    return any(shutil.which(name) for name in ([chosen] if chosen else ["c++", "g++", "clang++"]))


def require_compiler() -> None:
    """Raise ValueError where torch.compile could not work."""
    if not has_compiler():
        raise ValueError(
            "--compile needs a C++ compiler (g++ or clang++, or what the variable CXX names), and "
            "there is none on the path: install one, or leave the flag out."
        )


def compile_parts(network: nn.Module, parts: Iterable[tuple[nn.Module, str]], mode: str) -> None:
    """Have torch compile functions of modules, at the first frames that they see.

    Graphs of GPUs, which all modes but "default" have, give their results in places of their own
    that the next run writes over, so that results are copied from there.

    Args:
        network: for inference, with unpacked convolutions.
        parts: modules of it and the names of their functions.
        mode: of torch.compile.

    Raises:
        ValueError: there is no compiler.
    """
    require_compiler()
    for module in network.modules():
        if isinstance(module, SpectralFilter):  # its bins are found by looking at values
            module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign]
    for module, name in parts:
        run = torch.compile(getattr(module, name), mode=mode)
        object.__setattr__(module, name, run if mode == "default" else _copying(run))


def _copying(run: Callable[..., Any]) -> Callable[..., Any]:
    def run_and_copy(*args: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        result = run(*args)
        # What was handed in and comes back, as features do, is in no such place.
        return _copy(result, {id(tensor): tensor for tensor in tensors_of(args)})

    return run_and_copy


def _copy(result: Any, copies: dict[int, torch.Tensor]) -> Any:
    """Tensors, and those in named tuples and dataclasses, each in memory of its own.

    copies: by the id of a tensor, what takes its place; each that is made is added.
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
    """All tensors in tuples, lists and dataclasses."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors_of(part)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_of(getattr(value, field.name))
