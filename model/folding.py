"""Folding of batch norms into the convolutions before them, for inference."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.convolution import Conv2d, JointConv2d

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

# Subclasses may compute another function of their weights.
_CONVOLUTIONS = (nn.Conv2d, Conv2d, JointConv2d)


def fold_batch_norms(network: nn.Module) -> None:
    """Fold batch norms into the convolutions that feed them, in modules that name these pairs.

    A class names its pairs in `conv_norm_pairs`, such as (("conv1", "bn1"),): each norm is applied
    to the output of its convolution, and nothing else reads this output. Neither the names nor the
    order of layers imply it, for example in a pre-activation block. So all other norms stay, and
    subclasses, whose `forward` may differ, name their own pairs.

    Args:
        network: in eval mode; it is changed.
    """
    for module in [*network.modules()]:
        for conv_name, norm_name in vars(type(module)).get("conv_norm_pairs", ()):
            conv, norm = _find(module, conv_name), _find(module, norm_name)
            if not isinstance(conv, nn.Conv2d) or type(conv) not in _CONVOLUTIONS:
                continue
            if not isinstance(norm, nn.BatchNorm2d) or type(norm) is not nn.BatchNorm2d:
                continue
            if norm.running_mean is None:  # it normalises by the statistics of its input
                continue
            _replace(module, conv_name, fuse_conv_bn_eval(conv, norm))
            _replace(module, norm_name, nn.Identity())


def _find(module: nn.Module, name: str) -> nn.Module | None:
    """Return a descendant by its dotted name; None if there is none."""
    found: nn.Module | None = module
    for part in name.split("."):
        found = dict(found.named_children()).get(part) if found is not None else None
    return found


def _replace(module: nn.Module, name: str, replacement: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, replacement)
