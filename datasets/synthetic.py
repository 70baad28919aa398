"""Synthetic video clips with exact masks: textured objects that move, deform and occlude."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import cv2
import numpy as np

from datasets.synthetic_scene import Background, Clip, Harmonic, MovingObject, Wave

MAX_OBJECTS = 50
MIN_SIDE = 32
MAX_ASPECT = 4  # narrower frames have no space for objects of 0.3 % of the frame


def make_clip(
    num_frames: int,
    height: int,
    width: int,
    num_objects: int,
    seed: int | Sequence[int],
    late_objects: int = 0,
) -> Clip:
    """Make a clip; equal arguments give equal frames.

    Every object covers at least 0.3 % of the first frame, except late objects.

    Args:
        num_frames: frames of the clip.
        height, width: size in pixels, at least 32; the aspect ratio is at most 4.
        num_objects: objects, 1 to 50.
        seed: one seed or several, for example (seed, clip index).
        late_objects: how many of the last objects enter from a border on a later frame. The entry
            frame is a multiple of five if the clip is long enough.

    Raises:
        ValueError: an argument is out of range.
    """
    _check(num_frames, height, width, num_objects, late_objects)
    rng = np.random.default_rng(seed)
    first_hue = rng.random()
    hues = (first_hue + np.arange(num_objects + 1) / (num_objects + 1)) % 1.0
    centres, radius = _initial_centres(rng, num_objects, height, width)
    entries = _entry_frames(num_frames, late_objects)
    objects = []
    for index, (x, y) in enumerate(centres):
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
    """Make a texture around one hue: a gradient, gratings and noise at several scales.

    Args:
        rng: generator of all draws.
        size: (height, width) in pixels.
        hue: hue in [0, 1].

    Returns:
        (height, width, 3) uint8 RGB.
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
        raise ValueError(
            f"A clip needs a height and width of at least {MIN_SIDE} pixels; they are {height} and "
            f"{width}."
        )
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(
            f"The longer side of a clip must be at most {MAX_ASPECT} times the shorter side; "
            f"height and width are {height} and {width}."
        )
    if not 1 <= num_objects <= MAX_OBJECTS:
        raise ValueError(f"num_objects must be from 1 to {MAX_OBJECTS}; it is {num_objects}.")
    if not 0 <= late_objects < num_objects:
        raise ValueError(
            f"late_objects must be from 0 to {num_objects - 1}, since the first frame needs an "
            f"object; it is {late_objects}."
        )
    if late_objects and num_frames < 2:
        raise ValueError("A clip of one frame cannot have late objects; set late_objects to 0.")


def _initial_centres(
    rng: np.random.Generator, num_objects: int, height: int, width: int
) -> tuple[np.ndarray, float]:
    """Draw the centres on the first frame, one object per grid cell, so that all are visible.

    Returns:
        Centres (num_objects, 2) as x, y in pixels, and the largest mean radius in pixels.
    """
    columns = math.ceil(math.sqrt(num_objects * width / height))
    rows = math.ceil(num_objects / columns)
    chosen = rng.permutation(rows * columns)[:num_objects]
    cell = np.array([width / columns, height / rows])
    centres = np.stack([chosen % columns, chosen // columns], axis=1) + 0.5  # in cells
    centres += rng.uniform(-0.12, 0.12, centres.shape)
    return centres * cell, min(0.5 * float(cell.min()), 0.27 * min(height, width))


def _entry_frames(num_frames: int, late_objects: int) -> list[int]:
    """Entry frames of the late objects, spread over the first two thirds of the clip."""
    frames = []
    for index in range(late_objects):
        exact = (num_frames * 2 / 3) * (index + 1) / (late_objects + 1)
        rounded = max(5, 5 * round(exact / 5))
        frames.append(rounded if rounded < num_frames else max(1, int(exact)))
    return frames


def _path(rng: np.random.Generator, start: float, side: int) -> Wave:
    """Draw an oscillation along one side that starts at `start` and stays inside the image."""
    offset = start - side / 2
    amplitude = max(rng.uniform(0.25, 0.42) * side, abs(offset) * 1.01)
    phase = math.asin(offset / amplitude)
    if rng.random() < 0.5:
        phase = math.pi - phase
    return Wave(side / 2, amplitude, phase, rng.uniform(0.015, 0.05))


def _make_object(
    rng: np.random.Generator,
    hue: float,
    max_radius: float,
    x: float,
    y: float,
    height: int,
    width: int,
    entry_frame: int,
) -> MovingObject:
    radius = max_radius * rng.uniform(0.7, 1.0)
    harmonics = tuple(
        Harmonic(
            order=order,
            size=Wave(
                rng.uniform(0.05, 0.32) / (order - 1),
                rng.uniform(0.02, 0.08) / (order - 1),
                rng.uniform(0, 2 * math.pi),
                rng.uniform(0.08, 0.25),
            ),
            phase=rng.uniform(0, 2 * math.pi),
            phase_speed=rng.uniform(-0.06, 0.06),
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
        # The phase is 0, so the scale is 1 on the first frame.
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
