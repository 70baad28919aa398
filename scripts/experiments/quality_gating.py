"""What a quality head is worth: how it ranks masks, and what it keeps out of memory.

    python scripts/experiments/quality_gating.py --model saves/qdmn.pth --davis_path data/DAVIS/2017 \
        --output out/quality

Needs weights with a quality head (QDMN's). On a labelled split of DAVIS' layout it measures

- the rank correlation (Spearman's) of the head's score with the true IoU, over masks of all grades:
  the network's own, and the same damaged;
- error accumulation: with a given probability, what is written to memory is damaged, and J is
  measured: with every n-th frame in memory, with the frame before besides, and quality-gated,
  which reads the frame before too.

Writes quality.json and quality.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import progressbar
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets.davis import at_480p, davis_2017, find_2017
from datasets.perturb import perturb_mask
from datasets.training_videos import read_labels
from datasets.video import Video
from evaluation.metrics import region_similarity
from inference.predictor import Predictor
from inference_core import InferenceCore
from model.checkpoint import load_for_inference
from model.features import MemoryEntry
from util.figures import save_figure
from util.files import write_json
from util.hyper_para import EvalSettings
from util.padding import padding_of, unpad

# Name -> what of EvalSettings makes it.
MEMORIES: dict[str, dict[str, Any]] = {
    "every n-th frame": {"memory": "every_n"},
    "and the frame before": {"memory": "every_n", "include_last": True},
    "quality-gated": {"memory": "quality"},
}
# Share of a mask's extent by which a damaged one is moved, and the IoU that it is brought under.
_SHIFT = 0.5
_DAMAGE = (0.2, 0.6)


class Scored(NamedTuple):
    """A mask that was encoded."""

    score: float  # of the head
    iou: float  # with the truth
    is_damaged: bool


class LabelledFrame(NamedTuple):
    """A frame as `InferenceCore.step` takes it, and the ground_truth."""

    image: torch.Tensor  # (3, H, W), normalised
    ground_truth: np.ndarray  # (H, W) uint8 labels


class DamagingCore(InferenceCore):
    """A core that damages some of the masks it writes to memory, annotations excepted.

    It notes the quality head's score and the true IoU of each mask that it encodes.

    Args:
        probability: of damage, for each object of each written frame.
        rng: draws what is damaged, and how.
    """

    probability: float = 0.0
    rng: np.random.Generator
    ground_truth: np.ndarray  # of the frame at hand, (H, W) labels
    scored: list[Scored]

    def _encode(self, frame: Any, next_image: torch.Tensor | None) -> MemoryEntry:
        if frame.is_annotation:
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
                score = entry.quality[0, number].item()
                self.scored.append(Scored(score, iou, bool(is_damaged[number])))
        return entry


def damage(rng: np.random.Generator, mask: torch.Tensor) -> torch.Tensor:
    """A mask as a drifted network would give it: moved or with a wrong shape; (H, W) in [0, 1]."""
    hard = (mask > 0.5).cpu().numpy().astype(np.uint8)
    ys, xs = np.nonzero(hard)
    if not len(ys):
        return mask
    if rng.random() < 0.5:
        extent = np.array([np.ptp(ys) + 1, np.ptp(xs) + 1])
        steps = np.rint(extent * rng.uniform(-_SHIFT, _SHIFT, 2)).astype(int)
        return mask.roll((int(steps[0]), int(steps[1])), (0, 1))
    wrong = perturb_mask(rng, hard, *_DAMAGE)
    return torch.from_numpy(wrong).to(mask)


def read_frames(video: Video, annotations: Path, predictor: Predictor) -> Iterator[LabelledFrame]:
    """The frames of a video whose annotations are all there."""
    for frame in video:
        image = torch.from_numpy(frame.image).to(predictor.device).permute(2, 0, 1)
        path = annotations / video.name / f"{frame.name}.png"
        yield LabelledFrame(predictor.normalise(image), read_labels(path))


def segment(
    predictor: Predictor, video: Video, annotations: Path, probability: float, seed: int
) -> tuple[list[float], list[Scored]]:
    """J of every object and frame after the first, and the scores of what was written."""
    core = predictor.start(len(video), len(video.labels))
    assert isinstance(core, DamagingCore)
    core.probability, core.rng, core.scored = probability, np.random.default_rng(seed), []
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
    return similarities, core.scored


def rank_correlation(pairs: list[tuple[float, float]]) -> float:
    """Spearman's: the correlation of the ranks; equal values share their mean rank.

    Raises:
        ValueError: all scores, or all IoUs, are alike.
    """
    if min(len({*values}) for values in zip(*pairs, strict=True)) < 2:
        raise ValueError("All masks have the same score or IoU: is the network trained?")
    ranks = []
    for values in np.array(pairs).T:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        mean_ranks: np.ndarray = np.cumsum(counts) - (counts - 1) / 2
        ranks.append(mean_ranks[inverse])
    return float(np.corrcoef(ranks)[0, 1])


def main(argv: list[str] | None = None) -> int:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="weights with a quality head")
    parser.add_argument("--davis_path", type=Path, default=Path("data/DAVIS/2017"))
    parser.add_argument("--split", default="val")
    parser.add_argument("--output", type=Path, required=True, help="folder for JSON and PNG")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.0, 0.2, 0.4, 0.6, 0.8])
    parser.add_argument("--mem_every", type=int, default=5)
    parser.add_argument("--num_videos", type=int, help="the first ones alone")
    parser.add_argument("--seeds", type=int, default=3, help="draws of the damage, averaged")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--amp", action="store_true")
    arguments = parser.parse_args(argv)
    try:
        result = measure(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"rank correlation of score and IoU: {result['rank_correlation']:.3f} over all "
        f"{result['num_masks']} masks of {result['num_videos']} videos, "
        f"{result['rank_correlation_undamaged']:.3f} over the undamaged ones"
    )
    print("mean J, by share damaged " + "  ".join(f"{row['rate']:5.2f}" for row in result["rows"]))
    for name in MEMORIES:
        print(f"{name:22}" + "  ".join(f"{row[name]:5.3f}" for row in result["rows"]))
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output / "quality.json", result)
    draw(result, arguments.output / "quality.png")
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both experiments, as a dictionary to write."""
    if not load_for_inference(arguments.model).predicts_quality:
        raise ValueError(f"{arguments.model} has no quality head: give weights of qdmn.")
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
    # Without damage nothing is random.
    runs = [(r, seed) for r in arguments.rates for seed in range(arguments.seeds if r else 1)]
    means: dict[tuple[str, float], list[float]] = {}
    scored: list[Scored] = []
    bar = progressbar.ProgressBar(max_value=len(runs) * len(memories) * len(videos))
    for rate, seed in runs:
        for name, predictor in memories.items():
            for video in videos:
                found, pairs = segment(predictor, video, annotations, rate, seed)
                means.setdefault((name, rate), []).append(float(np.mean(found)))
                if name == "quality-gated":  # which encodes every frame
                    scored += pairs
                bar.increment()
    bar.finish()
    rows = [
        {"rate": rate, **{name: float(np.mean(means[name, rate])) for name in memories}}
        for rate in arguments.rates
    ]
    return {
        "settings": {name: str(value) for name, value in vars(arguments).items()},
        "rank_correlation": rank_correlation([(s.score, s.iou) for s in scored]),
        "rank_correlation_undamaged": rank_correlation(
            [(s.score, s.iou) for s in scored if not s.is_damaged]
        ),
        "num_masks": len(scored),
        "num_videos": len(videos),
        "rows": rows,
        "scored": scored,
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Scores against IoU, and J against the share of damaged memory."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    scores, ious, is_damaged = np.array(result["scored"]).T
    for damaged, name in ((0, "the network's own"), (1, "damaged")):
        chosen = is_damaged == damaged
        left.scatter(ious[chosen], scores[chosen], s=4, alpha=0.3, linewidths=0, label=name)
    left.legend(markerscale=3)
    left.set(xlabel="true IoU of a mask", ylabel="score of the quality head")
    left.set_title(f"rank correlation {result['rank_correlation']:.2f}")
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
