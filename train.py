"""Train a network: `python train.py --id NAME --stage 0`, alone or under torchrun."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from datasets.sampler import ClipBatches
from datasets.static import StaticClips, find_static_pairs, mix_static, single_thread
from model.checkpoint import load_network, load_trunk, read_file
from model.methods import build_network
from model.model import Model
from model.network import Network, NetworkSpec
from util.devices import Ranks, join_ranks, leave_ranks, pick_device, pick_dtype
from util.hyper_para import TrainSettings, parse_train
from util.logger import TrainLog
from util.provenance import describe_run


def main(argv: list[str] | None = None) -> int:
    """Parse, build, run; returns the exit status."""
    settings = parse_train(argv)
    try:
        ranks = join_ranks(settings.device)
        device = pick_device(settings.device, ranks.local_rank)
        # Scaled float16 training is not reliable on MPS.
        use_half = not settings.no_amp and device.type != "mps"
        dtype = pick_dtype(settings.precision, device, use_half)
        torch.manual_seed(settings.seed)
        torch.backends.cudnn.benchmark = settings.benchmark
        found = find_static_pairs(Path(settings.static_root))
        clips = StaticClips(mix_static(found), settings.crop_size, seed=settings.seed)
        model = Model(
            start_network(settings), settings, describe_run(settings), device, dtype, ranks
        )
        model.record |= {"num_processes": ranks.world_size, "num_samples": len(clips)}
        if settings.load_model:
            model.resume(settings.load_model)
        elif model.checkpoint_path.exists():
            raise ValueError(
                f"There is a run {settings.id} already. Go on with it by --load_model "
                f"{model.checkpoint_path}, choose another --id, or remove {model.folder}."
            )
        if model.iteration > settings.iterations:
            raise ValueError(
                f"{settings.load_model} is at iteration {model.iteration} already, but the run "
                f"ends at --iterations {settings.iterations}: ask for more."
            )
        run(model, clips, {name: len(pairs) for name, pairs in found.items()}, ranks)
    except (ValueError, OSError, FloatingPointError) as error:
        # A loader's worker hands its error over as the last line of a traceback.
        sentence = str(error).rpartition(f"\n{type(error).__name__}: ")[2].strip()
        print(f"train.py: error: {sentence}", file=sys.stderr)
        return 2
    finally:
        leave_ranks()
    return 0


def start_network(settings: TrainSettings) -> Network:
    """The network to train, with the weights to start from."""
    is_single_object = settings.stage == 0
    if settings.load_network:
        network = load_network(settings.load_network, is_single_object, settings.seed)
        asked, found = (settings.method, settings.size), (network.spec.method, network.spec.size)
        if asked != found:
            raise ValueError(
                f"{settings.load_network} holds {' '.join(found)}, but {' '.join(asked)} is to be "
                "trained: give the matching --method and --size, or other weights."
            )
    else:
        network = build_network(NetworkSpec(settings.method, settings.size, is_single_object))
        if not settings.load_model:
            load_imagenet(network, settings)
    if not settings.load_model and settings.trunk_weights not in ("imagenet", "none"):
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


def run(model: Model, clips: StaticClips, sizes: dict[str, int], ranks: Ranks) -> None:
    """Train from the model's iteration to the end."""
    settings = model.settings
    iterations = range(model.iteration, settings.iterations)
    batches = ClipBatches(
        len(clips), settings.batch_size, iterations, ranks.rank, ranks.world_size, settings.seed
    )
    loader = DataLoader(
        clips,
        batch_sampler=batches,
        num_workers=settings.num_workers,
        pin_memory=model.device.type == "cuda",
        worker_init_fn=single_thread,
    )
    log = TrainLog(model.folder, model.iteration, settings.iterations) if ranks.is_main else None
    if log:
        batch = settings.batch_size * ranks.world_size
        epochs = settings.iterations * batch / len(clips)
        log.logger.info("%s", model.record)
        log.logger.info("images: %s, in a mixture of %d", sizes, len(clips))
        log.logger.info(
            "%d processes x batch %d = %d clips an iteration, %d iterations, %.1f epochs, lr %g, "
            "%s, %s", ranks.world_size, settings.batch_size, batch, settings.iterations, epochs,
            settings.lr, model.device, str(model.dtype).removeprefix("torch."),
        )  # fmt: skip
    since, since_iteration = time.perf_counter(), model.iteration
    sums: dict[str, torch.Tensor] = {}
    try:
        for sample in loader:
            scalars, logits = model.step(sample.images, sample.labels, sample.num_objects)
            it, is_last = model.iteration, model.iteration == settings.iterations
            sums = {name: value + sums.get(name, 0) for name, value in scalars.items()}
            if it % settings.report_interval == 0 or is_last:
                num = it - since_iteration
                values = {name: total / num for name, total in model.average(sums).items()}
                now = time.perf_counter()
                values["lr"] = float(model.scheduler.get_last_lr()[0])
                values["seconds"] = (now - since) / num
                since, since_iteration, sums = now, it, {}
                if log:
                    log.scalars(it, values)
            if log and (it % settings.image_interval == 0 or is_last):
                log.images(it, sample.images[0], sample.labels[0], logits[0])
            if log and (it % settings.save_interval == 0 or is_last):
                model.save()
            if log:
                log.update(it)
    finally:
        if log:
            log.close()


if __name__ == "__main__":
    sys.exit(main())
