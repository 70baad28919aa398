"""Suggestions for a session: which frame to annotate next, from what its propagations stored."""

from __future__ import annotations

from annotator.results import stored_keys, stored_results
from annotator.store import PROTECTED, Store
from annotator.suggestions import FrameMeasures, Suggestion, suggest


def next_frames(store: Store, num: int = 5) -> list[Suggestion]:
    """Suggest the frames whose correction is expected to help most, the best one first.

    Frames on which a person drew, accepted or marked an object count as annotated.

    Args:
        num: largest number of suggestions.
    """
    known = {known.label for known in store.objects()}
    states: dict[int, dict[int, str]] = {}
    for label, frame, state in store.states():
        states.setdefault(frame, {})[label] = state
    annotated = [f for f, of_frame in states.items() if PROTECTED & {*of_frame.values()}]
    measures = {}
    for frame, scores in stored_results(store):
        # Objects that a person has drawn since then, or removed, say nothing any more.
        open_labels = {k for k, s in states.get(frame, {}).items() if s == "propagated"} & known
        measures[frame] = FrameMeasures(
            *(
                {label: value for label, value in scores[name].items() if label in open_labels}
                for name in ("confidence", "quality", "agreement")
            )
        )
    return suggest(measures, dict(stored_keys(store)), annotated, num)
