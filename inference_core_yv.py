"""Segment one video whose objects may appear later (YouTube), one frame at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from inference_core import InferenceCore
from model.features import QueryFeatures


class InferenceCoreYV(InferenceCore):
    """As InferenceCore, with masks on any frame: of new objects, or to correct known ones.

    Each object keeps its own memory, which starts at its first annotation; objects that started
    together share one bank, and so one affinity. All banks take a frame on which masks are given.
    """

    accepts_later_masks = True

    def _merge(self, query: QueryFeatures, masks: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """What memory says of the known objects, overruled by the masks.

        Annotated pixels belong to the given objects alone, as published.
        """
        is_given = sum(masks.values()) > 0.5
        num_known = len(self.labels)
        new = [label for label in masks if label not in self.labels]
        some = next(iter(masks.values()))
        prob = some.new_zeros(num_known + len(new), *some.shape)  # (O, H, W)
        if self.labels:
            prob[:num_known] = self._segment(query)[1:]
        prob[:, is_given] = 0
        if new:
            self._start_group(new)
        for label, mask in masks.items():
            prob[self.labels.index(label)] = mask
        return prob

    def remove_objects(self, labels: Iterable[int]) -> None:
        """Forget objects; the others are followed as before, without these beside them.

        Raises:
            ValueError: there is no such object. The session is as before the call.
        """
        gone = {*labels}
        unknown = sorted(gone - {*self.labels})
        if unknown:
            raise ValueError(
                f"There is no object {', '.join(map(str, unknown))} to remove: there is "
                f"{', '.join(map(str, self.labels)) or 'none'}."
            )
        kept = [position for position, label in enumerate(self.labels) if label not in gone]
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
        if self._pending is not None:
            self._pending.prob = self._pending.prob[kept]

    def _make_prior(self, prob: torch.Tensor) -> torch.Tensor:
        """With `num_objects` as published for YouTube-VOS: of the softmax of what are probabilities
        already, in which objects still to come take part with a probability of 0."""
        if self.num_objects is not None:
            num_future = max(self.num_objects - len(self.labels), 0)
            to_come = prob.new_zeros(num_future, *prob.shape[1:])
            prob = torch.softmax(torch.cat([prob, to_come]), 0)
        return super()._make_prior(prob)
