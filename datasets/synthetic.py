"""Procedural video clips with exact masks: textured objects that move, deform and occlude."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

NUM_ANGLES = 1024  # the contour is tabulated at so many angles: under a pixel of arc for R < 160
ENTRY_FRAMES = 6  # a late object needs so many frames to slide from outside to its path
MAX_OBJECTS = 50
MIN_SIDE = 32
MAX_ASPECT = 4  # a narrower strip has no room for objects of 0.3 % of the frame


@dataclass(frozen=True)
class Wave:
    """A smooth quantity over time: mean + amplitude * sin(phase + speed * frame_index)."""

    mean: float
    amplitude: float
    phase: float
    speed: float

    def at(self, frame_index: int) -> float:
        return self.mean + self.amplitude * math.sin(self.phase + self.speed * frame_index)


@dataclass(frozen=True)
class Harmonic:
    """One Fourier term of a contour: radius varies by size(t) * cos(order * angle + turn(t))."""

    order: int
    size: Wave
    turn: float
    turn_speed: float


@dataclass(frozen=True)
class MovingObject:
    """A textured blob with a closed-form path, so that any frame can be drawn on its own."""

    texture: np.ndarray  # (S, S, 3) uint8
    radius: float  # mean radius in pixels
    x: Wave
    y: Wave
    scale: Wave
    angle: float
    spin: float  # radians per frame
    harmonics: tuple[Harmonic, ...]
    entry_frame: int  # not drawn before this frame
    entry_shift: tuple[float, float]  # from its path to just outside the frame, in pixels

    def centre(self, frame_index: int) -> tuple[float, float]:
        """(x, y) in pixels; a late object approaches its path from outside the frame."""
        done = min(1.0, (frame_index - self.entry_frame + 1) / ENTRY_FRAMES)
        away = (1.0 - done) ** 2 if self.entry_frame else 0.0
        shift_x, shift_y = self.entry_shift
        return self.x.at(frame_index) + away * shift_x, self.y.at(frame_index) + away * shift_y

    def contour(self, frame_index: int) -> np.ndarray:
        """Radius in pixels at NUM_ANGLES angles from 0 to 2 pi, (NUM_ANGLES,) float32."""
        angles = np.arange(NUM_ANGLES) * (2 * math.pi / NUM_ANGLES)
        shape = np.ones(NUM_ANGLES)
        for harmonic in self.harmonics:
            turn = harmonic.turn + harmonic.turn_speed * frame_index
            shape += harmonic.size.at(frame_index) * np.cos(harmonic.order * angles + turn)
        return (self.radius * self.scale.at(frame_index) * shape).astype(np.float32)

    def paint(self, image: np.ndarray, labels: np.ndarray, label: int, frame_index: int) -> None:
        """Draw into `image` (H, W, 3) float32 with a soft edge and into `labels` (H, W) uint8."""
        if frame_index < self.entry_frame:
            return
        contour = self.contour(frame_index)
        centre_x, centre_y = self.centre(frame_index)
        reach = float(contour.max()) + 2
        height, width = labels.shape
        top, bottom = np.clip([centre_y - reach, centre_y + reach + 1], 0, height).astype(int)
        left, right = np.clip([centre_x - reach, centre_x + reach + 1], 0, width).astype(int)
        if top >= bottom or left >= right:
            return

        columns = np.arange(left, right, dtype=np.float32) - np.float32(centre_x)
        rows = np.arange(top, bottom, dtype=np.float32) - np.float32(centre_y)
        dx, dy = np.meshgrid(columns, rows)
        turned = self.angle + self.spin * frame_index
        cosine, sine = np.float32(math.cos(turned)), np.float32(math.sin(turned))
        own_x, own_y = dx * cosine + dy * sine, dy * cosine - dx * sine
        distance, angle = cv2.cartToPolar(own_x, own_y)
        bins = (angle * np.float32(NUM_ANGLES / (2 * math.pi))).astype(np.int32) % NUM_ANGLES
        limit = contour[bins]

        # The texture is stretched with the contour, so it deforms as the outline does.
        half = np.float32((self.texture.shape[0] - 1) / 2)
        texture = cv2.remap(
            self.texture,
            half + own_x / limit * half,
            half + own_y / limit * half,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        opacity = np.clip(limit - distance + np.float32(0.5), 0, 1)
        patch = image[top:bottom, left:right]
        patch += opacity[..., None] * (texture.astype(np.float32) - patch)
        labels[top:bottom, left:right][opacity >= 0.5] = label


@dataclass(frozen=True)
class Background:
    """A texture larger than the frame, seen by a slowly panning, turning, zooming camera."""

    texture: np.ndarray  # uint8, larger than the frame
    pan_x: Wave
    pan_y: Wave
    zoom: Wave
    angle: Wave

    def draw(self, height: int, width: int, frame_index: int) -> np.ndarray:
        """(H, W, 3) float32."""
        texture_height, texture_width = self.texture.shape[:2]
        degrees = math.degrees(self.angle.at(frame_index))
        middle = (texture_width / 2, texture_height / 2)
        matrix = cv2.getRotationMatrix2D(middle, degrees, self.zoom.at(frame_index))
        matrix[0, 2] += width / 2 - middle[0] + self.pan_x.at(frame_index)
        matrix[1, 2] += height / 2 - middle[1] + self.pan_y.at(frame_index)
        view = cv2.warpAffine(
            self.texture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101
        )
        return view.astype(np.float32)


@dataclass(frozen=True)
class Clip:
    """A clip drawn frame by frame; iterating yields (image, labels) and holds no frame.

    image: (H, W, 3) uint8 RGB; labels: (H, W) uint8, 0 background, then 1 to num_objects.
    """

    num_frames: int
    height: int
    width: int
    background: Background
    objects: tuple[MovingObject, ...]  # label 1 first, which is painted first
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
        """Draw one frame, independent of the others."""
        if not 0 <= frame_index < self.num_frames:
            raise IndexError(f"Frame {frame_index} is outside a clip of {self.num_frames} frames.")
        image = self.background.draw(self.height, self.width, frame_index)
        labels = np.zeros((self.height, self.width), np.uint8)
        for label, moving_object in enumerate(self.objects, start=1):
            moving_object.paint(image, labels, label, frame_index)
        image *= self.tint * np.float32(self.light.at(frame_index))
        return np.clip(image, 0, 255).astype(np.uint8), labels


def make_clip(
    num_frames: int,
    height: int,
    width: int,
    num_objects: int,
    seed: int | Sequence[int],
    late_objects: int = 0,
) -> Clip:
    """Lay out a clip; the same arguments always give the same frames.

    Every object covers at least 0.3 % of the first frame, except the last `late_objects` ones:
    each of those slides in from a border on a later frame, a multiple of five where the clip is
    long enough. `seed` may be a pair such as (seed, clip index).

    Raises ValueError for sizes and counts that no clip can be drawn with.
    """
    _check(num_frames, height, width, num_objects, late_objects)
    rng = np.random.default_rng(seed)
    first_hue = rng.random()
    hues = (first_hue + np.arange(num_objects + 1) / (num_objects + 1)) % 1.0
    cells, radius = _first_places(rng, num_objects, height, width)
    entries = _entry_frames(num_frames, late_objects)
    objects = []
    for index, (x, y) in enumerate(cells):
        late = index - (num_objects - late_objects)
        entry_frame = entries[late] if late >= 0 else 0
        objects.append(_make_object(rng, hues[index + 1], radius, x, y, height, width, entry_frame))
    return Clip(
        num_frames=num_frames,
        height=height,
        width=width,
        background=_make_background(rng, hues[0], height, width),
        objects=tuple(objects),
        light=Wave(1.0, rng.uniform(0.03, 0.1), rng.uniform(0, 2 * math.pi), 0.08),
        tint=rng.uniform(0.93, 1.07, 3).astype(np.float32),
    )


def make_texture(rng: np.random.Generator, size: tuple[int, int], hue: float) -> np.ndarray:
    """A texture around one hue: gradient, gratings and noise at several scales.

    size: (height, width). Returns (height, width, 3) uint8 RGB.
    """
    height, width = size
    base = colorsys.hsv_to_rgb(hue, rng.uniform(0.3, 0.75), rng.uniform(0.4, 0.75))
    texture = np.empty((height, width, 3), np.float32)
    texture[:] = np.array(base, np.float32)
    grid_y, grid_x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(max(size))
    direction = rng.uniform(0, 2 * math.pi)
    slope = (grid_x - 0.5) * math.cos(direction) + (grid_y - 0.5) * math.sin(direction)
    texture += np.float32(rng.uniform(0.1, 0.3)) * slope[..., None].astype(np.float32)
    for _ in range(3):
        direction, phase = rng.uniform(0, 2 * math.pi, 2)
        waves = 2 * math.pi * rng.uniform(3, 18)
        along = grid_x * np.float32(math.cos(direction)) + grid_y * np.float32(math.sin(direction))
        grating = np.sin(along * np.float32(waves) + np.float32(phase))
        texture += grating[..., None] * rng.uniform(-0.09, 0.09, 3).astype(np.float32)
    for cells in (4, 9, 22, 60, 160):
        if 2 * cells > min(size):
            break
        coarse = rng.standard_normal((cells, cells, 3), dtype=np.float32)
        coarse = 0.6 * coarse.mean(axis=2, keepdims=True) + 0.4 * coarse
        texture += 0.09 * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return (np.clip(texture, 0.02, 0.98) * 255).astype(np.uint8)


def _check(num_frames: int, height: int, width: int, num_objects: int, late_objects: int) -> None:
    if num_frames < 1:
        raise ValueError(f"A clip needs at least one frame; num_frames is {num_frames}.")
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"A clip needs sides of at least {MIN_SIDE}; got {height} x {width}.")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(f"A clip's sides may differ {MAX_ASPECT} times; got {height} x {width}.")
    if not 1 <= num_objects <= MAX_OBJECTS:
        raise ValueError(f"num_objects must be from 1 to {MAX_OBJECTS}; it is {num_objects}.")
    if not 0 <= late_objects < num_objects:
        raise ValueError(
            f"late_objects must be from 0 to {num_objects - 1}, so that one object is there from "
            f"the start; it is {late_objects}."
        )
    if late_objects and num_frames < 2:
        raise ValueError("Objects cannot enter later in a clip of one frame.")


def _first_places(
    rng: np.random.Generator, num_objects: int, height: int, width: int
) -> tuple[np.ndarray, float]:
    """First-frame centres (num_objects, 2) as x, y in pixels, and the largest mean radius.

    One object to a cell of a grid: that is what keeps every object visible on the first frame.
    """
    columns = math.ceil(math.sqrt(num_objects * width / height))
    rows = math.ceil(num_objects / columns)
    chosen = rng.permutation(rows * columns)[:num_objects]
    cell = np.array([width / columns, height / rows])
    places = np.stack([chosen % columns, chosen // columns], axis=1) + 0.5
    places += rng.uniform(-0.12, 0.12, places.shape)
    return places * cell, min(0.5 * float(cell.min()), 0.27 * min(height, width))


def _entry_frames(num_frames: int, late_objects: int) -> list[int]:
    """When the late objects enter: spread over the first two thirds of the clip."""
    frames = []
    for index in range(late_objects):
        wanted = (num_frames * 2 / 3) * (index + 1) / (late_objects + 1)
        rounded = max(5, 5 * round(wanted / 5))
        frames.append(rounded if rounded < num_frames else max(1, int(wanted)))
    return frames


def _path(rng: np.random.Generator, start: float, side: int) -> Wave:
    """A swing across the frame that is at `start` on frame 0 and turns before the border."""
    offset = start - side / 2
    amplitude = max(rng.uniform(0.25, 0.42) * side, abs(offset) * 1.01)
    phase = math.asin(offset / amplitude)
    if rng.random() < 0.5:
        phase = math.pi - phase
    return Wave(side / 2, amplitude, phase, rng.uniform(0.015, 0.05))


def _make_object(
    rng: np.random.Generator,
    hue: float,
    largest: float,
    x: float,
    y: float,
    height: int,
    width: int,
    entry_frame: int,
) -> MovingObject:
    radius = largest * rng.uniform(0.7, 1.0)
    harmonics = tuple(
        Harmonic(
            order=order,
            size=Wave(
                rng.uniform(0.05, 0.32) / (order - 1),
                rng.uniform(0.02, 0.08) / (order - 1),
                rng.uniform(0, 2 * math.pi),
                rng.uniform(0.08, 0.25),
            ),
            turn=rng.uniform(0, 2 * math.pi),
            turn_speed=rng.uniform(-0.06, 0.06),
        )
        for order in (2, 3, 4, 5)
    )
    path_x, path_y = _path(rng, x, width), _path(rng, y, height)
    from_left = path_x.at(entry_frame) < width / 2
    distance = path_x.at(entry_frame) if from_left else width - path_x.at(entry_frame)
    shift = distance + radius
    side = max(24, math.ceil(2.6 * radius))
    return MovingObject(
        texture=make_texture(rng, (side, side), hue),
        radius=radius,
        x=path_x,
        y=path_y,
        # The sine starts at 0, so that the first frame's sizes are the laid out ones.
        scale=Wave(1.0, rng.uniform(-0.2, 0.2), 0.0, rng.uniform(0.03, 0.1)),
        angle=rng.uniform(0, 2 * math.pi),
        spin=rng.uniform(-0.05, 0.05),
        harmonics=harmonics,
        entry_frame=entry_frame,
        entry_shift=(-shift if from_left else shift, 0.0),
    )


def _make_background(rng: np.random.Generator, hue: float, height: int, width: int) -> Background:
    def wave(mean: float, amplitude: float) -> Wave:
        return Wave(mean, amplitude, rng.uniform(0, 2 * math.pi), rng.uniform(0.01, 0.05))

    size = (math.ceil(1.4 * height), math.ceil(1.4 * width))
    return Background(
        texture=make_texture(rng, size, hue),
        pan_x=wave(0.0, rng.uniform(0.02, 0.1) * width),
        pan_y=wave(0.0, rng.uniform(0.02, 0.1) * height),
        zoom=wave(1.1, 0.08),
        angle=wave(0.0, 0.06),
    )
