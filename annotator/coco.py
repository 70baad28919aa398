"""Export of masks as COCO annotations with run-length encoding (RLE)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from util.masks import labels_of


def import_encoder() -> Callable[[np.ndarray], dict[str, Any]]:
    """Return a function that encodes a mask (H, W) bool as {"size": [H, W], "counts": text}.

    Raises:
        ValueError: pycocotools is missing.
    """
    try:
        from pycocotools import mask as coco_mask
    except ImportError as error:
        raise ValueError(
            "COCO files need pycocotools: pip install -r requirements-annotator.txt, or export "
            "masks only."
        ) from error

    def encode(mask: np.ndarray) -> dict[str, Any]:
        # pycocotools takes columns of pixels.
        encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}

    return encode


def coco_json(
    file_names: Sequence[str],
    size: tuple[int, int],
    objects: Mapping[int, str],
    frames: Iterable[tuple[int, np.ndarray]],
) -> Iterator[bytes]:
    """Yield one COCO file piece by piece, with one annotation per object and frame.

    Every object is a category with its label as id, since COCO has no other names; `track_id` is
    the label too. `image_id` is the frame index. Annotation ids start at 1, because pycocotools
    treats 0 as "no match".

    Args:
        file_names: image file of each frame.
        size: (H, W) of all frames.
        objects: names by label.
        frames: frame indices and labels (H, W) uint8, from which masks are encoded one at a time.

    Raises:
        ValueError: pycocotools is missing, a mask has another size than `size`, or it has a label
            without a name.
    """
    encode = import_encoder()
    height, width = size
    images = [
        {"id": index, "file_name": name, "height": height, "width": width}
        for index, name in enumerate(file_names)
    ]
    categories = [{"id": label, "name": name} for label, name in sorted(objects.items())]
    head = {"images": images, "categories": categories}
    yield json.dumps(head)[:-1].encode() + b', "annotations": ['
    number = 0
    for index, labels in frames:
        if labels.shape != size:
            raise ValueError(
                f"The mask of frame {index} is {labels.shape[1]}x{labels.shape[0]} (width x "
                f"height), but the video is {width}x{height}."
            )
        for label in labels_of(labels):
            if label not in objects:
                raise ValueError(f"Label {label} of frame {index} has no name.")
            number += 1
            mask = labels == label
            annotation = {
                "id": number,
                "image_id": index,
                "category_id": label,
                "track_id": label,
                "segmentation": encode(mask),
                "area": int(np.count_nonzero(mask)),
                "bbox": _bounding_box(mask),
                "iscrowd": 0,
            }
            yield (b",\n" if number > 1 else b"\n") + json.dumps(annotation).encode()
    yield b"\n]}\n"


def _bounding_box(mask: np.ndarray) -> list[int]:
    """Left, top, width and height of a mask (H, W) bool with at least one pixel."""
    return list(cv2.boundingRect(mask.view(np.uint8)))
