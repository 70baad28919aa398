"""torch.compile for the parts of a network that segments."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn

from model.spectral import SpectralFilter


def compile_parts(parts: Iterable[tuple[nn.Module, str]], mode: str) -> None:
    """Have torch compile functions of modules, each at the first frame of a new shape.

    Graphs of GPUs, which all modes but "default" have, give their results in places of their own
    that the next run writes over, so that results are copied from there.

    Args:
        parts: modules and the names of their functions, for inference, with unpacked convolutions.
        mode: of torch.compile.
    """
    for module, name in parts:
        for inner in module.modules():
            if isinstance(inner, SpectralFilter):  # its bins are found by looking at values
                inner.forward = torch.compiler.disable(inner.forward)  # type: ignore[method-assign]
        object.__setattr__(module, name, _compiled(getattr(module, name), mode, mode != "default"))


def _compiled(function: Callable[..., Any], mode: str, has_graphs: bool) -> Callable[..., Any]:
    run = torch.compile(function, mode=mode)
    if not has_graphs:
        return run

    def run_and_copy(*args: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return _copy(run(*args))

    return run_and_copy


def _copy(result: Any) -> Any:
    """Tensors, and those in named tuples and dataclasses, each in memory of its own."""
    if isinstance(result, torch.Tensor):
        return result.clone()
    if isinstance(result, tuple):
        return type(result)(*map(_copy, result))
    if is_dataclass(result) and not isinstance(result, type):
        parts = {field.name: _copy(getattr(result, field.name)) for field in fields(result)}
        return type(result)(**parts)
    return result
