"""A session: segments one video, one frame at a time.

Memory use is constant, apart from the memory bank. Shapes: see the legend in model/network.py.
"""

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
    """Objects that started on the same frame; they share one memory bank."""

    first: int  # index of its first object among all objects
    num_objects: int
    bank: MemoryBank


@dataclass
class _Pending:
    """A frame that is written to memory when the next image is known."""

    image: torch.Tensor  # (1, 3, H, W), normalised and padded
    query: QueryFeatures
    prob: torch.Tensor  # (O, H, W)
    annotated: frozenset[int] = frozenset()  # labels of the annotated objects


class InferenceCore:
    """Session for a video whose objects all start on the same frame, as in DAVIS.

    Args:
        network: from `Network.for_inference`, or any network in eval mode.
        policy: selects the frames that are stored in memory.
        top_k: number of most similar memory rows that a position reads; None for all.
        num_frames: length of the video; if known, memory is allocated once.
        kernel_sigma: standard deviation in positions of a Gaussian around each memory row's most
            similar position, by which it is weighted; None disables it.
        num_objects: number of objects in the whole video; see InferenceCoreYV.
        half_memory: store float32 values as float16.

    Raises:
        ValueError: the network lacks a part that the policy needs, or `top_k` is less than 1.
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
        half_memory: bool = False,
    ) -> None:
        if policy.needs_quality and not network.predicts_quality:
            raise ValueError(
                f"{type(policy).__name__} needs a quality head, as qdmn has; "
                f"{network.spec.method} has none. Use another memory policy or method."
            )
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, or None for all rows; it is {top_k}.")
        self.network = network
        self.policy = policy
        self.top_k = top_k
        self.num_frames = num_frames
        self.kernel_sigma = kernel_sigma
        self.num_objects = num_objects
        self.half_memory = half_memory
        self.labels: list[int] = []  # labels of the objects, in the order of the probabilities
        self.frame_index = -1  # index of the latest frame
        self._quality: tuple[list[int], torch.Tensor] | None = None  # labels, (O,)
        # (CK, h, w) of the latest frame; None if it has no object, or was skipped.
        self.query_key: torch.Tensor | None = None
        self._size: tuple[int, ...] | None = None
        self._groups: list[_Group] = []
        self._prior: torch.Tensor | None = None  # (1, 1, H, W), see _make_prior
        self._pending: _Pending | None = None
        self._is_finished = False

    @torch.inference_mode()
    def encode_images(self, frames: torch.Tensor) -> list[EncodedImage]:
        """Encode several frames in one batch, before they are passed to `step` one by one.

        Args:
            frames: (T, 3, H, W), normalised (`Network.normalise`).

        Raises:
            ValueError: the frames have another shape.
        """
        if frames.ndim != 4 or frames.shape[1] != 3 or not len(frames):
            raise ValueError(f"Frames must be (T, 3, H, W); these are {tuple(frames.shape)}.")
        padding = padding_of(*frames.shape[-2:])
        images = pad(frames, padding).to(self.network.mean.device, self.network.dtype)
        images = images.contiguous(memory_format=torch.channels_last)
        # Each feature (T, C, h, w) -> T x (1, C, h, w).
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
        """Segment the next frame.

        Args:
            frame: (3, H, W), normalised (`Network.normalise`), or its encoding from
                `encode_images`. All frames of a video have the same size.
            masks: annotation of the objects that start on this frame: label -> (H, W) in [0, 1].
                None if there is none.
            is_last: this is the last frame, so it is not stored in memory.

        Returns:
            float32 probabilities (O+1, H, W): background, then the objects in the order of
            `labels`. Before the first annotation, all pixels are background.

        Raises:
            ValueError: the frame or a mask has a wrong shape, type or range, `masks` is empty, the
                objects already started (see InferenceCoreYV), or the previous frame was the last
                one. The session does not change.
        """
        size = self._check_frame(frame)
        if masks is not None:
            self._check_masks(masks, size)
        self._size = size
        self.frame_index += 1
        self._quality = None
        self.query_key = None
        self._is_finished = is_last
        if masks is not None:
            return self._annotate(frame, masks, is_last)
        if self.labels:
            return self._propagate(frame, is_last)
        return torch.ones(1, *size, device=self.network.mean.device)

    @property
    def quality(self) -> dict[int, float]:
        """Predicted quality of the latest frame's masks by label, if computed (QDMN).

        Reading it waits for a GPU.
        """
        if self._quality is None:
            return {}
        labels, quality = self._quality
        return dict(zip(labels, quality.tolist(), strict=True))

    @property
    def needs_every_frame(self) -> bool:
        """True if each frame needs the masks of the previous one (QDMN)."""
        return self.network.key_encoder.needs_prior

    def can_skip(self) -> bool:
        """Return True if skipping the next frame cannot change the memory."""
        is_idle = self._pending is None and not self._is_finished
        if self.labels and self.needs_every_frame:
            return False
        return is_idle and not self._needs_memory(self.frame_index + 1)

    def skip(self) -> None:
        """Skip the next frame: count it without segmenting it.

        Raises:
            ValueError: `can_skip()` is false.
        """
        if not self.can_skip():
            raise ValueError(
                f"Frame {self.frame_index + 1} cannot be skipped, because later frames depend on "
                "it: call step() if can_skip() is false."
            )
        self.frame_index += 1
        self.query_key = None

    @property
    def bytes_stored(self) -> int:
        """Bytes of the memory banks."""
        return sum(group.bank.bytes_stored for group in self._groups)

    @property
    def num_memory_frames(self) -> int:
        """Number of memory frames in the largest bank; an embedding counts as one frame."""
        banks = [group.bank for group in self._groups]
        return max((b.num_slots + (b.embedding is not None) for b in banks), default=0)

    def _check_frame(self, frame: torch.Tensor | EncodedImage) -> tuple[int, int]:
        """Return the size (H, W) of the next frame; raise ValueError if it is not valid."""
        index = self.frame_index + 1
        if self._is_finished:
            raise ValueError(
                f"Frame {index} follows a frame that was passed with is_last: start a new session "
                "for another video."
            )
        if isinstance(frame, EncodedImage):
            size = frame.size
        elif frame.ndim != 3 or frame.shape[0] != 3 or not frame.is_floating_point():
            raise ValueError(
                f"Frame {index} is {tuple(frame.shape)}, {frame.dtype}: give floats (3, H, W), "
                "which Network.normalise returns for uint8 RGB."
            )
        else:
            size = (frame.shape[1], frame.shape[2])
        if self._size not in (None, size):
            raise ValueError(
                f"Frame {index} is {size}, but the frames before are {self._size}: all frames of "
                "a video must have the same size."
            )
        return size

    def _check_masks(self, masks: Mapping[int, torch.Tensor], size: tuple[int, int]) -> None:
        """Raise ValueError if the masks of the next frame are not valid."""
        index = self.frame_index + 1
        if not masks:
            raise ValueError(f"The masks of frame {index} are empty: give None for no annotation.")
        if self.labels and not self.accepts_later_masks:
            raise ValueError(
                f"Frame {index} has masks, but the objects started on an earlier frame: use "
                "InferenceCoreYV for objects that appear later."
            )
        for label, mask in masks.items():
            if tuple(mask.shape) != size:
                raise ValueError(
                    f"The mask of object {label} on frame {index} is {tuple(mask.shape)}, but "
                    f"the frame is {size}: they must have the same size."
                )
            if label <= 0 or not 0 <= float(mask.min()) <= float(mask.max()) <= 1:
                raise ValueError(
                    f"The mask of object {label} on frame {index} must be in [0, 1], and labels "
                    "start at 1 (0 is the background): split a label map into one mask per object."
                )

    def _propagate(self, frame: torch.Tensor | EncodedImage, is_last: bool) -> torch.Tensor:
        """Segment a frame from memory, then store it in memory if the policy selects it."""
        image, padding, query = self._encode_query(frame)
        prob = self._segment(query)  # (O+1, H, W)
        self._prior = self._make_prior(prob)
        if not is_last and self._needs_memory(self.frame_index):
            self._memorise(_Pending(image, query, prob[1:]))
        return unpad(prob, padding)

    def _annotate(
        self, frame: torch.Tensor | EncodedImage, masks: Mapping[int, torch.Tensor], is_last: bool
    ) -> torch.Tensor:
        """Use annotated masks, and store the frame in memory."""
        image, padding, query = self._encode_query(frame)
        padded = {k: pad(v.to(image.device, torch.float32), padding) for k, v in masks.items()}
        prob = torch.softmax(aggregate(self._merge(query, padded)), 0)  # (O, H, W) -> (O+1, H, W)
        self._prior = self._make_prior(prob)
        if not is_last:
            self._memorise(_Pending(image, query, prob[1:], frozenset(masks)))
        return unpad(prob, padding)

    def _encode_query(
        self, frame: torch.Tensor | EncodedImage
    ) -> tuple[torch.Tensor, tuple[int, int, int, int], QueryFeatures]:
        """Return padded image, padding and query features; first store a pending frame."""
        encoded = frame if isinstance(frame, EncodedImage) else self.encode_images(frame[None])[0]
        if self._pending is not None:
            self._write(self._pending, encoded.image)
            self._pending = None
        query = self.network.encode_query(encoded.features, self._prior)
        self.query_key = query.key[0]
        return encoded.image, encoded.padding, query

    def _make_prior(self, prob: torch.Tensor) -> torch.Tensor:
        """Compute the probability of any object, (1, 1, H, W), from probabilities (O+1, H, W)."""
        return prob[1:].amax(0)[None, None]  # largest over the objects

    def _merge(self, query: QueryFeatures, masks: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Return probabilities (O, H, W) of all objects on an annotated frame; start new ones."""
        self._start_group([*masks])
        return torch.stack([*masks.values()])

    def _start_group(self, labels: list[int]) -> None:
        max_slots = None
        if self.num_frames is not None:
            max_slots = self.policy.max_slots(self.num_frames - self.frame_index)
        centre_keys = self.network.similarity.is_distance
        capacity = self.policy.mem_capacity or None
        bank = MemoryBank(max_slots, capacity, centre_keys, self.half_memory)
        self._groups.append(_Group(len(self.labels), len(labels), bank))
        self.labels.extend(labels)

    def _segment(self, query: QueryFeatures) -> torch.Tensor:
        """Compute probabilities (O+1, H, W) of all objects from memory."""
        readouts = []
        for group in self._groups:
            view = self.policy.view(group.bank, self.frame_index)
            readouts.append(  # (1, objects of the group, CV, h, w)
                self.network.read(view, query, group.num_objects, self.top_k, self.kernel_sigma)
            )
        logits = self.network.decode(torch.cat(readouts, 1), query)  # (1, O, H, W)
        return torch.softmax(aggregate(logits[0].sigmoid_()), 0)

    def _needs_memory(self, frame_index: int) -> bool:
        """Return True if the policy stores this frame in a bank."""
        return any(self.policy.needs(group.bank, frame_index) for group in self._groups)

    def _memorise(self, frame: _Pending) -> None:
        """Store a frame in memory, now or when the next image is known (IMSFR)."""
        if self.network.value_encoder.needs_next_image:
            self._pending = frame
        else:
            self._write(frame, None)

    def _write(self, frame: _Pending, next_image: torch.Tensor | None) -> None:
        """Encode a frame with all objects, and store each group's part in its bank.

        All banks store each annotated frame, as published. It is an annotation for the groups with
        an annotated object, and a prediction for the others.
        """
        index = self.frame_index - (next_image is not None)
        entry = self._encode(frame, next_image)
        if entry.quality is not None:
            self._quality = [*self.labels], entry.quality[0]
        for group in self._groups:
            members = slice(group.first, group.first + group.num_objects)
            self.policy.write(
                group.bank,
                entry.select_objects(members),
                index,
                is_annotation=not frame.annotated.isdisjoint(self.labels[members]),
                must_store=bool(frame.annotated),
            )

    def _encode(self, frame: _Pending, next_image: torch.Tensor | None) -> MemoryEntry:
        masks = frame.prob[None].to(frame.image.dtype)  # (1, O, H, W)
        return self.network.encode_memory(frame.image, frame.query, masks, next_image)
