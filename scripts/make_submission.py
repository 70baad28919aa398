"""Pack masks for a benchmark's server, and say beforehand what it would reject.

    python scripts/make_submission.py youtube --results_path out/yv19 --output yv19.zip
    python scripts/make_submission.py davis --split test-dev --results_path out/td --output td.zip
    python scripts/make_submission.py youtube --check yv19.zip

YouTube-VOS wants Annotations/<video>/<frame>.png of the frames that meta.json names, DAVIS
<sequence>/<frame>.png of every frame; palette PNGs of the frames' size whose indices are objects of
the video. A zip is checked, file by file, before it gets its name.
"""

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import progressbar
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.davis import davis_2017
from datasets.video import Video
from datasets.youtube import youtube
from util.files import atomic_path

MOST_SHOWN = 20


@dataclass(frozen=True)
class Benchmark:
    """What a server expects.

    Args:
        root: folder in the zip that all videos stand in; "" for none.
        videos: by name.
    """

    root: str
    videos: Mapping[str, Video]

    def expected(self) -> dict[str, Video]:
        """Video by the name of each file that the zip must hold."""
        return {
            str(PurePosixPath(self.root, video.name, f"{video.frame_names[index]}.png")): video
            for video in self.videos.values()
            for index in sorted(video.required_frames)
        }


def find_problems(
    names: list[str], read: Callable[[str], bytes], benchmark: Benchmark
) -> list[str]:
    """Sentences on the files of a zip, or of a folder laid out as one: what a server would reject.

    Args:
        names: of all files, as in the zip; read: the bytes of one.
    """
    expected = benchmark.expected()
    problems = []
    for name in sorted({*names} - {*expected}):
        problems.append(f"{name} is not wanted: {_guess(name, benchmark)}")
    twice = {name for name in names if names.count(name) > 1} if len({*names}) < len(names) else ()
    problems += [f"{name} is in the zip more than once: keep one" for name in sorted(twice)]
    present = {*names}
    missing: dict[str, list[str]] = {}
    for name, video in expected.items():
        if name not in present:
            missing.setdefault(video.name, []).append(PurePosixPath(name).name)
    for video_name, files in missing.items():
        total = sum(video.name == video_name for video in expected.values())
        if len(files) == total:
            problems.append(f"video {video_name} is missing altogether: segment it")
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


def _guess(name: str, benchmark: Benchmark) -> str:
    parts = PurePosixPath(name).parts
    if parts[-1].startswith(".") or "__MACOSX" in parts:
        return "a hidden file of some system; leave it out"
    if not name.endswith(".png"):
        return "only PNG masks belong here"
    inside = parts[1:] if benchmark.root and parts[0] == benchmark.root else parts
    if benchmark.root and parts[0] != benchmark.root:
        return f"all videos stand in a folder {benchmark.root}/"
    if len(inside) != 2:
        return "masks stand in <video>/<frame>.png, no deeper and no higher"
    if inside[0] not in benchmark.videos:
        return f"the benchmark has no video {inside[0]}"
    return f"no mask is wanted of that frame of {inside[0]}; or its name has other digits"


def _check_mask(content: bytes, video: Video) -> str:
    """What is wrong with a mask, as the rest of a sentence; empty where it is fine."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            if image.format != "PNG":
                return f"is a {image.format} under the name of a PNG: save it as one"
            if image.mode != "P":
                return f"is of mode {image.mode}, not a palette PNG: save it with a palette"
            height, width = video.size
            if image.size != (width, height):
                return (
                    f"is {image.size[0]}x{image.size[1]}, but the frames of {video.name} are "
                    f"{width}x{height}: resize it with nearest neighbours"
                )
            found = {int(label) for label in np.unique(np.asarray(image))} - {0}
    except (OSError, SyntaxError, ValueError) as error:
        return f"cannot be read ({error}): write it again"
    unknown = sorted(found - {*video.labels})
    if unknown:
        shown = ", ".join(map(str, unknown[:5]))
        return f"holds the labels {shown}, but {video.name} has the objects {video.labels}"
    return ""


def pack(benchmark: Benchmark, results: Path, output: Path) -> None:
    """Write the zip of a folder of masks, checked.

    Raises:
        ValueError: what a server would reject; nothing is written.
    """
    expected = benchmark.expected()
    lacking = [
        n
        for n in expected
        if not (results / PurePosixPath(n).relative_to(benchmark.root)).is_file()
    ]
    present = [name for name in expected if name not in {*lacking}]
    files = {name: results / PurePosixPath(name).relative_to(benchmark.root) for name in present}
    _refuse(find_problems(present, lambda name: files[name].read_bytes(), benchmark), results)
    with atomic_path(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in present:  # PNGs do not shrink any more
            archive.write(files[name], name, zipfile.ZIP_STORED)


def check(benchmark: Benchmark, path: Path) -> None:
    """Refuse a zip that a server would reject; raises ValueError with all reasons."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            if damaged:
                raise ValueError(f"{path} is damaged at {damaged}: pack it again")
            names = [name for name in archive.namelist() if not name.endswith("/")]
            _refuse(find_problems(names, archive.read, benchmark), path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no zip ({error}): pack it again") from error


def _refuse(problems: list[str], source: Path) -> None:
    if problems:
        shown = problems[:MOST_SHOWN]
        more = [f"and {len(problems) - MOST_SHOWN} more"] if len(problems) > MOST_SHOWN else []
        raise ValueError("\n- ".join([f"{source} would be rejected:", *shown, *more]))


def main(argv: list[str] | None = None) -> int:
    """Pack or check; 2 where a server would reject it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", choices=("youtube", "davis"))
    parser.add_argument("--yv_path", type=Path, default=Path("data/YouTube"))
    parser.add_argument("--davis_path", type=Path, default=Path("data/DAVIS/2017"))
    parser.add_argument("--split", help="valid (YouTube-VOS) or test-dev (DAVIS) by default")
    parser.add_argument("--results_path", type=Path, help="folder of an eval script's masks")
    parser.add_argument("--output", type=Path, help="the zip to write")
    parser.add_argument("--check", type=Path, metavar="ZIP", help="only check this one")
    arguments = parser.parse_args(argv)
    if (arguments.check is None) == (arguments.results_path is None or arguments.output is None):
        parser.error("give --results_path and --output, or --check")
    try:
        if arguments.benchmark == "youtube":
            videos = youtube(arguments.yv_path, arguments.split or "valid", None)
        else:
            videos = davis_2017(arguments.davis_path, arguments.split or "test-dev")
        root = "Annotations" if arguments.benchmark == "youtube" else ""
        benchmark = Benchmark(root, {video.name: video for video in videos})
        if arguments.check is not None:
            check(benchmark, arguments.check)
        else:
            pack(benchmark, arguments.results_path, arguments.output)
            check(benchmark, arguments.output)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    path = arguments.check or arguments.output
    print(f"{path}: {len(benchmark.expected())} masks of {len(videos)} videos, nothing wrong.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
