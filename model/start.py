"""The network that a training run starts from."""

from __future__ import annotations

from model.checkpoint import load_network, load_trunk, read_file
from model.methods import build_network
from model.network import Network, NetworkSpec
from util.hyper_para import TrainSettings


def start_network(settings: TrainSettings, is_fresh: bool = True) -> Network:
    """The network to train, with the weights to start from.

    Args:
        is_fresh: false where a checkpoint will fill it anyway.

    Raises:
        ValueError: the weights asked for are not to be had, or are of another network.
    """
    is_single_object = settings.stage == "0"
    if settings.load_network and is_fresh:
        network = load_network(settings.load_network, is_single_object, settings.seed)
        asked, found = (settings.method, settings.size), (network.spec.method, network.spec.size)
        if asked != found:
            raise ValueError(
                f"{settings.load_network} holds {' '.join(found)}, but {' '.join(asked)} is to be "
                "trained: give the matching --method and --size, or other weights."
            )
    else:
        network = build_network(NetworkSpec(settings.method, settings.size, is_single_object))
        if is_fresh:
            load_imagenet(network, settings)
    if is_fresh and settings.trunk_weights not in ("imagenet", "none"):
        weights = read_file(settings.trunk_weights)
        load_trunk(network.key_encoder.trunk, weights, settings.trunk_weights)
    return network


def load_imagenet(network: Network, settings: TrainSettings) -> None:
    """ImageNet weights for the trunks, from torchvision, where they are asked for."""
    if settings.trunk_weights != "imagenet":
        return
    key_trunk, value_trunk = network.key_encoder.trunk, network.value_encoder.trunk
    if key_trunk.channels[2] != 1024:
        raise ValueError(
            f"There are no ImageNet weights for --size {settings.size}: give --trunk_weights none."
        )
    import torchvision.models  # its weights are downloaded here alone

    resnet50 = torchvision.models.ResNet50_Weights.IMAGENET1K_V1
    resnet18 = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    try:
        load_trunk(key_trunk, resnet50.get_state_dict(), "torchvision's resnet50")
        if value_trunk.channels[2] == 256:
            load_trunk(value_trunk, resnet18.get_state_dict(), "torchvision's resnet18")
    except OSError as error:
        raise ValueError(
            f"The ImageNet weights cannot be downloaded ({error}): give a file of a ResNet with "
            "--trunk_weights, or none."
        ) from error
