"""Objects, background and frames of a synthetic clip."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

NUM_ANGLES = 1024  # samples of a contour: less than one pixel of arc for radii under 160
ENTRY_FRAMES = 6  # frames in which a late object moves from outside the image to its path


@dataclass(frozen=True)
class Wave:
    """A quantity that varies smoothly: mean + amplitude * sin(phase + speed * frame_index)."""

    mean: float
    amplitude: float
    phase: float
    speed: float

    def at(self, frame_index: int) -> float:
        """Value on a frame."""
        return self.mean + self.amplitude * math.sin(self.phase + self.speed * frame_index)


@dataclass(frozen=True)
class Harmonic:
    """One Fourier term of a contour: size(t) * cos(order * angle + phase + phase_speed * t)."""

    order: int
    size: Wave
    phase: float
    phase_speed: float


@dataclass(frozen=True)
class MovingObject:
    """A textured object with a closed-form path; each frame is drawn independently."""

    texture: np.ndarray  # (S, S, 3) uint8
    radius: float  # mean radius in pixels
    x: Wave
    y: Wave
    scale: Wave
    angle: float
    spin: float  # radians per frame
    harmonics: tuple[Harmonic, ...]
    entry_frame: int  # not drawn before this frame
    entry_shift: tuple[float, float]  # (x, y) in pixels, from the path to outside the image

    def centre(self, frame_index: int) -> tuple[float, float]:
        """Centre (x, y) in pixels; a late object approaches its path from outside the image."""
        progress = min(1.0, (frame_index - self.entry_frame + 1) / ENTRY_FRAMES)
        remaining = (1.0 - progress) ** 2 if self.entry_frame else 0.0  # of the shift
        shift_x, shift_y = self.entry_shift
        x = self.x.at(frame_index) + remaining * shift_x
        y = self.y.at(frame_index) + remaining * shift_y
        return x, y

    def contour(self, frame_index: int) -> np.ndarray:
        """Radii in pixels at NUM_ANGLES angles from 0 to 2 pi, (NUM_ANGLES,) float32."""
        angles = np.arange(NUM_ANGLES) * (2 * math.pi / NUM_ANGLES)
        shape = np.ones(NUM_ANGLES)
        for harmonic in self.harmonics:
            phase = harmonic.phase + harmonic.phase_speed * frame_index
            shape += harmonic.size.at(frame_index) * np.cos(harmonic.order * angles + phase)
        return (self.radius * self.scale.at(frame_index) * shape).astype(np.float32)

    def paint(self, image: np.ndarray, labels: np.ndarray, label: int, frame_index: int) -> None:
        """Draw the object into both arrays, in place.

        Args:
            image: (H, W, 3) float32; edges are anti-aliased.
            labels: (H, W) uint8; edges are hard.
            label: label of the object.
            frame_index: frame to draw; nothing is drawn before the entry frame.
        """
        if frame_index < self.entry_frame:
            return
        contour = self.contour(frame_index)
        centre_x, centre_y = self.centre(frame_index)
        extent = float(contour.max()) + 2
        height, width = labels.shape
        top, bottom = np.clip([centre_y - extent, centre_y + extent + 1], 0, height).astype(int)
        left, right = np.clip([centre_x - extent, centre_x + extent + 1], 0, width).astype(int)
        if top >= bottom or left >= right:
            return

        columns = np.arange(left, right, dtype=np.float32) - np.float32(centre_x)
        rows = np.arange(top, bottom, dtype=np.float32) - np.float32(centre_y)
        dx, dy = np.meshgrid(columns, rows)
        rotation = self.angle + self.spin * frame_index
        cosine, sine = np.float32(math.cos(rotation)), np.float32(math.sin(rotation))
        # Coordinates in the rotated frame of the object.
        object_x, object_y = dx * cosine + dy * sine, dy * cosine - dx * sine
        distance, angle = cv2.cartToPolar(object_x, object_y)
        bins = (angle * np.float32(NUM_ANGLES / (2 * math.pi))).astype(np.int32) % NUM_ANGLES
        radius = contour[bins]

        # The texture is scaled by the radius, so it deforms with the contour.
        half = np.float32((self.texture.shape[0] - 1) / 2)
        texture = cv2.remap(
            self.texture,
            half + object_x / radius * half,
            half + object_y / radius * half,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        opacity = np.clip(radius - distance + np.float32(0.5), 0, 1)
        patch = image[top:bottom, left:right]
        patch += opacity[..., None] * (texture.astype(np.float32) - patch)
        labels[top:bottom, left:right][opacity >= 0.5] = label


@dataclass(frozen=True)
class Background:
    """A texture larger than the frame, with slow camera motion (pan, rotation, zoom)."""

    texture: np.ndarray  # uint8, larger than the frame
    pan_x: Wave
    pan_y: Wave
    zoom: Wave
    angle: Wave

    def draw(self, height: int, width: int, frame_index: int) -> np.ndarray:
        """Draw the background of one frame, (H, W, 3) float32."""
        texture_height, texture_width = self.texture.shape[:2]
        degrees = math.degrees(self.angle.at(frame_index))
        centre = (texture_width / 2, texture_height / 2)
        matrix = cv2.getRotationMatrix2D(centre, degrees, self.zoom.at(frame_index))
        matrix[0, 2] += width / 2 - centre[0] + self.pan_x.at(frame_index)
        matrix[1, 2] += height / 2 - centre[1] + self.pan_y.at(frame_index)
        view = cv2.warpAffine(
            self.texture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101
        )
        return view.astype(np.float32)


@dataclass(frozen=True)
class Clip:
    """A clip that is drawn frame by frame; iterating yields (image, labels) and stores no frame.

    image: (H, W, 3) uint8 RGB; labels: (H, W) uint8, 0 background, then 1 to num_objects.
    """

    num_frames: int
    height: int
    width: int
    background: Background
    objects: tuple[MovingObject, ...]  # in the order of labels and of painting
    light: Wave
    tint: np.ndarray  # (3,) float32

    @property
    def num_objects(self) -> int:
        return len(self.objects)

    def __len__(self) -> int:
        return self.num_frames

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self.frame(index) for index in range(self.num_frames))

    def frame(self, frame_index: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw one frame independently of the others.

        Raises:
            IndexError: `frame_index` is not in [0, num_frames).
        """
        if not 0 <= frame_index < self.num_frames:
            raise IndexError(f"Frame {frame_index} is outside a clip of {self.num_frames} frames.")
        image = self.background.draw(self.height, self.width, frame_index)
        labels = np.zeros((self.height, self.width), np.uint8)
        for label, moving_object in enumerate(self.objects, start=1):
            moving_object.paint(image, labels, label, frame_index)
        image *= self.tint * np.float32(self.light.at(frame_index))
        return np.clip(image, 0, 255).astype(np.uint8), labels
