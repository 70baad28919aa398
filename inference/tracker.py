"""Segment frames in the order they arrive: arrays in, label maps out."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from inference.labels import check_image, check_mask, label_map
from inference.predictor import Predictor
from inference.views import make_views
from inference_core_yv import InferenceCoreYV
from model.features import EncodedImage
from util.devices import HostCopy, to_device
from util.images import resize_image, working_size
from util.masks import labels_of, resize_labels


class Tracker:
    """Segments one video, or a camera's stream, frame by frame.

        tracker = Tracker(Predictor(EvalSettings(model="saves/stcn_small.pth")))
        for frame in camera:
            labels = tracker.segment(frame, mask_or_none)

    Memory use is constant, apart from the memory bank. With test-time augmentation (`scales` or
    `flip` in the settings), each view has a session, and their probabilities are averaged.

    Args:
        predictor: makes the sessions. With InferenceCoreYV, its default, masks may be added on any
            frame and objects may be removed.
        num_frames: length of the video. If given, memory is allocated once.
        num_objects: number of objects in the whole video; see InferenceCoreYV.
    """

    def __init__(
        self, predictor: Predictor, num_frames: int | None = None, num_objects: int | None = None
    ) -> None:
        self._predictor = predictor
        self._views = make_views(predictor.settings)
        self._sessions = [predictor.start(num_frames, num_objects) for _ in self._views]
        self._size: tuple[int, int] | None = None  # (H, W) of the frames of `segment`
        self.seconds = 0.0  # spent in `encode_images` and `step`

    @property
    def labels(self) -> list[int]:
        """Labels of the objects, in the order of the probabilities."""
        return self._sessions[0].labels

    @property
    def quality(self) -> dict[int, float]:
        """Quality of the latest frame's masks by label; empty unless the method predicts it."""
        return self._sessions[0].quality

    @property
    def query_key(self) -> torch.Tensor | None:
        """Query key of the latest frame in its first view; see InferenceCore."""
        return self._sessions[0].query_key

    @property
    def num_memory_frames(self) -> int:
        """Number of frames in memory, of the view with most."""
        return max(session.num_memory_frames for session in self._sessions)

    def segment(self, image: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Segment the next frame. It is resized to the settings' `size` for the network.

        Args:
            image: (H, W, 3) uint8 RGB.
            mask: (H, W) uint8 labels, which add objects or correct known ones on this frame.
                Known objects that are not in it are segmented from memory.

        Returns:
            (H, W) uint8: the label of each pixel; 0 is background.

        Raises:
            ValueError: the frame or the mask has a wrong shape or type, or a size other than
                earlier frames; or `step` raises it.
        """
        check_image(image, "The frame")
        size = (image.shape[0], image.shape[1])
        if self._size not in (None, size):
            raise ValueError(
                f"The frame is {size[1]}x{size[0]} (width x height), but earlier frames are "
                f"{self._size[1]}x{self._size[0]}: give all frames of a video at one size."
            )
        if mask is not None:
            check_mask(mask, size, "The mask")
        self._size = size
        small = working_size(size, self._predictor.settings.shorter_side)
        if mask is not None:
            mask = resize_labels(mask, small) if mask.any() else None
        prob = self._step(resize_image(image, small), mask)
        assert prob is not None
        is_finite = HostCopy(torch.isfinite(prob.sum()))
        labels = label_map(prob, self.labels, size)  # the only wait for a GPU
        _check_finite(is_finite.read())
        return labels

    def encode_batch_size(self, image: np.ndarray) -> int:
        """Return the number of images of this size that are fastest in one batch."""
        sizes = (view.size_of(image) for view in self._views)
        return self._predictor.encode_batch_size(sum(height * width for height, width in sizes))

    @property
    def needs_every_frame(self) -> bool:
        """True if each frame needs the masks of the previous frame (QDMN)."""
        return any(session.needs_every_frame for session in self._sessions)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[np.ndarray]) -> list[list[EncodedImage]]:
        """Encode frames ahead of their turn, in one batch.

        Args:
            images: (h, w, 3) uint8 RGB each, of one size.

        Returns:
            For each frame, its views' encodings, which `step` takes as `encoded`.
        """
        start = time.perf_counter()
        by_view = []
        for view, session in zip(self._views, self._sessions, strict=True):
            frames = torch.stack([self._normalise(view.apply(image)) for image in images])
            by_view.append(session.encode_images(frames))
        self.seconds += time.perf_counter() - start
        return [[*views] for views in zip(*by_view, strict=True)]

    @torch.inference_mode()
    def step(
        self,
        image: np.ndarray,
        mask: np.ndarray | None = None,
        is_last: bool = False,
        is_required: bool = True,
        encoded: Sequence[EncodedImage] | None = None,
    ) -> torch.Tensor | None:
        """Segment the next frame at its working size.

        Args:
            image: (h, w, 3) uint8 RGB.
            mask: (h, w) uint8 labels, as in `segment`.
            is_last: no frame follows.
            is_required: the output needs this frame's masks.
            encoded: this frame's result of `encode_images`.

        Returns:
            float32 probabilities (O+1, h, w), background first, then objects as in `labels`; None
            if the frame is not required and cannot change the memory.

        Raises:
            ValueError: the frame has another size than earlier frames, or the probabilities are not
                finite.
        """
        start = time.perf_counter()
        prob = self._step(image, mask, is_last, is_required, encoded)
        if prob is not None:
            # This waits for the device, so `seconds` counts its work.
            _check_finite(torch.isfinite(prob.sum()))
            self.seconds += time.perf_counter() - start
        return prob

    @torch.inference_mode()
    def _step(
        self,
        image: np.ndarray,
        mask: np.ndarray | None = None,
        is_last: bool = False,
        is_required: bool = True,
        encoded: Sequence[EncodedImage] | None = None,
    ) -> torch.Tensor | None:
        """Run `step` without its check, which waits for the device."""
        if (
            not is_required
            and mask is None
            and all(session.can_skip() for session in self._sessions)
        ):
            for session in self._sessions:
                session.skip()
            return None
        total: torch.Tensor | None = None
        for at, (view, session) in enumerate(zip(self._views, self._sessions, strict=True)):
            frame = self._normalise(view.apply(image)) if encoded is None else encoded[at]
            masks = None if mask is None else self._split(view.apply_to_labels(mask), mask)
            prob = session.step(frame, masks, is_last)
            prob = view.undo(prob, (image.shape[0], image.shape[1]))
            total = prob if total is None else total + prob
        assert total is not None
        if len(self._views) > 1:
            total /= len(self._views)
        return total

    def remove_object(self, label: int) -> None:
        """Remove one object; the others are segmented as before.

        Raises:
            ValueError: the object does not exist, or the sessions are not of InferenceCoreYV.
        """
        for session in self._sessions:
            if not isinstance(session, InferenceCoreYV):
                raise ValueError(
                    "Objects can be removed from sessions of InferenceCoreYV only: pass it to "
                    "Predictor as session_type."
                )
            session.remove_objects([label])

    def _normalise(self, image: np.ndarray) -> torch.Tensor:
        """Move an image to the device and normalise it: (h, w, 3) uint8 -> (3, h, w) float32."""
        planes = to_device(_to_tensor(image), self._predictor.device).permute(2, 0, 1)
        return self._predictor.normalise(planes)

    def _split(self, view: np.ndarray, mask: np.ndarray) -> dict[int, torch.Tensor]:
        """Split a view (h, w) uint8 of a mask into a binary mask for each label of the mask.

        All views must have the same objects: one that is too small to appear has an empty mask.
        """
        on_device = to_device(_to_tensor(view), self._predictor.device)
        return {label: (on_device == label).float() for label in labels_of(mask)}


def _to_tensor(array: np.ndarray) -> torch.Tensor:
    """Convert an array without a copy if it can be written; that of a PIL image cannot."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _check_finite(is_finite: torch.Tensor) -> None:
    if not is_finite:
        raise ValueError(
            "The probabilities are not finite: use --precision float32 without --mem_half, or "
            "other weights."
        )
