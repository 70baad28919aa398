"""Masks into a session from files, and out of it as one zip file."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from annotator import edits
from annotator.clip import Clip
from annotator.coco import coco_json, import_encoder
from annotator.errors import SessionError
from annotator.export import find_encoder, make_palette, mask_pngs, write_overlay, zip_stream
from annotator.imports import label_colours, read_masks
from annotator.store import FrameState, Store
from util.masks import MaskImage, labels_of

PARTS = ("masks", "overlay", "coco")
_BLOCK = 2**20  # bytes of the overlay video that are read at once


def import_masks(clip: Clip, store: Store, path: Path) -> int:
    """Import a mask of the first frame, or a folder of masks; return the number of frames.

    Raises:
        FileNotFoundError, ValueError: see `annotator.imports.read_masks`.
    """
    num_frames = 0
    for frame, mask in read_masks(path, clip.frame_files, clip.size):
        put_masks(store, frame, mask)
        num_frames += 1
    return num_frames


def put_masks(store: Store, frame: int, mask: MaskImage) -> FrameState:
    """Replace the masks of a frame by those of a file; new labels become objects.

    Raises:
        SessionError: the mask is empty, or has the label of a locked or removed object.
    """
    present = labels_of(mask.labels)
    if not present:
        raise SessionError("The mask has no object: every pixel is background.")
    known = {known.label for known in store.objects()}
    colours = label_colours(mask)
    for label in present:
        if label not in known:
            store.add_object(label=label, colour=colours.get(label, ""))
    state = store.frame(frame)
    for label in present:
        state = edits.replace_mask(
            store, frame, state.revision, label, mask.labels == label, "drawn"
        )
    return state


def export_session(clip: Clip, store: Store, parts: Collection[str]) -> Iterator[bytes]:
    """Make a zip file of the masks, piece by piece in bounded memory.

    Args:
        parts: of PARTS. "masks": Annotations/<clip>/<frame>.png, palette PNGs of all frames with a
            state; "overlay": <clip>.mp4 of the whole clip, or <clip>.mp4.txt with the reason why it
            cannot be made; "coco": <clip>.coco.json.

    Raises:
        SessionError: no frame has a mask.
        ValueError: a library that a part needs is not installed.
    """
    frames = sorted({frame for _, frame, _ in store.states()})
    if not frames:
        raise SessionError("There is nothing to export yet: draw a mask first.")
    # Before the first byte, since errors within a stream reach no page.
    if "overlay" in parts:
        find_encoder()
    if "coco" in parts:
        import_encoder()
    return zip_stream(_members(clip, store, parts, frames))


def _members(
    clip: Clip, store: Store, parts: Collection[str], frames: list[int]
) -> Iterator[tuple[str, bytes | Iterator[bytes]]]:
    objects = store.objects()
    palette = make_palette({known.label: known.colour for known in objects})
    if "masks" in parts:
        named = ((clip.frame_names[frame], store.labels(frame)) for frame in frames)
        for name, content in mask_pngs(named, palette):
            yield f"Annotations/{clip.name}/{name}.png", content
    if "coco" in parts:
        files = [file.name for file in clip.frame_files]
        names = {known.label: known.name for known in objects}
        numbered = ((frame, store.labels(frame)) for frame in frames)
        yield f"{clip.name}.coco.json", coco_json(files, clip.size, names, numbered)
    if "overlay" in parts:
        with tempfile.TemporaryDirectory(dir=store.scratch) as folder:
            path = Path(folder, "overlay.mp4")
            try:
                write_overlay(path, _drawn(clip.reopen(), store), clip.size, clip.fps, palette)
            except (ValueError, OSError) as error:  # a frame cannot be read, or the disk is full
                # The answer has begun, so this is no error page: the rest of the zip is complete.
                yield f"{clip.name}.mp4.txt", f"There is no overlay video. {error}\n".encode()
                return
            yield f"{clip.name}.mp4", _read(path)


def _drawn(clip: Clip, store: Store) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield images and labels of all frames."""
    return ((clip[frame], store.labels(frame)) for frame in range(len(clip)))


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
