"""Submissions to a benchmark's server: zip files of masks, and checks of what it would reject.

YouTube-VOS expects Annotations/<video>/<frame>.png for the frames in meta.json, DAVIS
<sequence>/<frame>.png for all frames. Masks are palette PNGs of the frames' size, and their indices
are objects of the video.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import progressbar
from PIL import Image

from datasets.archives import ARCHIVE_ERRORS
from datasets.davis import davis_2017
from datasets.video import Video
from datasets.youtube import youtube
from util.files import atomic_path

_MAX_SHOWN = 20  # problems in a message


@dataclass(frozen=True)
class Submission:
    """Masks that a server expects.

    Args:
        root: folder in the zip file that contains all videos; "" if there is none.
        videos: name -> video.
    """

    root: str
    videos: Mapping[str, Video]

    @classmethod
    def of_youtube(cls, yv_path: Path, split: str = "valid") -> Submission:
        """Masks that the server of YouTube-VOS expects. Errors are those of `youtube`."""
        return cls("Annotations", {v.name: v for v in youtube(yv_path, split, None)})

    @classmethod
    def of_davis(cls, davis_path: Path, split: str = "test-dev") -> Submission:
        """Masks that the server of DAVIS 2017 expects. Errors are those of `davis_2017`."""
        return cls("", {v.name: v for v in davis_2017(davis_path, split)})

    def expected(self) -> dict[str, Video]:
        """Map the name of each file that the zip file must contain to its video."""
        return {
            str(PurePosixPath(self.root, video.name, f"{video.frame_names[index]}.png")): video
            for video in self.videos.values()
            for index in sorted(video.required_frames)
        }


def list_problems(
    names: Sequence[str], read: Callable[[str], bytes], submission: Submission
) -> list[str]:
    """List what a server would reject in a zip file, as sentences.

    Args:
        names: names of all files in the zip file.
        read: returns the content of a file.
    """
    expected = submission.expected()
    present = {*names}
    problems = [
        f"{name} is not expected: {_explain(name, submission)}"
        for name in sorted(present - {*expected})
    ]
    if len(present) < len(names):
        repeated = {name for name in names if names.count(name) > 1}
        problems += [f"{name} is in the zip more than once: keep one" for name in sorted(repeated)]
    missing: dict[str, list[str]] = {}
    for name, video in expected.items():
        if name not in present:
            missing.setdefault(video.name, []).append(PurePosixPath(name).name)
    for video_name, files in missing.items():
        total = sum(video.name == video_name for video in expected.values())
        if len(files) == total:
            problems.append(f"video {video_name} is missing: segment it")
        else:
            more = f" and {len(files) - 3} more" if len(files) > 3 else ""
            problems.append(
                f"video {video_name} lacks {', '.join(files[:3])}{more}: segment it again"
            )
    for name in progressbar.progressbar(sorted(present & {*expected})):
        problem = _check_mask(read(name), expected[name])
        if problem:
            problems.append(f"{name} {problem}")
    return problems


def _explain(name: str, submission: Submission) -> str:
    """Explain why a file is not expected."""
    root = submission.root
    parts = PurePosixPath(name).parts
    if parts[-1].startswith(".") or "__MACOSX" in parts:
        return "remove hidden files of the operating system"
    if not name.endswith(".png"):
        return "only PNG masks are allowed"
    if root and parts[0] != root:
        return f"all videos must be in the folder {root}/"
    inside = parts[1:] if root else parts
    if len(inside) != 2:
        return "masks must be <video>/<frame>.png, without other folders"
    if inside[0] not in submission.videos:
        return f"the benchmark has no video {inside[0]}"
    return f"{inside[0]} needs no mask of this frame, or the frame's name has other digits"


def _check_mask(content: bytes, video: Video) -> str:
    """Describe the first problem of a mask as the end of a sentence; empty if there is none."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            if image.format != "PNG":
                return f"is a {image.format} file with the suffix .png: save it as PNG"
            if image.mode != "P":
                return f"has mode {image.mode}, not a palette: save it as a palette PNG"
            height, width = video.size
            if image.size != (width, height):
                return (
                    f"has {image.size[0]}x{image.size[1]} pixels, but the frames of {video.name} "
                    f"have {width}x{height}: resize it by nearest neighbour"
                )
            labels = {int(label) for label in np.unique(np.asarray(image))} - {0}
    except (OSError, SyntaxError, ValueError) as error:
        return f"cannot be read ({error}): write it again"
    unknown = sorted(labels - {*video.labels})
    if unknown:
        shown = ", ".join(map(str, unknown[:5]))
        return (
            f"contains the labels {shown}, but the objects of {video.name} are {video.labels}: "
            "write only these labels"
        )
    return ""


def write_zip(submission: Submission, results: Path, output: Path) -> None:
    """Check a folder of masks, <video>/<frame>.png, and write its zip file.

    Raises:
        ValueError: a server would reject the masks; nothing is written.
    """
    files = {
        name: path
        for name in submission.expected()
        if (path := results / PurePosixPath(name).relative_to(submission.root)).is_file()
    }
    problems = list_problems([*files], lambda name: files[name].read_bytes(), submission)
    _raise_problems(problems, results)
    with atomic_path(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, path in files.items():  # stored, since PNGs are compressed already
            archive.write(path, name, zipfile.ZIP_STORED)


def check_zip(submission: Submission, path: Path) -> None:
    """Check a zip file.

    Raises:
        ValueError: a server would reject it; the message lists the problems.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            if damaged:
                raise ValueError(f"{path} is damaged at {damaged}: pack it again")
            names = [name for name in archive.namelist() if not name.endswith("/")]
            _raise_problems(list_problems(names, archive.read, submission), path)
    except ARCHIVE_ERRORS as error:
        raise ValueError(f"{path} cannot be read as a zip file ({error}): pack it again") from error


def _raise_problems(problems: list[str], source: Path) -> None:
    if problems:
        num_more = len(problems) - _MAX_SHOWN
        more = [f"and {num_more} more"] if num_more > 0 else []
        lines = [f"{source} would be rejected:", *problems[:_MAX_SHOWN], *more]
        raise ValueError("\n- ".join(lines))
