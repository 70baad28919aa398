"""A video to segment: its frames, decoded one at a time, and its annotations.

The readers (davis, youtube, generic) return `Video` objects.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from util.frames import Frame
from util.images import image_size, read_image, resize_image, working_size
from util.masks import colour_palette, labels_of, read_mask, resize_labels

# Label of the object in binary masks, as in DAVIS 2016.
BINARY_LABEL = 255
MAX_PROBLEMS_SHOWN = 10


class ProblemsError(ValueError):
    """All problems of an input in one error, so that the user can correct them together."""

    def __init__(self, problems: Sequence[str]) -> None:
        assert problems
        self.problems = list(problems)
        super().__init__(self._message())

    def _message(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        lines = [f"{len(self.problems)} problems were found:", *self.problems[:MAX_PROBLEMS_SHOWN]]
        num_more = len(self.problems) - MAX_PROBLEMS_SHOWN
        if num_more > 0:
            lines.append(f"and {num_more} more")
        return "\n- ".join(lines)


class Video:
    """The frames of one video and the annotations of its objects.

    `video[i]` decodes frame i. It keeps no state and may be called from any thread. An object is
    annotated by the first mask that contains it. Later masks of the same label are ignored, unless
    the video takes corrections.

    Attributes:
        name: folder name of the video.
        size: (H, W) of the frames on disk and of the written masks.
        working_size: (h, w) of the decoded frames.
        labels: labels of all objects, ascending.
        palette: 768 bytes from the first mask with a palette; None if all masks are grey.
        frame_names: file stems in order.
        annotated_labels: labels taken from each mask, by index of its frame; never an empty list.
        first_frame: index of the first annotation. Frames before it have empty masks.
        required_frames: indices of the frames whose masks the output needs.
        fps: frames per second of the overlay video.
    """

    fps = 24.0

    def __init__(
        self,
        name: str,
        frames: Sequence[Path],
        masks: Mapping[int, Path],
        required: Collection[str] | None = None,
        shorter_side: int | None = None,
        is_binary: bool = False,
        takes_corrections: bool = False,
    ) -> None:
        """Check names and masks; frames are checked when they are decoded.

        Args:
            name: folder name of the video.
            frames: image files in order, at least one.
            masks: mask files by frame index.
            required: stems of the frames whose masks the output needs; None requires all.
            shorter_side: shorter side of the working size in pixels; None keeps the original size.
            is_binary: all non-zero values of a mask belong to one object, labelled BINARY_LABEL.
            takes_corrections: take all objects of every mask instead of new objects only. Masks
                without objects, which predictions may have, are left out if another mask has some.

        Raises:
            ValueError: there is no mask, a mask is invalid or has another size than the frames, two
                frames have the same name, a required frame is missing, or the first frame cannot be
                read.
        """
        self.name = name
        self.frame_names = [path.stem for path in frames]
        self._frames = list(frames)
        self._masks = dict(masks)
        self._is_binary = is_binary
        self._takes_corrections = takes_corrections
        if not masks:
            raise ValueError(
                f"video {name} has no mask: add one of the frame on which its objects first appear"
            )
        self._check_names(required)
        self.required_frames = frozenset(
            index
            for index, frame_name in enumerate(self.frame_names)
            if required is None or frame_name in required
        )
        self.size = self._measure()
        self.working_size = working_size(self.size, shorter_side)
        self._colours = colour_palette(self._masks.values())
        self.annotated_labels, self.palette = self._scan_masks()
        self.labels = sorted({label for new in self.annotated_labels.values() for label in new})
        self.first_frame = min(self.annotated_labels)

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Frame:
        """Decode one frame.

        Raises:
            IndexError: `index` is not in [0, len).
            ValueError: the file is damaged, or its size differs from the first frame's.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"video {self.name} has {len(self)} frames, there is no frame {index}")
        image = self._decode(index)
        height, width = image.shape[:2]
        if (height, width) != self.size:
            raise ValueError(
                f"frame {self._frames[index]} is {width}x{height} (width x height), but the first "
                f"frame {self._frames[0].name} is {self.size[1]}x{self.size[0]}: "
                "save all frames of a video at the same size"
            )
        return Frame(
            index=index,
            name=self.frame_names[index],
            image=resize_image(image, self.working_size),
            annotation=self._annotation(index),
            is_required=index in self.required_frames,
        )

    @property
    def source(self) -> str:
        """Absolute path of the frames: a folder or a video file."""
        return str(self._frames[0].parent.absolute())

    def _measure(self) -> tuple[int, int]:
        """Size (H, W) of the frames."""
        return image_size(self._frames[0])

    def _decode(self, index: int) -> np.ndarray:
        """Decode a frame at its original size, (H, W, 3) uint8 RGB."""
        return read_image(self._frames[index])

    def _list_frames(self) -> Iterator[str]:
        """Lines that identify the frames for `digest`."""
        # A link to a missing file is reported when the frame is decoded.
        sizes = (path.stat().st_size if path.exists() else None for path in self._frames)
        return (f"{path.name} {size}" for path, size in zip(self._frames, sizes, strict=True))

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of frame names, frame file sizes, mask files and the working size.

        It changes when frames are added, removed or replaced, or when masks change.
        """
        digest = hashlib.sha256()
        for line in self._list_frames():
            digest.update(f"{line}\n".encode(errors="surrogateescape"))
        for index, path in sorted(self._masks.items()):
            digest.update(f"{index} {path.name}\n".encode(errors="surrogateescape"))
            digest.update(path.read_bytes())
        digest.update(f"{self.working_size}".encode())
        if sum(map(len, self.annotated_labels.values())) > len(self.labels):
            digest.update(b"corrections")
        return digest.hexdigest()

    def _check_names(self, required: Collection[str] | None) -> None:
        folder = self._frames[0].parent
        counts = Counter(self.frame_names)
        problems = [
            f"frame {name} exists {count} times in {folder}, with different file types: keep one"
            for name, count in counts.items()
            if count > 1
        ]
        problems += [
            f"frame {name} of video {self.name} is missing in {folder}, but the output needs its "
            "mask: copy or extract the frames again"
            for name in sorted(required or ())
            if name not in counts
        ]
        if problems:
            raise ProblemsError(problems)

    def _scan_masks(self) -> tuple[dict[int, list[int]], bytes | None]:
        """Find the labels taken from each mask, and the palette; reads every mask once."""
        annotated_labels: dict[int, list[int]] = {}
        palette: bytes | None = None
        known: set[int] = set()
        problems = []
        for index in sorted(self._masks):
            try:
                labels, mask_palette = self._read_labels(index)
            except ValueError as error:
                problems.append(str(error))
                continue
            palette = palette or mask_palette
            new = [label for label in labels_of(labels) if label not in known]
            if not self._takes_corrections:
                known.update(new)
            if new:
                annotated_labels[index] = new
        if not annotated_labels and not problems:
            problems.append(f"no mask of video {self.name} has an object: draw one")
        if problems:
            raise ProblemsError(problems)
        return annotated_labels, palette

    def _read_labels(self, index: int) -> tuple[np.ndarray, bytes | None]:
        allow_empty = self._takes_corrections and len(self._masks) > 1
        mask = read_mask(self._masks[index], self.size, allow_empty, self._colours)
        if self._is_binary:
            return (mask.labels > 0).astype(np.uint8) * np.uint8(BINARY_LABEL), None
        return mask.labels, mask.palette

    def _annotation(self, index: int) -> np.ndarray | None:
        annotated = self.annotated_labels.get(index)
        if annotated is None:
            return None
        labels, _ = self._read_labels(index)
        table = np.zeros(256, np.uint8)  # other labels become background
        table[annotated] = annotated
        return resize_labels(table[labels], self.working_size)


def load_videos(makers: Iterable[Callable[[], Video]]) -> list[Video]:
    """Call all makers, and collect the problems of all videos.

    Raises:
        ProblemsError: videos are invalid; the message lists ten problems and counts the others.
    """
    results = make_videos(makers)
    errors = [result for result in results if isinstance(result, ProblemsError)]
    if errors:
        raise ProblemsError([problem for error in errors for problem in error.problems])
    return [result for result in results if isinstance(result, Video)]


def make_videos(makers: Iterable[Callable[[], Video]]) -> list[Video | ProblemsError]:
    """Call all makers in a thread pool; return a video or its problems for each of them."""

    def make(maker: Callable[[], Video]) -> Video | ProblemsError:
        try:
            return maker()
        except ProblemsError as error:
            return error
        except (ValueError, OSError) as error:
            return ProblemsError([str(error)])

    with ThreadPoolExecutor() as pool:
        return list(pool.map(make, makers))


def masks_by_frame(frames: Sequence[Path], masks: Iterable[Path]) -> dict[int, Path]:
    """Match mask files to frames by their stems.

    Returns:
        Mask files by frame index.

    Raises:
        ValueError: a mask matches no frame, or a frame has two masks.
    """
    indices = {path.stem: index for index, path in enumerate(frames)}
    by_frame: dict[int, Path] = {}
    problems = []
    for path in masks:
        index = indices.get(path.stem)
        if index is None:
            problems.append(
                f"mask {path} belongs to no frame: there is no frame {path.stem} in "
                f"{frames[0].parent}; name the mask like its frame, or remove it"
            )
        elif index in by_frame:
            problems.append(
                f"frame {path.stem} has two masks, {path} and {by_frame[index].name}: keep one"
            )
        else:
            by_frame[index] = path
    if problems:
        raise ProblemsError(problems)
    return by_frame


def check_numbering(frames: Sequence[Path], step: int | None = None) -> None:
    """Check that the numbers of frame files have no gaps.

    The number of a frame is the last number in its file stem. Names that differ in more than the
    number are not checked.

    Args:
        frames: frame files in order.
        step: expected difference of consecutive numbers. None takes the most frequent difference,
            the smaller one in a tie; if it occurs less than half of the time, as with time stamps,
            the names are not checked.

    Raises:
        ValueError: frames are missing; the message names them and their neighbours.
    """
    matches = [re.fullmatch(r"(.*?)(\d+)(\D*)", path.stem) for path in frames]
    if len({match and (match[1], match[3]) for match in matches}) != 1 or None in matches:
        return
    digits = [match[2] for match in matches if match is not None]
    differences = [int(after) - int(before) for before, after in itertools.pairwise(digits)]
    if not differences:
        return
    if step is None:
        counts = Counter(differences)
        step = min(counts, key=lambda difference: (-counts[difference], difference))
        if step < 1 or 2 * counts[step] < len(differences):
            return
    problems = []
    for index, difference in enumerate(differences):
        if difference > step:
            before, after = frames[index], frames[index + 1]
            missing = range(int(digits[index]) + step, int(digits[index + 1]), step)
            names = [
                _renumbered(before, digits[index], number) for number in (missing[0], missing[-1])
            ]
            subject = f"frame {names[0]} is" if len(missing) == 1 else "frames {} to {} are"
            problems.append(
                f"{subject.format(*names)} missing in {before.parent} between {before.name} and "
                f"{after.name}: copy or extract the frames again"
            )
    if problems:
        raise ProblemsError(problems)


def _renumbered(path: Path, digits: str, number: int) -> str:
    head, _, tail = path.name.rpartition(digits)
    return f"{head}{number:0{len(digits)}d}{tail}"
