"""The network that a training run starts from."""

from __future__ import annotations

from model.checkpoint import load_backbone, load_network, read_file
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
        network = load_network(
            settings.load_network, is_single_object, settings.seed, settings.method, settings.repeat
        )
        asked, found = (settings.method, settings.size), (network.spec.method, network.spec.size)
        if asked != found:
            raise ValueError(
                f"{settings.load_network} holds {' '.join(found)}, but {' '.join(asked)} is to be "
                "trained: give the matching --method and --size, or other weights."
            )
        if network.spec.repeat != settings.repeat:
            raise ValueError(
                f"{settings.load_network} was trained with --repeat {network.spec.repeat}, not "
                f"{settings.repeat}: give the same, or start from stage 0."
            )
    else:
        spec = NetworkSpec(settings.method, settings.size, is_single_object, settings.repeat)
        network = build_network(spec)
        if is_fresh:
            load_imagenet(network, settings)
    if is_fresh and settings.backbone_weights not in ("imagenet", "none"):
        weights = read_file(settings.backbone_weights)
        load_backbone(network.key_encoder.backbone, weights, settings.backbone_weights)
    return network


def load_imagenet(network: Network, settings: TrainSettings) -> None:
    """ImageNet weights for the backbones, from torchvision, where they are asked for."""
    if settings.backbone_weights != "imagenet":
        return
    import torchvision.models  # its weights are downloaded here alone

    published = {
        18: torchvision.models.ResNet18_Weights.IMAGENET1K_V1,
        50: torchvision.models.ResNet50_Weights.IMAGENET1K_V1,
        101: torchvision.models.ResNet101_Weights.IMAGENET1K_V1,
    }
    key_backbone, value_backbone = network.key_encoder.backbone, network.value_encoder.backbone
    if key_backbone.width != 64 or key_backbone.depth not in published:
        raise ValueError(
            f"There are no ImageNet weights for --size {settings.size}: give --backbone_weights none."
        )
    try:
        for backbone in (key_backbone, value_backbone):
            if backbone.width == 64:
                source = f"torchvision's resnet{backbone.depth}"
                load_backbone(backbone, published[backbone.depth].get_state_dict(), source)
    except OSError as error:
        raise ValueError(
            f"The ImageNet weights cannot be downloaded ({error}): give a file of a ResNet with "
            "--backbone_weights, or none."
        ) from error
