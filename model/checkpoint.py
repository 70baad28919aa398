"""Save, load, recognise and convert files of weights.

Loading is strict, and never runs pickled code.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping
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
    """Read the dictionary in a file of weights, and check the checksums of its tensors.

    Files older than torch 1.6 have no checksums.

    Raises:
        ValueError: the file does not exist, is not a checkpoint, is damaged, or contains pickled
            code.
        PermissionError: the file cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file {path}: give the path of a .pth file of weights.")
    try:
        with warnings.catch_warnings():
            # torch warns about old formats and then fails; the messages below replace both.
            warnings.simplefilter("ignore")
            damaged = _find_damaged(path)
            content = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # torch can raise any exception for other kinds of files
        is_truncated = "unexpected EOF" in str(error)  # an UnpicklingError in torch 2.4
        if isinstance(error, pickle.UnpicklingError) and _is_pickle(path) and not is_truncated:
            raise ValueError(
                f"{path} contains pickled Python objects, which could run code, so it was not "
                "loaded. Save the state_dict alone: torch.save(model.state_dict(), path)."
            ) from error
        raise ValueError(_not_a_checkpoint(path)) from error
    if damaged:
        raise ValueError(
            f"{path} is damaged: the checksum of {damaged} is wrong. Download or copy it again."
        )
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} contains a {type(content).__name__}, not a dictionary of weights: give a file "
            "with a state_dict."
        )
    return content


def _find_damaged(path: Path) -> str | None:
    """Return a member of a zip archive whose CRC, which torch does not check, is wrong."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def _is_pickle(path: Path) -> bool:
    """Return True for a complete file of torch.save (a zip) or a file of pickle.dump."""
    with path.open("rb") as file:
        is_plain = file.read(1) == b"\x80"
    return is_plain or zipfile.is_zipfile(path)


def _not_a_checkpoint(path: Path) -> str:
    return (
        f"{path} is not a checkpoint that torch can read ({path.stat().st_size} bytes): it may be "
        "truncated or another kind of file. Download or save it again."
    )


def save_network(path: Path, network: Network, record: dict[str, Any]) -> None:
    """Write a network's weights, its spec, and a record (settings, commit, versions).

    Raises:
        FloatingPointError: a weight is not finite. No file is written.
        ValueError: the file cannot be written.
    """
    for name, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            raise FloatingPointError(
                f"{name} is not finite, so {path} was not written: the training diverged. Resume "
                "from an earlier checkpoint with a lower --lr."
            )
    content = {"format": FORMAT, "spec": asdict(network.spec), "weights": network.state_dict()}
    write_file(path, {**content, "record": record})


def write_file(path: Path, content: dict[str, Any]) -> None:
    """Write a file with torch.save; if that fails, an existing file stays unchanged.

    Raises:
        ValueError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # raised by torch if the disk is full
            raise ValueError(f"{path} cannot be written ({error}): is the disk full?") from error


def load_network(
    path: Path | str,
    is_single_object: bool = False,
    seed: int = 0,
    method: str | None = None,
    repeat: int = 0,
) -> Network:
    """Load a network for training, in float32 on the CPU.

    Evaluation uses `load_for_inference`.

    Args:
        path: file of this code, or published checkpoint.
        is_single_object: build the network for one object, not the one for several.
        seed: seed of the parameters that weights for one object lack: an orthogonal input channel
            of the value encoder, as published, and parts that only several objects need.
        method: load weights for one object as this method if all its tensors are there (RDE's are
            STCN's).
        repeat: see NetworkSpec; for weights for one object.

    Raises:
        ValueError: the weights do not fit; the message lists missing and extra tensors and
            different shapes.
    """
    spec, weights = read_weights(path)
    if is_single_object and not spec.is_single_object:
        raise ValueError(
            f"{path} was trained with several objects, but stage 0 trains with one: give "
            "--static_objects 2, leave out --load_network, or train a later stage, such as "
            "--stage 3."
        )
    if spec.is_single_object:
        other = replace(spec, method=method or spec.method, repeat=repeat)
        if not describe_differences(_meta_weights(other), weights):
            spec = other
    target = replace(spec, is_single_object=is_single_object)
    if spec.is_single_object and not is_single_object:
        weights = widen(weights, orthogonal_seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = build_network(target).state_dict()
        single = _meta_weights(spec)
        weights = {**{k: v for k, v in fresh.items() if k not in single}, **weights}
    return _fill(build_network(target), weights, path)


def load_for_inference(path: Path | str) -> Network:
    """Load the network for several objects, in float32 on the CPU; see `read_for_inference`."""
    spec, weights = read_for_inference(path)
    return _fill(build_network(spec), weights, path)


def read_for_inference(path: Path | str) -> tuple[NetworkSpec, StateDict]:
    """Read spec and weights for evaluation with several objects.

    Weights of stage 0 get an input channel of zeros, as published. If their method has parts that
    stage 0 lacks (RDE), they load as the method that does not have these parts, after a warning.

    Raises:
        ValueError: see `read_weights`.
    """
    spec, weights = read_weights(path)
    if spec.is_single_object:
        weights = widen(weights, orthogonal_seed=None)
        spec = replace(spec, is_single_object=False)
        specs = [replace(spec, method=name) for name in (spec.method, *METHODS)]
        specs = [s for s in specs if s.size in METHODS[s.method].sizes]
        fitting = next(
            (s for s in specs if not describe_differences(_meta_weights(s), weights)), spec
        )
        if fitting.method != spec.method:
            warnings.warn(
                f"{path} contains weights of {spec.method} after stage 0, which lack parts of this "
                f"method: they are evaluated as {fitting.method}.",
                stacklevel=2,
            )
        spec = fitting
    return spec, weights


def _meta_weights(spec: NetworkSpec) -> StateDict:
    """Return the state_dict of a network without numbers, on the meta device."""
    with torch.device("meta"):
        return build_network(spec).state_dict()


def read_weights(path: Path | str) -> tuple[NetworkSpec, StateDict]:
    """Read spec and weights of a file, in float32, with the tensor names of this code.

    Raises:
        ValueError: see `read_file` and `convert_published`; or a weight is not finite.
    """
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
    weights = {upgrade_tensor_name(name): _to_float(tensor) for name, tensor in weights.items()}
    broken = [k for k, v in weights.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise ValueError(
            f"{path} contains values that are not finite, in {_join(broken, 3)}: its training "
            "diverged. Use an earlier file."
        )
    return spec, weights


def upgrade_tensor_name(name: str) -> str:
    """Convert a tensor name of an earlier version of this code to the current name."""
    return name.replace(".trunk.", ".backbone.")


def _to_float(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def convert_published(content: dict[str, Any], path: Path | str) -> tuple[NetworkSpec, StateDict]:
    """Recognise a published state_dict by its tensor names, and rename it.

    Convolution biases before batch norms, which torchvision's backbones do not have, are folded
    into the running mean. This is exact, since batch norms always use their running statistics.

    Raises:
        ValueError: no method has these names; the message lists the differences from the nearest
            method.
    """
    if str(content.get("format", "")).endswith("-training"):
        raise ValueError(
            f"{path} is a checkpoint to resume training from: give the file of weights in the same "
            "folder, without _checkpoint in its name."
        )
    if not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise ValueError(
            f"{path} contains {_join(content) or 'nothing'}, not a state_dict: give the file of "
            "weights (without _checkpoint in its name)."
        )
    # Biases are folded in float32, not in half precision.
    weights = {str(k).removeprefix("module."): _to_float(v) for k, v in content.items()}
    best: tuple[int, Method, StateDict, StateDict] | None = None
    for method in (m for m in METHODS.values() if m.renames):
        renamed = _fold_biases({_rename(method, k): v for k, v in weights.items()})
        ours = _meta_weights(NetworkSpec(method.name))
        differing = len(ours.keys() ^ renamed.keys())
        if best is None or differing < best[0]:
            best = (differing, method, renamed, ours)
    assert best is not None
    differing, method, converted, ours = best
    if differing:
        raise ValueError(
            f"{path} is not a checkpoint of a known method; the nearest is {method.name}. "
            + describe_differences(ours, converted)
        )
    channels = converted["value_encoder.backbone.conv1.weight"].shape[1]
    return NetworkSpec(method.name, "base", is_single_object=channels == 4), converted


def _rename(method: Method, name: str) -> str:
    for published, ours in method.renames:
        if name.startswith(published):
            return ours + name[len(published) :]
    return name


def _fold_biases(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fold biases b of convolutions into batch norms: running_mean' = running_mean - b."""
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
    """Add the input channel for other objects' masks to weights of stage 0.

    Args:
        weights: weights of a network for a single object.
        orthogonal_seed: seed of an orthogonal initialisation, for training; None for zeros, for
            evaluation. Both are as published.
    """
    name = "value_encoder.backbone.conv1.weight"
    weight = weights[name]  # (C, 4, 7, 7) -> (C, 5, 7, 7)
    extra = torch.zeros_like(weight[:, :1])
    if orthogonal_seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(orthogonal_seed)
            nn.init.orthogonal_(extra)
    return {**weights, name: torch.cat([weight, extra], 1)}


def load_backbone(backbone: ResNetBackbone, weights: StateDict, source: str) -> None:
    """Load ImageNet weights with torchvision's names into a backbone.

    layer4 and fc are ignored. Input channels of masks are initialised orthogonally, as published.

    Args:
        source: file or model that the weights come from, for messages.

    Raises:
        ValueError: the weights are not of a ResNet of the backbone's depth and width.
    """
    ours = backbone.state_dict()
    if not all(isinstance(v, torch.Tensor) for v in weights.values()):
        raise ValueError(
            f"{source} is not the state_dict of a ResNet; it contains {_join(weights)}: give a "
            "file with torchvision's names (conv1.weight, layer1.0.conv1.weight, ...)."
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
            # An infinite variance would disable its channel. It overflowed in half precision.
            largest = torch.finfo(torch.float16).max
            theirs[name] = tensor.clamp(max=largest)
            warnings.warn(
                f"{source}: {int(tensor.isinf().sum())} values of {name} overflowed in half "
                f"precision; they are set to {largest:.0f}.",
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
    """List tensors that are missing, extra, or of a different shape; empty if there are none.

    Args:
        ours: the network's tensors.
        theirs: the file's tensors.
    """
    shapes = [
        f"{k} {tuple(theirs[k].shape)} instead of {tuple(v.shape)}"
        for k, v in ours.items()
        if k in theirs and theirs[k].shape != v.shape
    ]
    differences = {
        "Missing": [k for k in ours if k not in theirs],
        "Extra": [k for k in theirs if k not in ours],
        "Different shape": shapes,
    }
    return " ".join(f"{kind}: {_join(names)}." for kind, names in differences.items() if names)


def _join(names: Iterable[object], most: int = 12) -> str:
    """Join names by commas, at most the first `most`."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
