"""Save, load, recognise and convert weights. Strict, and never unpickles code."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from model.backbones import ResNetBackbone
from model.methods import METHODS, Method, build_network
from model.network import Network, NetworkSpec
from util.files import atomic_path

FORMAT = "vos-1"
StateDict = Mapping[str, torch.Tensor]
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def read_file(path: Path | str) -> dict[str, Any]:
    """The dictionary in a file of weights.

    Raises:
        ValueError: the file is absent, is no checkpoint, or holds pickled code.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file {path}: give the path of a .pth file of weights.")
    try:
        with warnings.catch_warnings():
            # torch warns of old formats before it fails; the sentences below say it better.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # bytes of any kind make torch's reader fail in any way
        is_cut = "unexpected EOF" in str(error)  # torch 2.4 tells it by the same exception
        if isinstance(error, pickle.UnpicklingError) and _is_pickle(path) and not is_cut:
            raise ValueError(
                f"{path} holds pickled Python objects, which could run code when loaded, so it was "
                "not loaded. Save the state_dict alone: torch.save(model.state_dict(), path)."
            ) from error
        raise ValueError(_not_a_checkpoint(path)) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a dictionary of weights.")
    return content


def _is_pickle(path: Path) -> bool:
    """Whether a file is whole as torch.save writes it (a zip), or starts as pickle.dump does."""
    with path.open("rb") as file:
        is_plain = file.read(1) == b"\x80"
    return is_plain or zipfile.is_zipfile(path)


def _not_a_checkpoint(path: Path) -> str:
    return (
        f"{path} is not a checkpoint that torch can read ({path.stat().st_size} bytes): it may be "
        "cut short or another kind of file. Download or save it again."
    )


def save_network(path: Path, network: Network, record: dict[str, Any]) -> None:
    """Write weights with what they are: `record` (settings, commit, versions) travels along."""
    for name, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            raise FloatingPointError(
                f"{name} is not finite any more, so {path} was not written: the training has "
                "broken down; go on from an earlier checkpoint with a lower --lr."
            )
    content = {"format": FORMAT, "spec": asdict(network.spec), "weights": network.state_dict()}
    write_file(path, {**content, "record": record})


def write_file(path: Path, content: dict[str, Any]) -> None:
    """torch.save, whole or not at all."""
    with atomic_path(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch's own writer tells a full disk by this
            raise ValueError(f"{path} cannot be written ({error}): is the disk full?") from error


def load_network(
    path: Path | str,
    is_single_object: bool = False,
    seed: int = 0,
    method: str | None = None,
    repeat: int = 0,
) -> Network:
    """A network from our own file or from a published checkpoint, in float32 on the CPU.

    Args:
        is_single_object: build the stage 0 network instead of the one for several objects.
        seed: of what a stage 0 network lacks: the value encoder is widened for several objects by
            an orthogonal channel, as published, and parts that stage 0 does not have start fresh.
            Evaluation uses `load_for_inference`.
        method: take a stage 0 network of another method for one of this, where its tensors are the
            same (RDE's are STCN's).
        repeat: of the network to build from a stage 0 network, see NetworkSpec.

    Raises:
        ValueError: with the list of what is missing, extra or of another shape.
    """
    spec, weights = read_weights(path)
    if is_single_object and not spec.is_single_object:
        raise ValueError(
            f"{path} was trained with several objects (stages 1 to 3); stage 0 trains with one. "
            "Start stage 0 without --load_network, or go on with --stage 3."
        )
    if spec.is_single_object:
        other = replace(spec, method=method or spec.method, repeat=repeat)
        if not describe_differences(_empty(other), weights):
            spec = other
    target = replace(spec, is_single_object=is_single_object)
    if spec.is_single_object and not is_single_object:
        weights = widen(weights, orthogonal_seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = build_network(target).state_dict()
        alone = _empty(spec)
        weights = {**{k: v for k, v in fresh.items() if k not in alone}, **weights}
    return _fill(build_network(target), weights, path)


def load_for_inference(path: Path | str) -> Network:
    """The network for several objects, see `read_for_inference`."""
    spec, weights = read_for_inference(path)
    return _fill(build_network(spec), weights, path)


def read_for_inference(path: Path | str) -> tuple[NetworkSpec, StateDict]:
    """What is evaluated of a file of weights; stage 0 weights are widened by zeros, as published.

    Where their method has parts that stage 0 lacks (RDE), they are taken for the method that has
    not.
    """
    spec, weights = read_weights(path)
    if spec.is_single_object:
        weights = widen(weights, orthogonal_seed=None)
        spec = replace(spec, is_single_object=False)
        whole = [replace(spec, method=name) for name in (spec.method, *METHODS)]
        whole = [s for s in whole if s.size in METHODS[s.method].sizes]
        fitting = next((s for s in whole if not describe_differences(_empty(s), weights)), spec)
        if fitting.method != spec.method:
            warnings.warn(
                f"{path} holds stage 0 weights of {spec.method}, which lack parts of it: they are "
                f"evaluated as {fitting.method}.",
                stacklevel=2,
            )
        spec = fitting
    return spec, weights


def _empty(spec: NetworkSpec) -> StateDict:
    """Names and shapes of a network's tensors."""
    with torch.device("meta"):
        return build_network(spec).state_dict()


def read_weights(path: Path | str) -> tuple[NetworkSpec, StateDict]:
    """What a file of weights is and holds, by our names, in float32."""
    content = read_file(path)
    if content.get("format") == FORMAT:
        try:
            weights, spec = content["weights"], NetworkSpec(**content["spec"])
            for field in fields(NetworkSpec):
                if not isinstance(getattr(spec, field.name), type(field.default)):
                    raise TypeError(f"{field.name} is {getattr(spec, field.name)!r}")
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path} was written by another version of this code ({error}): load it with that "
                "version, or save it again."
            ) from error
    else:
        spec, weights = convert_published(content, path)
    weights = {rename_former(name): _to_float(tensor) for name, tensor in weights.items()}
    broken = [k for k, v in weights.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise ValueError(
            f"{path} holds numbers that are not finite, in {_some(broken, 3)}: its training broke "
            "down; take an earlier file."
        )
    return spec, weights


def rename_former(name: str) -> str:
    """Today's name of a tensor in a file of an earlier version of this code."""
    return name.replace(".trunk.", ".backbone.")


def _to_float(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def convert_published(content: dict[str, Any], path: Path | str) -> tuple[NetworkSpec, StateDict]:
    """Recognise a published state_dict by its tensor names, and rename it.

    Convolution biases ahead of a batch norm, which torchvision's backbones do not have, are folded
    into the batch norm's running mean: exact, since batch norms use their running statistics.

    Raises:
        ValueError: no method of ours has such names, with the nearest one's differences.
    """
    if str(content.get("format", "")).endswith("-training"):
        raise ValueError(
            f"{path} is a checkpoint to resume training from: give the file of weights beside it, "
            "without _checkpoint in its name."
        )
    if not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise ValueError(
            f"{path} holds {_some(content) or 'nothing'}, not a state_dict: give the file of "
            "weights (without _checkpoint in its name)."
        )
    # Float32 first: biases are not folded in half precision.
    weights = {str(k).removeprefix("module."): _to_float(v) for k, v in content.items()}
    best: tuple[int, Method, StateDict, StateDict] | None = None
    for method in (m for m in METHODS.values() if m.renames):
        renamed = _fold_biases({_rename(method, k): v for k, v in weights.items()})
        ours = _empty(NetworkSpec(method.name))
        differing = len(ours.keys() ^ renamed.keys())
        if best is None or differing < best[0]:
            best = (differing, method, renamed, ours)
    assert best is not None
    differing, method, found, ours = best
    if differing:
        raise ValueError(
            f"{path} is no checkpoint of a method known here; the nearest is {method.name}. "
            + describe_differences(ours, found)
        )
    channels = found["value_encoder.backbone.conv1.weight"].shape[1]
    return NetworkSpec(method.name, "base", is_single_object=channels == 4), found


def _rename(method: Method, name: str) -> str:
    for published, ours in method.renames:
        if name.startswith(published):
            return ours + name[len(published) :]
    return name


def _fold_biases(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """bn(conv(x) + b) = bn'(conv(x)) with running_mean' = running_mean - b."""
    folded = dict(weights)
    for name, bias in weights.items():
        module, _, kind = name.rpartition(".")
        parent, _, conv = module.rpartition(".")
        if kind != "bias" or ".backbone." not in name:
            continue
        norm = {"0": "1"}.get(conv, conv.replace("conv", "bn"))
        mean = f"{parent}.{norm}.running_mean"
        if norm != conv and mean in weights and weights[mean].shape == bias.shape:
            folded[mean] = weights[mean] - bias
            del folded[name]
    return folded


def widen(weights: StateDict, orthogonal_seed: int | None) -> StateDict:
    """Give the value encoder's first convolution the input channel of the other objects' masks.

    Orthogonal weights to train from (a seed), zeros to evaluate with (None), as published.
    """
    name = "value_encoder.backbone.conv1.weight"
    weight = weights[name]  # (C, 4, 7, 7)
    extra = torch.zeros_like(weight[:, :1])
    if orthogonal_seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(orthogonal_seed)
            nn.init.orthogonal_(extra)
    return {**weights, name: torch.cat([weight, extra], 1)}


def load_backbone(backbone: ResNetBackbone, weights: StateDict, source: str) -> None:
    """Fill a backbone from ImageNet weights with torchvision's names.

    layer4 and fc have no place here. A backbone that also sees masks keeps orthogonal weights for
    them, as published.

    Raises:
        ValueError: `source` does not hold a ResNet of the backbone's depth and width.
    """
    ours = backbone.state_dict()
    if not all(isinstance(v, torch.Tensor) for v in weights.values()):
        raise ValueError(
            f"{source} is no state_dict of a ResNet, but holds {_some(weights)}: give a file with "
            "torchvision's names (conv1.weight, layer1.0.conv1.weight, ...)."
        )
    theirs = {k: _to_float(v) for k, v in weights.items() if not k.startswith(("layer4.", "fc."))}
    first = theirs.get("conv1.weight")
    if first is not None and first.shape[1] == 3 < backbone.in_channels:
        extra = torch.empty(first.shape[0], backbone.in_channels - 3, *first.shape[2:])
        theirs["conv1.weight"] = torch.cat([first, nn.init.orthogonal_(extra)], 1)
    for name, tensor in ours.items():
        if name.endswith("num_batches_tracked"):
            theirs.setdefault(name, tensor)
    for name, tensor in theirs.items():
        if name.endswith("running_var") and tensor.isinf().any():
            # A variance that overflowed in a half-precision file would silence its channel.
            largest = torch.finfo(torch.float16).max
            theirs[name] = tensor.clamp(max=largest)
            warnings.warn(
                f"{source}: {int(tensor.isinf().sum())} of {name} had overflown half precision; "
                f"set to {largest:.0f}.",
                stacklevel=2,
            )
    _fill(backbone, theirs, source)


def _fill(module: ModuleT, weights: StateDict, source: Path | str) -> ModuleT:
    ours = module.state_dict()
    problems = describe_differences(ours, weights)
    if problems:
        raise ValueError(f"The weights in {source} do not fit. {problems}")
    module.load_state_dict(dict(weights))
    return module


def describe_differences(ours: StateDict, theirs: StateDict) -> str:
    """A sentence each for what is missing, extra, and of another shape; empty where all fits."""
    shapes = [
        f"{k} {tuple(theirs[k].shape)} instead of {tuple(v.shape)}"
        for k, v in ours.items()
        if k in theirs and theirs[k].shape != v.shape
    ]
    found = {
        "Missing": [k for k in ours if k not in theirs],
        "Extra": [k for k in theirs if k not in ours],
        "Of another shape": shapes,
    }
    return " ".join(f"{what}: {_some(names)}." for what, names in found.items() if names)


def _some(names: Any, most: int = 12) -> str:
    names = [str(n) for n in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
