from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.davis import davis_2016, davis_2017
from datasets.generic import generic, generic_video
from datasets.video import ProblemsError, Video, check_numbering
from datasets.youtube import youtube
from util.images import list_frames
from util.masks import DAVIS_PALETTE, labels_of, write_mask

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "DAVIS"
SIZE = (24, 36)


def make_frames(folder: Path, names: list[str], size: tuple[int, int] = SIZE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        pixels = np.full((*size, 3), index * 10 % 256, np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def mask_of(*values: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Squares of 6x6, one for each value; where a value stands depends on its place only."""
    labels = np.zeros(size, np.uint8)
    for index, value in enumerate(values):
        labels[4:10, 2 + 8 * index : 8 + 8 * index] = value
    return labels


def numbered(numbers: range, suffix: str = "jpg") -> list[str]:
    return [f"{number:05d}.{suffix}" for number in numbers]


def make_video(
    root: Path, name: str, masks: dict[str, np.ndarray], num_frames: int = 4
) -> tuple[Path, Path]:
    frames = make_frames(root / "JPEGImages" / name, numbered(range(num_frames)))
    for stem, labels in masks.items():
        write_mask(root / "Annotations" / name / f"{stem}.png", labels, DAVIS_PALETTE)
    return frames, root / "Annotations" / name


def make_davis(base: Path, imset: str, sequences: dict[str, np.ndarray]) -> None:
    for name, labels in sequences.items():
        make_frames(base / "JPEGImages" / "480p" / name, numbered(range(3)))
        for frame in range(3):
            path = base / "Annotations" / "480p" / name / f"{frame:05d}.png"
            write_mask(path, labels, DAVIS_PALETTE)
    list_path = base / "ImageSets" / imset
    list_path.parent.mkdir(parents=True, exist_ok=True)
    list_path.write_text("\n".join(sequences) + "\n")


def make_youtube(root: Path) -> None:
    make_frames(
        root / "all_frames" / "valid_all_frames" / "JPEGImages" / "a1",
        numbered(range(10, 15)) + numbered(range(20, 22)),
    )
    for stem, labels in (("00010", mask_of(2)), ("00014", mask_of(2, 5))):
        write_mask(root / "valid" / "Annotations" / "a1" / f"{stem}.png", labels, DAVIS_PALETTE)
    objects = {
        "2": {"category": "cat", "frames": ["00010", "00014", "00020"]},
        "5": {"category": "dog", "frames": ["00014", "00021"]},
    }
    write_meta(root, {"a1": {"objects": objects}})


def write_meta(root: Path, videos: object) -> None:
    (root / "valid" / "meta.json").write_text(json.dumps({"videos": videos}))


# The video


def test_frames_are_given_with_the_objects_that_first_appear(tmp_path: Path) -> None:
    masks = {"00001": mask_of(7, 200), "00002": mask_of(7, 200, 3), "00003": mask_of(200)}
    video = generic_video(*make_video(tmp_path, "cat", masks))
    assert (video.name, len(video), video.size, video.working_size) == ("cat", 4, SIZE, SIZE)
    assert video.labels == [3, 7, 200]
    assert video.palette == DAVIS_PALETTE
    assert video.frame_names == ["00000", "00001", "00002", "00003"]
    assert video.first_frame == 1
    assert video.annotated_labels == {1: [7, 200], 2: [3]}

    frames = list(video)
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert [frame.name for frame in frames] == video.frame_names
    assert all(frame.is_required for frame in frames)
    assert [int(frame.image.mean()) for frame in frames] == [0, 10, 20, 30]
    new = [frame.annotation for frame in frames]
    assert new[0] is None
    assert new[3] is None
    assert new[1] is not None
    np.testing.assert_array_equal(new[1], mask_of(7, 200))
    assert new[2] is not None
    np.testing.assert_array_equal(new[2], mask_of(0, 0, 3))


def test_working_size(tmp_path: Path) -> None:
    video = generic_video(*make_video(tmp_path, "v", {"00000": mask_of(1, 9)}), shorter_side=12)
    assert (video.size, video.working_size) == (SIZE, (12, 18))
    frame = video[0]
    assert frame.image.shape == (12, 18, 3)
    assert frame.annotation is not None
    assert frame.annotation.shape == (12, 18)
    assert labels_of(frame.annotation) == [1, 9]


def test_index_out_of_range(tmp_path: Path) -> None:
    video = generic_video(*make_video(tmp_path, "v", {"00000": mask_of(1)}))
    for index in (4, -1):
        with pytest.raises(IndexError, match="video v has 4 frames, there is no frame"):
            video[index]


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    video = generic_video(*make_video(tmp_path, "v", {"00000": mask_of(1)}, num_frames=1))
    assert len(video) == 1
    assert video[0].is_required
    assert video[0].annotation is not None


def test_frames_are_checked_when_decoded(tmp_path: Path) -> None:
    frames, masks = make_video(tmp_path, "v", {"00000": mask_of(1)})
    video = generic_video(frames, masks)
    whole = (frames / "00002.jpg").read_bytes()
    (frames / "00002.jpg").write_bytes(whole[: len(whole) - 30])
    with pytest.raises(ValueError, match=r"frame .*00002.jpg cannot be read, it is cut short"):
        video[2]
    make_frames(frames, ["00003.jpg"], size=(24, 40))
    expected = r"00003.jpg is 40x24 \(width x height\), but the first frame 00000.jpg is 36x24"
    with pytest.raises(ValueError, match=expected):
        video[3]


def test_twin_frames_and_masks_are_refused(tmp_path: Path) -> None:
    frames, masks = make_video(tmp_path, "v", {"00000": mask_of(1)})
    Image.fromarray(mask_of(1)).save(masks / "00000.bmp")
    with pytest.raises(ValueError, match=r"mask .*00000.png has a twin, 00000.bmp: keep one"):
        generic_video(frames, masks)
    (masks / "00000.bmp").unlink()
    make_frames(frames, ["00001.png"])
    with pytest.raises(ValueError, match=r"frame 00001 stands 2 times in .*v, as files"):
        generic_video(frames, masks)


def test_mask_problems_are_all_named(tmp_path: Path) -> None:
    disc = np.zeros((48, 72), np.uint8)
    cv2.circle(disc, (30, 24), 17, 255, -1)
    masks = {
        "00000": mask_of(1),
        "00001": mask_of(),
        "00002": mask_of(1, size=(24, 40)),
        "00003": cv2.resize(disc, (36, 24), interpolation=cv2.INTER_AREA),
    }
    with pytest.raises(ProblemsError) as caught:
        generic_video(*make_video(tmp_path, "v", masks))
    message = str(caught.value)
    assert message.startswith("3 problems were found:\n- mask ")
    for expected in (
        r"00001\.png has no object",
        r"00002\.png is 40x24 \(width x height\), but its frame is 36x24",
        r"00003\.png has \d+ different values, .* anti-aliased",
    ):
        assert re.search(expected, message)


def test_a_damaged_mask_is_refused(tmp_path: Path) -> None:
    frames, masks = make_video(tmp_path, "v", {"00000": mask_of(1)})
    path = masks / "00000.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"mask .*00000.png cannot be read, it is cut short"):
        generic_video(frames, masks)


def test_a_mask_without_a_frame_is_refused(tmp_path: Path) -> None:
    masks = {"00000": mask_of(1), "00009": mask_of(2)}
    expected = r"mask .*00009.png belongs to no frame: there is no 00009 in .*JPEGImages"
    with pytest.raises(ValueError, match=expected):
        generic_video(*make_video(tmp_path, "v", masks))


def test_colours_are_labels_across_masks(tmp_path: Path) -> None:
    frames, masks = make_video(tmp_path, "v", {})
    masks.mkdir(parents=True)
    for stem, place, colour in (("00000", (1,), (255, 0, 0)), ("00002", (0, 1), (0, 255, 0))):
        pixels = (mask_of(*place)[..., None] > 0) * np.array(colour, np.uint8)
        Image.fromarray(pixels).save(masks / f"{stem}.png")
    video = generic_video(frames, masks)
    assert video.annotated_labels == {0: [2], 2: [1]}
    assert video.palette is not None
    assert video.palette[:9] == bytes([0, 0, 0, 0, 255, 0, 255, 0, 0])


# Numbering


def paths(*names: str) -> list[Path]:
    return [Path("frames") / name for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ["0.jpg", "1.jpg", "2.jpg"],
        ["00010.jpg", "00015.jpg", "00020.jpg"],
        ["a_9_x.jpg", "a_10_x.jpg", "a_11_x.jpg"],
        ["first.jpg", "second.jpg", "third.jpg"],
        ["a1.jpg", "b7.jpg", "c30.jpg"],
        ["1003.jpg", "1090.jpg", "1700.jpg", "2901.jpg"],
        ["00007.jpg"],
    ],
)
def test_numberings_without_gaps(names: list[str]) -> None:
    check_numbering(paths(*names))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["00001.jpg", "00002.jpg", "00004.jpg"],
            "frame 00003.jpg is missing in frames: there is 00002.jpg and 00004.jpg;",
        ),
        (
            ["00000.jpg", "00005.jpg", "00020.jpg", "00025.jpg"],
            "frames 00010.jpg to 00015.jpg are missing in frames: there is 00005.jpg and",
        ),
        (["a9b.png", "a11b.png", "a12b.png"], "frame a10b.png is missing in frames"),
    ],
)
def test_gaps_are_named(names: list[str], expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        check_numbering(paths(*names))


def test_a_given_step_holds() -> None:
    with pytest.raises(ProblemsError) as caught:
        check_numbering(paths("00000.jpg", "00002.jpg", "00004.jpg"), step=1)
    assert len(caught.value.problems) == 2


# Generic


def test_generic_reads_all_videos_in_natural_order(tmp_path: Path) -> None:
    for name in ("v10", "v2"):
        make_video(tmp_path, name, {"00000": mask_of(4)})
    (tmp_path / "JPEGImages" / ".cache").mkdir()
    videos = generic(tmp_path, shorter_side=12)
    assert [video.name for video in videos] == ["v2", "v10"]
    assert videos[0].working_size == (12, 18)


def test_generic_takes_frames_at_a_stride(tmp_path: Path) -> None:
    frames = make_frames(tmp_path / "frames", numbered(range(0, 20, 5)))
    write_mask(tmp_path / "start.png", mask_of(255), None)
    video = generic_video(frames, tmp_path / "start.png", name="mine")
    assert (video.name, video.labels, video.first_frame) == ("mine", [255], 0)
    assert video.palette is None
    (frames / "00010.jpg").unlink()
    with pytest.raises(ValueError, match=r"frame 00010.jpg is missing in .*frames: there is"):
        generic_video(frames, tmp_path / "start.png")


def test_problems_of_all_videos_come_together(tmp_path: Path) -> None:
    make_video(tmp_path, "fine", {"00000": mask_of(1)})
    for index in range(12):
        make_video(tmp_path, f"bad{index}", {"00000": mask_of()})
    make_video(tmp_path, "maskless", {})
    (tmp_path / "JPEGImages" / "empty").mkdir()
    with pytest.raises(ValueError, match="14 problems were found") as caught:
        generic(tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 12
    assert "bad0" in lines[1]
    assert lines[-1] == "- and 4 more"
    assert isinstance(caught.value, ProblemsError)
    assert re.search(r"video maskless has no mask: expected .*maskless", str(caught.value.problems))
    assert re.search(r"folder .*empty holds no image", str(caught.value.problems))


def test_generic_without_its_parts(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"JPEGImages does not exist: a folder of videos"):
        generic(tmp_path)
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(FileNotFoundError, match="Annotations does not exist"):
        generic(tmp_path)
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(ValueError, match=r"JPEGImages holds no video"):
        generic(tmp_path)
    frames = make_frames(tmp_path / "JPEGImages" / "v", ["0.jpg"])
    (tmp_path / "Annotations" / "v").mkdir()
    with pytest.raises(ValueError, match="video v has no mask: give one of the frame its objects"):
        generic(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"video v has no mask: expected .*none.png"):
        generic_video(frames, tmp_path / "none.png")


# DAVIS


@pytest.mark.parametrize("inside", ["2017/trainval", "trainval", "."])
def test_davis_2017_layouts(tmp_path: Path, inside: str) -> None:
    make_davis(tmp_path / inside, "2017/val.txt", {"dog": mask_of(1, 2), "bear": mask_of(1)})
    videos = davis_2017(tmp_path)
    assert [(video.name, video.labels) for video in videos] == [("dog", [1, 2]), ("bear", [1])]
    assert videos[0].annotated_labels == {0: [1, 2]}
    assert len(videos[0].required_frames) == 3
    assert videos[0].palette == DAVIS_PALETTE


@pytest.mark.parametrize("inside", ["2017/test-dev", "test-dev", "."])
@pytest.mark.parametrize("split", ["test-dev", "testdev"])
def test_davis_2017_test_dev(tmp_path: Path, inside: str, split: str) -> None:
    base = tmp_path / inside
    make_davis(base, "2017/test-dev.txt", {"car": mask_of(3)})
    for path in (base / "Annotations/480p/car").glob("0000[12].png"):
        path.unlink()
    assert [video.name for video in davis_2017(tmp_path, split)] == ["car"]


def test_davis_2017_train_and_own_list(tmp_path: Path) -> None:
    make_davis(tmp_path / "trainval", "2017/train.txt", {"a": mask_of(1)})
    make_davis(tmp_path / "trainval", "mine/some.txt", {"b": mask_of(1)})
    assert [video.name for video in davis_2017(tmp_path, "train")] == ["a"]
    assert [video.name for video in davis_2017(tmp_path, imset="mine/some.txt")] == ["b"]


def test_davis_2017_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no split vall of DAVIS 2017: choose from train, val, te"):
        davis_2017(tmp_path, "vall")
    with pytest.raises(FileNotFoundError, match=r"DAVIS 2017 val is not in .*2017/trainval/Annot"):
        davis_2017(tmp_path)
    make_davis(tmp_path / "trainval", "2017/val.txt", {"a": mask_of(1), "b": mask_of(1)})
    with pytest.raises(FileNotFoundError, match=r"list of sequences .*2017/train.txt does not exi"):
        davis_2017(tmp_path, "train")

    base = tmp_path / "trainval"
    (base / "Annotations/480p/a/00000.png").unlink()
    (base / "JPEGImages/480p/b/00001.jpg").unlink()
    with pytest.raises(ProblemsError) as caught:
        davis_2017(tmp_path)
    assert re.match(r"sequence a has no first mask: expected .*00000.png", caught.value.problems[0])
    assert re.match(r"frame 00001.jpg is missing in .*b: there is", caught.value.problems[1])

    (base / "ImageSets/2017/val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"val.txt names no sequence"):
        davis_2017(tmp_path)


@pytest.mark.parametrize("frame", [0, 2])
def test_davis_tells_missing_frames_at_the_ends(tmp_path: Path, frame: int) -> None:
    make_davis(tmp_path, "2017/val.txt", {"a": mask_of(1)})
    (tmp_path / f"JPEGImages/480p/a/0000{frame}.jpg").unlink()
    with pytest.raises(ValueError, match=rf"mask .*0000{frame}.png belongs to no frame"):
        davis_2017(tmp_path)


@pytest.mark.parametrize("root", [".", "2016"])
def test_davis_2016_published_layout(tmp_path: Path, root: str) -> None:
    make_davis(tmp_path / "2016", "gone.txt", {"dog": mask_of(255, 3), "cat": mask_of(255)})
    list_path = tmp_path / "2017/trainval/ImageSets/2016/val.txt"
    list_path.parent.mkdir(parents=True)
    list_path.write_text("dog\n")
    (video,) = davis_2016(tmp_path / root)
    assert (video.name, video.labels, video.palette) == ("dog", [255], None)
    labels = video[0].annotation
    assert labels is not None
    np.testing.assert_array_equal(labels, mask_of(255, 255))


def test_davis_2016_in_one_folder(tmp_path: Path) -> None:
    make_davis(tmp_path, "2016/val.txt", {"dog": mask_of(255)})
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / kind / "480p" / "dog").rename(tmp_path / kind / "dog")
        (tmp_path / kind / "480p").rmdir()
    assert [video.name for video in davis_2016(tmp_path)] == ["dog"]


def test_davis_2016_refusals(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"DAVIS 2016 is not in .*: none of these folders"):
        davis_2016(tmp_path)
    make_davis(tmp_path / "2016", "gone.txt", {"dog": mask_of(255)})
    expected = r"list of sequences .*2017/trainval/ImageSets/2016/val.txt does not exist"
    with pytest.raises(FileNotFoundError, match=expected):
        davis_2016(tmp_path)


def test_real_davis() -> None:
    if not SHARED.is_dir():
        pytest.skip("no DAVIS in ../shared/data")
    (video,) = davis_2017(SHARED)
    assert (video.name, len(video), video.labels) == ("dogs-jump", 66, [1, 2, 3])
    assert all(video.labels == [255] for video in davis_2016(SHARED / "2016"))


# YouTube


def test_youtube(tmp_path: Path) -> None:
    make_youtube(tmp_path)
    (video,) = youtube(tmp_path, shorter_side=12)
    assert (video.name, video.size, video.working_size) == ("a1", SIZE, (12, 18))
    assert video.annotated_labels == {0: [2], 4: [5]}
    required = [frame.name for frame in video if frame.is_required]
    assert required == ["00010", "00014", "00020", "00021"]
    assert youtube(tmp_path)[0].working_size == (480, 720)
    assert youtube(tmp_path, shorter_side=None)[0].working_size == SIZE


def test_youtube_without_its_parts(tmp_path: Path) -> None:
    expected = r"valid_all_frames/JPEGImages does not exist: .*evaluated on all frames, which are a"
    with pytest.raises(FileNotFoundError, match=expected):
        youtube(tmp_path)
    make_frames(tmp_path / "all_frames/valid_all_frames/JPEGImages/a1", ["00000.jpg"])
    with pytest.raises(FileNotFoundError, match=r"valid/Annotations with the masks does not exist"):
        youtube(tmp_path)
    (tmp_path / "valid" / "Annotations").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"meta.json does not exist: it names the frames"):
        youtube(tmp_path)
    for text in ("{", "[]", '{"videos": {"a1": {}}}', '{"videos": []}'):
        (tmp_path / "valid" / "meta.json").write_text(text)
        with pytest.raises(ValueError, match=r"meta.json is not a meta.json of YouTube-VOS"):
            youtube(tmp_path)
    write_meta(tmp_path, {})
    with pytest.raises(ValueError, match=r"meta.json names no video"):
        youtube(tmp_path)


def test_youtube_frames_that_must_exist(tmp_path: Path) -> None:
    make_youtube(tmp_path)
    frames = tmp_path / "all_frames/valid_all_frames/JPEGImages/a1"
    (frames / "00012.jpg").unlink()
    assert len(youtube(tmp_path)[0]) == 6
    (frames / "00020.jpg").unlink()
    with pytest.raises(ValueError, match=r"frame 00020 of video a1 is missing in .*a1, but a mask"):
        youtube(tmp_path)
    (frames / "00014.jpg").unlink()
    with pytest.raises(ValueError, match=r"mask .*00014.png belongs to no frame"):
        youtube(tmp_path)


def test_youtube_video_without_masks(tmp_path: Path) -> None:
    make_youtube(tmp_path)
    masks = tmp_path / "valid" / "Annotations" / "a1"
    for path in masks.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="video a1 has no mask"):
        youtube(tmp_path)
    masks.rmdir()
    with pytest.raises(ValueError, match=r"video a1 has no masks: the folder .*a1 is missing"):
        youtube(tmp_path)


def test_frames_may_be_decoded_from_several_threads(tmp_path: Path) -> None:
    frames, _ = make_video(tmp_path, "v", {"00000": mask_of(1)}, num_frames=12)
    masks = {0: tmp_path / "Annotations" / "v" / "00000.png"}
    video = Video("v", list_frames(frames), masks, shorter_side=12)
    order = [11, 0, 5, 0, 7, 3] * 4
    with ThreadPoolExecutor(4) as pool:
        for index, frame in zip(order, pool.map(video.__getitem__, order), strict=True):
            assert frame.index == index
            np.testing.assert_array_equal(frame.image, video[index].image)
            assert (frame.annotation is not None) == (index == 0)
