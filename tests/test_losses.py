"""Losses compared with loops over samples, and with values computed by hand."""

from __future__ import annotations

import pytest
import torch

from model.losses import HardExampleSchedule, hard_example_cross_entropy, mean_iou

NUM_OBJECTS = torch.tensor([2, 1, 2, 1])


def random_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (4, 3, 6, 8) and labels (4, 6, 8); sample b has NUM_OBJECTS[b] objects."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 3, 6, 8, generator=generator)
    labels = torch.randint(3, (4, 6, 8), generator=generator)
    return logits, torch.minimum(labels, NUM_OBJECTS[:, None, None])


def naive_loss(logits: torch.Tensor, labels: torch.Tensor, share: float) -> torch.Tensor:
    """The published loss: sample by sample, with the classes of its objects only."""
    losses = []
    for sample, ground_truth, num in zip(logits, labels, NUM_OBJECTS.tolist(), strict=True):
        exp = sample[: num + 1].flatten(1).exp()
        correct = exp[ground_truth.flatten(), torch.arange(ground_truth.numel())]
        hardest = (-(correct / exp.sum(0)).log()).sort(descending=True).values
        losses.append(hardest[: int(share * ground_truth.numel())].mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("share", [1.0, 0.75, 0.5, 0.15])
def test_hard_examples_equal_a_loop(share: float) -> None:
    logits, labels = random_batch()
    inputs, copies = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = hard_example_cross_entropy(inputs, labels, NUM_OBJECTS, share)
    expected = naive_loss(copies, labels, share)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    assert inputs.grad is not None
    assert copies.grad is not None
    assert torch.isfinite(inputs.grad).all()
    torch.testing.assert_close(inputs.grad, copies.grad)
    assert not inputs.grad[NUM_OBJECTS == 1, 2].any()  # the absent object


def test_loss_increases_with_harder_pixels() -> None:
    logits, labels = random_batch()
    losses = [
        hard_example_cross_entropy(logits, labels, NUM_OBJECTS, p).item() for p in (1, 0.5, 0.15)
    ]
    assert losses == sorted(losses)
    assert losses[0] < losses[2]


def test_logits_of_absent_objects_are_ignored() -> None:
    logits, labels = random_batch()
    changed = logits.clone()
    changed[NUM_OBJECTS == 1, 2] = 50
    for share in (1.0, 0.5):
        loss = hard_example_cross_entropy(logits, labels, NUM_OBJECTS, share)
        assert torch.equal(loss, hard_example_cross_entropy(changed, labels, NUM_OBJECTS, share))


def test_one_object_networks_have_two_classes() -> None:
    logits = torch.tensor([0.0, 2.0])[None, :, None, None].expand(1, 2, 1, 4)
    labels = torch.tensor([[[0, 1, 1, 1]]])
    # log(1 + e^2) for label 0, log(1 + e^-2) for label 1.
    loss = hard_example_cross_entropy(logits, labels, torch.tensor([1]), 1.0)
    assert loss.item() == pytest.approx((2.126928 + 3 * 0.126928) / 4, abs=1e-5)
    hardest = hard_example_cross_entropy(logits, labels, torch.tensor([1]), 0.25)
    assert hardest.item() == pytest.approx(2.126928, abs=1e-5)


@pytest.mark.parametrize(
    ("iteration", "share"),
    [
        (0, 1),
        (19_999, 1),
        (20_000, 1),
        (45_000, 0.575),
        (70_000, 0.15),
        (70_001, 0.15),
        (10**6, 0.15),
    ],
)
def test_share_decreases_linearly(iteration: int, share: float) -> None:
    schedule = HardExampleSchedule(start_warm=20_000, end_warm=70_000)
    assert schedule.share(iteration) == pytest.approx(share)


def test_schedule_without_a_warm_up() -> None:
    schedule = HardExampleSchedule(start_warm=5, end_warm=5, top_p=0.4)
    assert [schedule.share(i) for i in (4, 5, 6)] == [1, 0.4, 0.4]


def test_mean_iou_by_hand() -> None:
    predicted = torch.tensor([[[0, 1, 1, 2]], [[1, 1, 0, 2]], [[0, 0, 0, 0]]])
    labels = torch.tensor([[[0, 1, 2, 2]], [[1, 0, 0, 0]], [[0, 0, 0, 0]]])
    logits = torch.nn.functional.one_hot(predicted, 3).permute(0, 3, 1, 2).float()
    num_objects = torch.tensor([2, 1, 1])
    # Sample 0: 1/2 and 1/2. Sample 1: 1/2, the second object is absent. Sample 2: an empty union.
    assert mean_iou(logits, labels, num_objects).item() == pytest.approx((0.5 + 0.5 + 0.5 + 1) / 4)
    assert mean_iou(logits[:1], labels[:1], num_objects[:1]).item() == pytest.approx(0.5)
