"""Follow objects through frames as they come: arrays in, arrays out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from util.hyper_para import EvalSettings
from util.images import resize_image, working_size
from util.masks import labels_of, resize_labels

_OBJECTS_PER_PASS = 16  # that are brought to a video's own size at once


class Core(Protocol):
    """A session, as inference_core.py has it."""

    labels: list[int]
    quality: dict[int, float]

    def look(self, frames: torch.Tensor) -> list[Any]: ...
    def step(
        self, frame: Any, masks: Mapping[int, torch.Tensor] | None, is_last: bool
    ) -> torch.Tensor: ...
    @property
    def num_memory_frames(self) -> int: ...
    @property
    def needs_every_frame(self) -> bool: ...
    def can_skip(self) -> bool: ...
    def skip(self) -> None: ...


class Sessions(Protocol):
    """Fresh sessions from one network, as inference_core.py has it."""

    device: torch.device
    weights_sha256: str
    settings: EvalSettings  # with the method's own values filled in

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 (3, H, W) -> what a session takes."""

    def frames_at_once(self, num_pixels: int) -> int:
        """How many frames of a size are looked at fastest."""

    def start(self, num_frames: int | None, num_objects: int | None) -> Core:
        """A session for a video of this length, with so many objects in all."""


class View(NamedTuple):
    """How a session sees a frame: at a multiple of its size, and perhaps mirrored."""

    scale: float = 1.0
    is_flipped: bool = False

    def see(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> the same, seen so."""
        image = resize_image(image, self.size_of(image))
        return np.ascontiguousarray(image[:, ::-1] if self.is_flipped else image)

    def see_labels(self, labels: np.ndarray) -> np.ndarray:
        """(H, W) uint8 -> the same, seen so."""
        labels = resize_labels(labels, self.size_of(labels))
        return np.ascontiguousarray(labels[:, ::-1] if self.is_flipped else labels)

    def undo(self, prob: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Probabilities (O+1, h, w) of what was seen -> (O+1, H, W) of the frame."""
        return resize_prob(prob.flip(-1) if self.is_flipped else prob, size)

    def size_of(self, array: np.ndarray) -> tuple[int, int]:
        """Height and width that an array (H, W, ...) is seen at."""
        height, width = array.shape[:2]
        return max(round(height * self.scale), 1), max(round(width * self.scale), 1)


def views_of(settings: EvalSettings) -> list[View]:
    """The views whose answers are averaged; one, of the frame as it is, by default.

    Frames come at the largest scale where --size says what that is a multiple of.
    """
    largest = max(settings.scales) if settings.size else 1.0
    flips = (False, True) if settings.flip else (False,)
    return [View(scale / largest, flip) for scale in settings.scales for flip in flips]


class Tracker:
    """Objects of one video, or of a camera, frame by frame, in whatever order they come.

        sessions = Sessions(EvalSettings(model="saves/stcn_small.pth"), InferenceCoreYV)
        tracker = Tracker(sessions)
        for frame in camera:
            labels = tracker.segment(frame, given=mask_or_none)

    Nothing it holds grows, save for what the memory policy stores. With `scales` or `flip` in the
    settings, a session for each view of a frame answers, and their mean counts.

    Args:
        sessions: from inference_core.py; with InferenceCoreYV as its type of core, masks may come
            on any frame and objects may go.
        num_frames: length of the video, where known: memory is then allocated once.
        num_objects: of the whole video, where known: see InferenceCoreYV.
    """

    def __init__(
        self, sessions: Sessions, num_frames: int | None = None, num_objects: int | None = None
    ) -> None:
        self._sessions = sessions
        self._views = views_of(sessions.settings)
        self._cores = [sessions.start(num_frames, num_objects) for _ in self._views]
        self.seconds = 0.0  # spent in `look` and `step`

    @property
    def labels(self) -> list[int]:
        """Of the objects, in the order of the probabilities."""
        return self._cores[0].labels

    @property
    def quality(self) -> dict[int, float]:
        """How good the latest frame's masks look, by label; of frames that a method scores."""
        return self._cores[0].quality

    @property
    def num_memory_frames(self) -> int:
        """Frames in memory, of the session that holds most."""
        return max(core.num_memory_frames for core in self._cores)

    def segment(self, image: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
        """Take the next frame, at any size, which is worked on at the settings' --size.

        Args:
            image: (H, W, 3) uint8 RGB.
            given: (H, W) uint8: masks given on this frame, of new objects or to correct known ones.
                Objects that are not in it are followed as before; where it is 0 it says nothing.

        Returns:
            (H, W) uint8: the label of each pixel; 0 is background.

        Raises:
            ValueError: what was given does not fit the frame, or the frame those before.
        """
        check_image(image, "The frame")
        size = (image.shape[0], image.shape[1])
        if given is not None:
            check_mask(given, size, "The given mask")
        small = working_size(size, self._sessions.settings.shorter_side)
        if given is not None:
            given = resize_labels(given, small) if given.any() else None
        prob = self.step(resize_image(image, small), given)
        assert prob is not None
        return label_map(prob, self.labels, size)

    def frames_at_once(self, image: np.ndarray) -> int:
        """How many frames like this one `look` takes at once to be fastest."""
        sizes = (view.size_of(image) for view in self._views)
        return self._sessions.frames_at_once(sum(height * width for height, width in sizes))

    @property
    def needs_every_frame(self) -> bool:
        """Whether no frame can be skipped once there are objects."""
        return any(core.needs_every_frame for core in self._cores)

    @torch.inference_mode()
    def look(self, images: Sequence[np.ndarray]) -> list[list[Any]]:
        """Look at frames before their turn, at once, for `step` to take one by one.

        Args:
            images: (h, w, 3) uint8 RGB each, of one size.

        Returns:
            of each frame, what `step` takes as `seen`.
        """
        start = time.perf_counter()
        by_view = []
        for view, core in zip(self._views, self._cores, strict=True):
            frames = torch.stack([self._normalise(view.see(image)) for image in images])
            by_view.append(core.look(frames))
        self.seconds += time.perf_counter() - start
        return [[*seen] for seen in zip(*by_view, strict=True)]

    @torch.inference_mode()
    def step(
        self,
        image: np.ndarray,
        given: np.ndarray | None = None,
        is_last: bool = False,
        is_wanted: bool = True,
        seen: Sequence[Any] | None = None,
    ) -> torch.Tensor | None:
        """Take the next frame at its working size.

        Args:
            image: (h, w, 3) uint8 RGB; given: (h, w) uint8 labels.
            is_last: nothing comes after.
            is_wanted: whether anyone looks at the answer.
            seen: what `look` made of this frame.

        Returns:
            float32 probabilities (O+1, h, w), background first, then objects as in `labels`; None
            where nobody wants them and nothing to come depends on them.
        """
        start = time.perf_counter()
        if not is_wanted and given is None and all(core.can_skip() for core in self._cores):
            for core in self._cores:
                core.skip()
            return None
        total: torch.Tensor | None = None
        for at, (view, core) in enumerate(zip(self._views, self._cores, strict=True)):
            frame = self._normalise(view.see(image)) if seen is None else seen[at]
            masks = None if given is None else self._split(view.see_labels(given), given)
            prob = core.step(frame, masks, is_last)
            prob = view.undo(prob, (image.shape[0], image.shape[1]))
            total = prob if total is None else total + prob
        assert total is not None
        if len(self._views) > 1:
            total /= len(self._views)
        # It waits for the device, inside what the clock measures.
        if not torch.isfinite(total.sum()):
            raise ValueError(
                "The network's answer is not finite: use --precision float32 without --mem_half, "
                "or other weights."
            )
        self.seconds += time.perf_counter() - start
        return total

    def remove(self, labels: Iterable[int]) -> None:
        """Forget objects; the others are followed as before.

        Raises:
            ValueError: there is no such object, or the type of core lets none go.
        """
        labels = [*labels]
        for core in self._cores:
            if not hasattr(core, "remove"):
                raise ValueError("Objects can go from sessions of InferenceCoreYV alone: use it.")
            core.remove(labels)

    def _normalise(self, image: np.ndarray) -> torch.Tensor:
        """(h, w, 3) uint8 -> (3, h, w), as a session takes it."""
        planes = torch.from_numpy(image).to(self._sessions.device).permute(2, 0, 1)
        return self._sessions.normalise(planes)

    def _split(self, labels: np.ndarray, given: np.ndarray) -> dict[int, torch.Tensor]:
        """(h, w) uint8 -> a mask in {0, 1} for each label of `given`, of which `labels` is a view.

        All views must know the same objects: one that is too small to be seen has an empty mask.
        """
        seen = torch.from_numpy(labels).to(self._sessions.device)
        return {label: (seen == label).float() for label in labels_of(given)}


def check_image(image: np.ndarray, name: str) -> None:
    """Raise ValueError where an image is not (H, W, 3) uint8."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"{name} is {image.shape} {image.dtype}: give (H, W, 3) uint8, RGB.")


def check_mask(mask: np.ndarray, size: tuple[int, int], name: str) -> None:
    """Raise ValueError where a mask is not (H, W) uint8 of some size."""
    if mask.shape != size or mask.dtype != np.uint8:
        raise ValueError(
            f"{name} is {mask.shape} {mask.dtype}: give {size} uint8, a label for each pixel, of "
            "one size with its frame."
        )


def resize_prob(prob: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(C, h, w) -> (C, H, W), bilinear."""
    if tuple(prob.shape[-2:]) == tuple(size):
        return prob
    return F.interpolate(prob[None], size=size, mode="bilinear", align_corners=False)[0]


def label_map(prob: torch.Tensor, labels: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Probabilities (O+1, h, w) -> (H, W) uint8 at `size`: bilinear, then the label of the largest.

    labels: of the objects.
    """
    # Plane by plane: argmax over the first axis takes 30 ms at 480p on a CPU, this 1 ms an object.
    # At another size, a few objects at a time: at 4K, the probabilities of 255 would take 8 GB.
    highest: torch.Tensor | None = None
    winners = torch.zeros(size, dtype=torch.uint8, device=prob.device)
    values = iter([0, *labels])
    for part in prob.split(_OBJECTS_PER_PASS):
        for plane in resize_prob(part, size):
            value = next(values)
            if highest is None:
                highest = plane.clone()
                continue
            winners = torch.where(plane > highest, value, winners)
            torch.maximum(highest, plane, out=highest)
    return winners.cpu().numpy()
