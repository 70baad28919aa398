"""Segment one video, one frame at a time, in constant memory apart from the memory bank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from inference_memory_bank import MemoryPolicy
from model.backbones import ImageFeatures
from model.features import EncodedImage, MemoryEntry, QueryFeatures
from model.matching import aggregate
from model.memory_bank import MemoryBank
from model.network import Network
from util.padding import pad, padding_of, unpad


@dataclass
class _Group:
    """Objects that started on one frame: they share keys, and so one affinity."""

    first: int  # position of its first object among all objects
    num_objects: int
    bank: MemoryBank


@dataclass
class _Pending:
    """A frame to remember once the next image is there."""

    image: torch.Tensor  # (1, 3, H, W), padded
    query: QueryFeatures
    prob: torch.Tensor  # (O, H, W)
    is_annotation: bool


class InferenceCore:
    """One video whose objects all start on one frame, as in DAVIS.

    Args:
        network: from `Network.for_inference`, or any network in eval mode.
        policy: what to remember.
        top_k: rows of memory that a position reads; None for all.
        num_frames: length of the video, where known: the bank is then allocated once.
        kernel_sigma: weigh each row of memory by a Gaussian around its best position; None for not.
        num_objects: objects that the whole video has; see InferenceCoreYV.
        halves_memory: keep float32 values in float16.
    """

    accepts_later_masks = False

    def __init__(
        self,
        network: Network,
        policy: MemoryPolicy,
        top_k: int | None = 20,
        num_frames: int | None = None,
        kernel_sigma: float | None = None,
        num_objects: int | None = None,
        halves_memory: bool = False,
    ) -> None:
        if policy.needs_quality and not network.predicts_quality:
            raise ValueError(
                f"{type(policy).__name__} needs a head that scores masks, as qdmn has: "
                f"{network.spec.method} has none."
            )
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, or None for all rows; it is {top_k}.")
        self.network = network
        self.policy = policy
        self.top_k = top_k
        self.num_frames = num_frames
        self.kernel_sigma = kernel_sigma
        self.num_objects = num_objects
        self.halves_memory = halves_memory
        self.labels: list[int] = []  # of the objects, in the order of the probabilities
        self.frame_index = -1  # of the latest frame
        self.quality: dict[int, float] = {}  # of its masks, by label, where it was scored
        self._size: tuple[int, ...] | None = None
        self._groups: list[_Group] = []
        self._prior: torch.Tensor | None = None  # (1, 1, H, W): where objects were, padded
        self._pending: _Pending | None = None
        self._is_over = False

    @torch.inference_mode()
    def encode_images(self, frames: torch.Tensor) -> list[EncodedImage]:
        """Encode frames ahead of their turn, in one batch; `step` takes the results one by one.

        Args:
            frames: (T, 3, H, W), normalised (`Network.normalise`).

        Raises:
            ValueError: they are of another shape.
        """
        if frames.ndim != 4 or frames.shape[1] != 3 or not len(frames):
            raise ValueError(f"Frames are (T, 3, H, W) together; these are {tuple(frames.shape)}.")
        padding = padding_of(*frames.shape[-2:])
        images = pad(frames, padding).to(self.network.mean.device, self.network.dtype)
        images = images.contiguous(memory_format=torch.channels_last)
        features = (feature.split(1) for feature in self.network.encode_image(images))
        return [
            EncodedImage(image, padding, ImageFeatures(*parts))
            for image, *parts in zip(images.split(1), *features, strict=True)
        ]

    @torch.inference_mode()
    def step(
        self,
        frame: torch.Tensor | EncodedImage,
        masks: Mapping[int, torch.Tensor] | None = None,
        is_last: bool = False,
    ) -> torch.Tensor:
        """Take the next frame.

        Args:
            frame: (3, H, W), normalised (`Network.normalise`), the same size for the whole video;
                or its encoding from `encode_images`.
            masks: label -> (H, W) in [0, 1]: the objects, on the frame where they start.
            is_last: nothing comes after, so nothing is remembered.

        Returns:
            float32 probabilities (O+1, H, W): background, then the objects as in `labels`. Before
            the objects start it is all background.

        Raises:
            ValueError: masks were given twice (see InferenceCoreYV), none at all, or of a size
                other than the frame's, or not in [0, 1]; or the frame is no normalised image of
                the size of those before; or the last frame came before. The session is as before
                the call.
        """
        size = self._check_frame(frame)
        if masks is not None:
            self._check(masks, size)
        self._size = size
        self.frame_index += 1
        self.quality = {}
        self._is_over = is_last
        if masks is not None:
            return self._annotate(frame, masks, is_last)
        if self.labels:
            return self._propagate(frame, is_last)
        return torch.ones(1, *size, device=self.network.mean.device)

    @property
    def needs_every_frame(self) -> bool:
        """Whether, once there are objects, each frame looks at the masks of the one before."""
        return self.network.key_encoder.needs_prior

    def can_skip(self) -> bool:
        """Whether nothing would be remembered of the next frame, nor of the one before by it: where
        nobody wants its masks either, `skip` it."""
        is_idle = self._pending is None and not self._is_over
        if self.labels and self.needs_every_frame:
            return False
        return is_idle and not self._wants_memory(self.frame_index + 1)

    def skip(self) -> None:
        """Count the next frame without looking at it.

        Raises:
            ValueError: `can_skip` says no.
        """
        if not self.can_skip():
            raise ValueError(
                f"Frame {self.frame_index + 1} cannot be skipped, since what follows depends on "
                "it: ask can_skip() first, and step() where it says no."
            )
        self.frame_index += 1

    @property
    def bytes_stored(self) -> int:
        """Bytes of the memory frames."""
        return sum(group.bank.bytes_stored for group in self._groups)

    @property
    def num_memory_frames(self) -> int:
        """Slots in use of the bank with most of them; an embedding of many frames counts as one."""
        banks = [group.bank for group in self._groups]
        return max((b.num_slots + (b.embedding is not None) for b in banks), default=0)

    def _check_frame(self, frame: torch.Tensor | EncodedImage) -> tuple[int, int]:
        """The size of the next frame, which may come."""
        index = self.frame_index + 1
        if self._is_over:
            raise ValueError(
                f"Frame {index} comes after the one that was said to be the last: start a new "
                "session for another video."
            )
        if isinstance(frame, EncodedImage):
            size = frame.size
        elif frame.ndim != 3 or frame.shape[0] != 3 or not frame.is_floating_point():
            raise ValueError(
                f"Frame {index} is {tuple(frame.shape)}, {frame.dtype}: give (3, H, W) floats, as "
                "Network.normalise makes them of uint8 RGB."
            )
        else:
            size = (frame.shape[1], frame.shape[2])
        if self._size not in (None, size):
            raise ValueError(
                f"Frame {index} is {size}, but those before are {self._size}: all frames of a "
                "video need the same size."
            )
        return size

    def _check(self, masks: Mapping[int, torch.Tensor], size: tuple[int, int]) -> None:
        """Refuse masks that the next frame cannot take, before anything changes."""
        index = self.frame_index + 1
        if not masks:
            raise ValueError(f"Frame {index} was given no masks: leave them out (None) instead.")
        if self.labels and not self.accepts_later_masks:
            raise ValueError(
                f"Frame {index} brings masks, but the objects started before: use "
                "InferenceCoreYV for objects that appear later."
            )
        for label, mask in masks.items():
            if tuple(mask.shape) != size:
                raise ValueError(
                    f"The mask of object {label} on frame {index} is {tuple(mask.shape)}, but "
                    f"the frame is {size}: they must be of one size."
                )
            if label <= 0 or not 0 <= float(mask.min()) <= float(mask.max()) <= 1:
                raise ValueError(
                    f"The mask of object {label} on frame {index} must lie in [0, 1], and labels "
                    "start at 1 (0 is the background): split a label map into one mask per object."
                )

    def _propagate(self, frame: torch.Tensor | EncodedImage, is_last: bool) -> torch.Tensor:
        """Segment from memory, then remember what the policy wants."""
        image, padding, query = self._encode_query(frame)
        prob = self._segment(query)
        self._prior = self._make_prior(prob)
        if not is_last and self._wants_memory(self.frame_index):
            self._remember(_Pending(image, query, prob[1:], is_annotation=False))
        return unpad(prob, padding)

    def _annotate(
        self, frame: torch.Tensor | EncodedImage, masks: Mapping[int, torch.Tensor], is_last: bool
    ) -> torch.Tensor:
        """Take given masks, and remember the frame with them."""
        image, padding, query = self._encode_query(frame)
        given = {k: pad(v.to(image.device, torch.float32), padding) for k, v in masks.items()}
        prob = torch.softmax(aggregate(self._merge(query, given)), 0)  # (O+1, H, W)
        self._prior = self._make_prior(prob)
        if not is_last:
            self._remember(_Pending(image, query, prob[1:], is_annotation=True))
        return unpad(prob, padding)

    def _encode_query(
        self, frame: torch.Tensor | EncodedImage
    ) -> tuple[torch.Tensor, tuple[int, int, int, int], QueryFeatures]:
        """The padded image, its padding and features; the frame before is in memory by then."""
        encoded = frame if isinstance(frame, EncodedImage) else self.encode_images(frame[None])[0]
        if self._pending is not None:
            self._write(self._pending, encoded.image)
            self._pending = None
        query = self.network.encode_query(encoded.features, self._prior)
        return encoded.image, encoded.padding, query

    def _make_prior(self, prob: torch.Tensor) -> torch.Tensor:
        """Where objects are, (1, 1, H, W), from probabilities (O+1, H, W)."""
        return prob[1:].amax(0)[None, None]

    def _merge(self, query: QueryFeatures, masks: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Probabilities (O, H, W) of all objects on a frame with masks; starts the new ones."""
        self._start_group([*masks])
        return torch.stack([*masks.values()])

    def _start_group(self, labels: list[int]) -> None:
        max_slots = None
        if self.num_frames is not None:
            max_slots = self.policy.max_slots(self.num_frames - self.frame_index)
        measures_distance = self.network.similarity.is_distance
        capacity = self.policy.mem_capacity or None
        bank = MemoryBank(max_slots, capacity, measures_distance, self.halves_memory)
        self._groups.append(_Group(len(self.labels), len(labels), bank))
        self.labels.extend(labels)

    def _segment(self, query: QueryFeatures) -> torch.Tensor:
        """Probabilities (O+1, H, W) of all objects, from memory."""
        readouts = []
        for group in self._groups:
            view = self.policy.view(group.bank, self.frame_index)
            readouts.append(
                self.network.read(view, query, group.num_objects, self.top_k, self.kernel_sigma)
            )
        logits = self.network.decode(torch.cat(readouts, 1), query)  # (1, O, H, W)
        return torch.softmax(aggregate(logits[0].sigmoid_()), 0)

    def _wants_memory(self, frame_index: int) -> bool:
        return any(self.policy.needs(group.bank, frame_index) for group in self._groups)

    def _remember(self, frame: _Pending) -> None:
        """Write a frame to memory: at once, or with the next image where that is part of it."""
        if self.network.value_encoder.needs_next_image:
            self._pending = frame
        else:
            self._write(frame, None)

    def _write(self, frame: _Pending, next_image: torch.Tensor | None) -> None:
        """Encode a frame with its objects, once, and hand each group its own."""
        index = self.frame_index - (next_image is not None)
        entry = self._encode(frame, next_image)
        if entry.quality is not None:
            self.quality = dict(zip(self.labels, entry.quality[0].tolist(), strict=True))
        for group in self._groups:
            members = slice(group.first, group.first + group.num_objects)
            self.policy.write(group.bank, entry.of_objects(members), index, frame.is_annotation)

    def _encode(self, frame: _Pending, next_image: torch.Tensor | None) -> MemoryEntry:
        masks = frame.prob[None].to(frame.image.dtype)
        return self.network.encode_memory(frame.image, frame.query, masks, next_image)
