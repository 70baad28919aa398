"""Objects that start on different frames: an annotation counts for the objects that it shows."""

from __future__ import annotations

import pytest

from inference_core_yv import InferenceCoreYV
from model.memory_bank import MemoryBank
from tests.example_sessions import FRAMES, Annotations, masks_on, network_and_policy

MEMORIES = [("stcn", "every_n"), ("qdmn", "quality"), ("rde", "sam"), ("imsfr", "isogenous")]


def banks_after(
    method: str, annotations: Annotations, num_frames: int, **options: object
) -> list[MemoryBank]:
    """Segment the first frames of the video; return the bank of each group."""
    core = InferenceCoreYV(*network_and_policy(method, **options), top_k=5)
    for t in range(num_frames):
        core.step(FRAMES[t], masks_on(annotations, t))
    return [group.bank for group in core._groups]


@pytest.mark.parametrize(("method", "memory"), MEMORIES)
def test_annotation_of_another_group_is_a_prediction(method: str, memory: str) -> None:
    options = {"mode": "stm"} if memory == "sam" else {}
    annotations = {0: [1], 2: [2], 4: [1], 6: [2]}
    first, second = banks_after(method, annotations, 8, memory=memory, mem_every=100, **options)
    for bank, annotated in ((first, [0, 4]), (second, [2, 6])):
        stored = [slot for slot in bank.stored if slot.frame_index in annotations]
        assert {slot.frame_index for slot in stored} == {*range(annotated[0], 7, 2)}
        assert [slot.frame_index for slot in stored if slot.is_annotation] == annotated


def test_prediction_on_a_frame_annotated_for_others_is_evicted_by_age() -> None:
    annotations = {0: [1], 1: [2]}
    first, second = banks_after("stcn", annotations, 8, mem_every=1, mem_capacity=3)
    assert [slot.frame_index for slot in first.stored] == [0, 6, 7]
    assert [slot.frame_index for slot in second.stored] == [1, 6, 7]


@pytest.mark.parametrize("reference", ["annotation", "prediction"])
def test_reference_quality_is_of_the_groups_own_annotation(reference: str) -> None:
    options = {"memory": "quality", "quality_reference": reference}
    before = banks_after("qdmn", {0: [1]}, 4, **options)
    after = banks_after("qdmn", {0: [1], 4: [2]}, 5, **options)
    assert before[0].reference_quality is not None
    assert after[0].reference_quality == before[0].reference_quality
