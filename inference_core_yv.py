"""A session for a video whose objects may appear later, as in YouTube-VOS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from inference_core import InferenceCore
from model.features import QueryFeatures


class InferenceCoreYV(InferenceCore):
    """Session with masks on any frame, of new objects or as corrections of existing ones.

    The memory of an object starts at its first annotation. Objects that start on the same frame
    share one bank. All banks store each annotated frame.

    Args: see InferenceCore.
        num_objects: total number of objects in the video. If given, the prior of QDMN's key encoder
            is computed as published for YouTube-VOS; None computes it as published for DAVIS.
    """

    accepts_later_masks = True

    def _merge(self, query: QueryFeatures, masks: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Segment existing objects from memory, then overwrite them by the annotated masks.

        Annotated pixels belong to the annotated objects alone, as published.
        """
        is_annotated = sum(masks.values()) > 0.5  # (H, W)
        num_existing = len(self.labels)
        new = [label for label in masks if label not in self.labels]
        first_mask = next(iter(masks.values()))
        prob = first_mask.new_zeros(num_existing + len(new), *first_mask.shape)  # (O, H, W)
        if self.labels:
            prob[:num_existing] = self._segment(query)[1:]
        prob[:, is_annotated] = 0
        if new:
            self._start_group(new)
        for label, mask in masks.items():
            prob[self.labels.index(label)] = mask
        return prob

    def remove_objects(self, labels: Iterable[int]) -> None:
        """Remove objects from the session and its memory; the others stay.

        Raises:
            ValueError: there is no object with one of these labels. The session does not change.
        """
        removed = {*labels}
        unknown = sorted(removed - {*self.labels})
        if unknown:
            raise ValueError(
                f"There is no object {', '.join(map(str, unknown))} to remove. The objects of this "
                f"session are: {', '.join(map(str, self.labels)) or 'none'}."
            )
        kept = [position for position, label in enumerate(self.labels) if label not in removed]
        groups, self._groups = self._groups, []
        first = 0
        for group in groups:
            members = [p - group.first for p in kept if 0 <= p - group.first < group.num_objects]
            if members:
                group.bank.keep_objects(members, group.num_objects)
                group.first, group.num_objects = first, len(members)
                first += len(members)
                self._groups.append(group)
        self.labels = [self.labels[position] for position in kept]
        if not kept:  # as before the first annotation
            self._prior = self._pending = None
        elif self._pending is not None:
            self._pending.prob = self._pending.prob[kept]

    def _make_prior(self, prob: torch.Tensor) -> torch.Tensor:
        """See InferenceCore. With `num_objects`, apply softmax to the probabilities once more.

        As published for YouTube-VOS, objects that have not started take part with a probability of
        0.
        """
        if self.num_objects is not None:
            num_future = max(self.num_objects - len(self.labels), 0)
            future = prob.new_zeros(num_future, *prob.shape[1:])  # (num_future, H, W)
            prob = torch.softmax(torch.cat([prob, future]), 0)
        return super()._make_prior(prob)
