"""Measure how well a quality head ranks masks, and how much quality gating reduces the loss from
damaged masks.

    python scripts/experiments/quality_gating.py --model saves/qdmn.pth \\
        --davis_path data/DAVIS/2017 --output out/quality

The weights must have a quality head (QDMN). On an annotated split in the layout of DAVIS the script
measures

- Spearman's rank correlation of the predicted quality with the IoU, over masks of the network and
  damaged masks;
- error accumulation: masks are damaged with a given probability before they are written to memory,
  and J is measured for three memories: every n-th frame; the same and the previous frame;
  quality-gated, which also reads the previous frame.

The script writes quality.json and quality.png. A correlation over masks with the same quality or
the same IoU is undefined, and null in quality.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.experiments.davis_options import davis_parser
from scripts.shared.paths import output_folder
from util.hyper_para import EvalSettings


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = davis_parser(__doc__, argv, model="")
    parser.add_argument(
        "--output", type=output_folder, required=True, help="folder for JSON and PNG files"
    )
    parser.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=[0.0, 0.2, 0.4, 0.6, 0.8],
        help="probabilities of damage (default: 0 0.2 0.4 0.6 0.8)",
    )
    parser.add_argument(
        "--mem_every", type=int, default=5, help="store every n-th frame (default: 5)"
    )
    parser.add_argument("--num_videos", type=int, help="use the first n videos (default: all)")
    parser.add_argument(
        "--seeds", type=int, default=3, help="random draws of the damage to average (default: 3)"
    )
    parser.add_argument(
        "--amp", action="store_true", help="half precision: float16 on GPUs, bfloat16 on CPUs"
    )
    arguments = parser.parse_args(argv)
    if not all(0 <= rate <= 1 for rate in arguments.rates):
        parser.error("--rates must be probabilities from 0 to 1.")
    for name in ("seeds", "mem_every", "num_videos"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1; it is {value}.")
    return arguments


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

import numpy as np
import progressbar
import torch

from datasets.davis import at_480p, davis_2017, find_2017
from datasets.perturb import perturb_mask
from datasets.training_videos import read_labels
from datasets.video import Video
from evaluation.metrics import region_similarity
from inference.predictor import Predictor
from inference_core import InferenceCore
from model.checkpoint import load_for_inference
from model.features import MemoryEntry
from util.figures import new_figure, save_figure
from util.files import write_json
from util.padding import padding_of, unpad

# Name -> options of EvalSettings.
MEMORIES: dict[str, dict[str, Any]] = {
    "every n-th frame": {"memory": "every_n"},
    "and the previous frame": {"memory": "every_n", "include_last": True},
    "quality-gated": {"memory": "quality"},
}
_SHIFT = 0.5  # largest shift of a damaged mask, as a share of its extent
_DAMAGED_IOU = (0.2, 0.6)  # range of the IoU of a perturbed mask


class MaskQuality(NamedTuple):
    """Quality of a mask that was encoded for memory."""

    quality: float  # predicted by the quality head
    iou: float  # with the ground truth
    is_damaged: bool


class LabelledFrame(NamedTuple):
    """A frame for `InferenceCore.step`, and its ground truth."""

    image: torch.Tensor  # (3, H, W), normalised
    ground_truth: np.ndarray  # (H, W) uint8 labels


class DamagingCore(InferenceCore):
    """A session that damages some of the masks before it writes them to memory.

    Annotations are not damaged. The session records the predicted quality and the IoU of each mask
    that it encodes.
    """

    probability: float = 0.0  # of damage, for each object of each stored frame
    rng: np.random.Generator  # draws which masks are damaged, and how
    ground_truth: np.ndarray  # (H, W) labels of the current frame
    mask_qualities: list[MaskQuality]

    def _encode(self, frame: Any, next_image: torch.Tensor | None) -> MemoryEntry:
        if frame.annotated:
            return super()._encode(frame, next_image)
        prob, padding = frame.prob.clone(), padding_of(*self.ground_truth.shape)
        is_damaged = self.rng.random(len(self.labels)) < self.probability
        for at in np.flatnonzero(is_damaged):
            prob[at] = damage(self.rng, prob[at])
        entry = super()._encode(dataclasses.replace(frame, prob=prob), next_image)
        if entry.quality is not None:
            for number, label in enumerate(self.labels):
                mask = unpad(prob[number], padding).cpu().numpy() > 0.5
                iou = region_similarity(mask, self.ground_truth == label)
                quality = entry.quality[0, number].item()
                self.mask_qualities.append(MaskQuality(quality, iou, bool(is_damaged[number])))
        return entry


def damage(rng: np.random.Generator, mask: torch.Tensor) -> torch.Tensor:
    """Damage a mask (H, W) in [0, 1] as drift would: shift it or change its shape."""
    binary = (mask > 0.5).cpu().numpy().astype(np.uint8)
    ys, xs = np.nonzero(binary)
    if not len(ys):
        return mask
    if rng.random() < 0.5:
        extent = np.array([np.ptp(ys) + 1, np.ptp(xs) + 1])
        steps = np.rint(extent * rng.uniform(-_SHIFT, _SHIFT, 2)).astype(int)
        return mask.roll((int(steps[0]), int(steps[1])), (0, 1))
    perturbed = perturb_mask(rng, binary, *_DAMAGED_IOU)
    return torch.from_numpy(perturbed).to(mask)


def read_frames(video: Video, annotations: Path, predictor: Predictor) -> Iterator[LabelledFrame]:
    """Read the frames of a video with ground truth on every frame."""
    for frame in video:
        image = torch.from_numpy(frame.image).to(predictor.device).permute(2, 0, 1)
        path = annotations / video.name / f"{frame.name}.png"
        yield LabelledFrame(predictor.normalise(image), read_labels(path))


def segment(
    predictor: Predictor, video: Video, annotations: Path, probability: float, seed: int
) -> tuple[list[float], list[MaskQuality]]:
    """Segment a video and damage its memory.

    Returns:
        J of each object and frame after the first; qualities of the masks that were encoded.
    """
    core = predictor.start(len(video), len(video.labels))
    assert isinstance(core, DamagingCore)
    core.probability, core.rng = probability, np.random.default_rng(seed)
    core.mask_qualities = []
    similarities = []
    for index, frame in enumerate(read_frames(video, annotations, predictor)):
        core.ground_truth = frame.ground_truth
        masks = None
        if index == 0:
            ground_truth = torch.from_numpy(frame.ground_truth).to(predictor.device)
            masks = {label: (ground_truth == label).float() for label in video.labels}
        prob = core.step(frame.image, masks, is_last=index == len(video) - 1)
        if index:
            best = prob.argmax(0).cpu().numpy()
            similarities += [
                region_similarity(best == number, frame.ground_truth == label)
                for number, label in enumerate(core.labels, 1)
            ]
    return similarities, core.mask_qualities


def rank_correlation(pairs: list[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation; equal values share their mean rank.

    None if there are no pairs, or all values of a kind are equal.
    """
    if any(len({*values}) < 2 for values in zip(*pairs, strict=True)) or not pairs:
        return None
    ranks = []
    for values in np.array(pairs).T:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        mean_ranks: np.ndarray = np.cumsum(counts) - (counts - 1) / 2
        ranks.append(mean_ranks[inverse])
    return float(np.corrcoef(ranks)[0, 1])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and draw; return the exit status."""
    arguments = parse(argv)
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        result = measure(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"rank correlation of quality and IoU: {_format(result['rank_correlation'])} over all "
        f"{result['num_masks']} masks of {result['num_videos']} videos, "
        f"{_format(result['rank_correlation_undamaged'])} over the undamaged ones"
    )
    print("mean J by rate of damage " + "  ".join(f"{row['rate']:5.2f}" for row in result["rows"]))
    for name in MEMORIES:
        print(f"{name:22}" + "  ".join(f"{row[name]:5.3f}" for row in result["rows"]))
    write_json(arguments.output / "quality.json", result)
    draw(result, arguments.output / "quality.png")
    return 0


def _format(correlation: float | None) -> str:
    return "undefined" if correlation is None else f"{correlation:.3f}"


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run both experiments; return the content of quality.json.

    Raises:
        ValueError, OSError: the weights have no quality head, or data is missing.
    """
    if not load_for_inference(arguments.model).predicts_quality:
        raise ValueError(f"{arguments.model} has no quality head: use weights of qdmn.")
    base, _ = find_2017(arguments.davis_path, arguments.split)
    annotations = at_480p(base / "Annotations")
    videos = davis_2017(arguments.davis_path, arguments.split)[: arguments.num_videos]
    memories: dict[str, Predictor] = {}
    for name, options in MEMORIES.items():
        settings = EvalSettings(
            model=arguments.model,
            mem_every=arguments.mem_every,
            device=arguments.device,
            amp=arguments.amp,
            **options,
        )
        memories[name] = Predictor(settings, DamagingCore)
    # Without damage nothing is random: one seed is enough.
    runs = [(r, seed) for r in arguments.rates for seed in range(arguments.seeds if r else 1)]
    means: dict[tuple[str, float], list[float]] = {}
    mask_qualities: list[MaskQuality] = []
    bar = progressbar.ProgressBar(max_value=len(runs) * len(memories) * len(videos))
    for rate, seed in runs:
        for name, predictor in memories.items():
            for video in videos:
                similarities, qualities = segment(predictor, video, annotations, rate, seed)
                means.setdefault((name, rate), []).append(float(np.mean(similarities)))
                if name == "quality-gated":  # it encodes every frame
                    mask_qualities += qualities
                bar.increment()
    bar.finish()
    rows = [
        {"rate": rate, **{name: float(np.mean(means[name, rate])) for name in memories}}
        for rate in arguments.rates
    ]
    return {
        "settings": {name: str(value) for name, value in vars(arguments).items()},
        "rank_correlation": rank_correlation([(m.quality, m.iou) for m in mask_qualities]),
        "rank_correlation_undamaged": rank_correlation(
            [(m.quality, m.iou) for m in mask_qualities if not m.is_damaged]
        ),
        "num_masks": len(mask_qualities),
        "num_videos": len(videos),
        "rows": rows,
        "masks": mask_qualities,
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the predicted quality against the IoU, and J against the rate of damage."""
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    qualities, ious, is_damaged = np.array(result["masks"]).T
    for damaged, name in ((0, "undamaged"), (1, "damaged")):
        selected = is_damaged == damaged
        left.scatter(ious[selected], qualities[selected], s=4, alpha=0.3, linewidths=0, label=name)
    left.legend(markerscale=3)
    left.set(xlabel="IoU with the ground truth", ylabel="predicted quality")
    left.set_title(f"rank correlation {_format(result['rank_correlation'])}")
    rates = [row["rate"] for row in result["rows"]]
    for name in MEMORIES:
        right.plot(rates, [row[name] for row in result["rows"]], marker="o", label=name)
    right.set(xlabel="probability that a mask in memory is damaged", ylabel="mean J")
    right.set_ylim(bottom=0)
    right.legend()
    right.set_title("error accumulation")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    save_figure(figure, path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
