"""The initial network of a training run."""

from __future__ import annotations

from model.checkpoint import load_backbone, load_network, read_file
from model.methods import build_network
from model.network import Network, NetworkSpec
from util.hyper_para import TrainSettings


def start_network(settings: TrainSettings, is_fresh: bool = True) -> Network:
    """Build the network to train and load its initial weights.

    Args:
        is_fresh: load initial weights; false if a checkpoint is loaded afterwards.

    Raises:
        ValueError: the initial weights are missing, or belong to another network.
    """
    is_single_object = settings.stage == "0" and settings.static_objects == 1
    if settings.load_network and is_fresh:
        network = load_network(
            settings.load_network, is_single_object, settings.seed, settings.method, settings.repeat
        )
        spec = network.spec
        if (spec.method, spec.size) != (settings.method, settings.size):
            raise ValueError(
                f"{settings.load_network} contains weights of --method {spec.method} --size "
                f"{spec.size}, not of {settings.method} {settings.size}: give the matching options "
                "or other weights."
            )
        if spec.repeat != settings.repeat:
            raise ValueError(
                f"{settings.load_network} was trained with --repeat {spec.repeat}, not "
                f"{settings.repeat}: give the same value, or start from stage 0."
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
    """Load torchvision's ImageNet weights into the backbones if the settings request them.

    Raises:
        ValueError: there are no weights for this size, or they cannot be downloaded.
    """
    if settings.backbone_weights != "imagenet":
        return
    import torchvision.models  # slow to import, and needed only here

    published = {
        18: torchvision.models.ResNet18_Weights.IMAGENET1K_V1,
        50: torchvision.models.ResNet50_Weights.IMAGENET1K_V1,
        101: torchvision.models.ResNet101_Weights.IMAGENET1K_V1,
    }
    key_backbone, value_backbone = network.key_encoder.backbone, network.value_encoder.backbone
    if key_backbone.width != 64 or key_backbone.depth not in published:
        raise ValueError(
            f"There are no ImageNet weights for --size {settings.size}: give --backbone_weights "
            "none."
        )
    try:
        for backbone in (key_backbone, value_backbone):
            if backbone.width == 64:
                source = f"torchvision's resnet{backbone.depth}"
                load_backbone(backbone, published[backbone.depth].get_state_dict(), source)
    except OSError as error:
        raise ValueError(
            f"The ImageNet weights cannot be downloaded ({error}): give the file of a ResNet, or "
            "none, with --backbone_weights."
        ) from error
