"""Export of masks, overlays, COCO files and zip files; import of masks."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotator import export, imports
from annotator.coco import coco_json
from annotator.export import make_palette, mask_pngs, write_masks, write_overlay, zip_stream
from annotator.imports import label_colours, read_masks, read_uploaded
from util.masks import DAVIS_PALETTE, read_mask, write_mask
from util.overlay import blend


def label_map(height: int = 24, width: int = 32) -> np.ndarray:
    labels = np.zeros((height, width), np.uint8)
    labels[4:12, 4:16] = 1
    labels[10:20, 14:28] = 7
    return labels


def png(labels: np.ndarray, palette: bytes = DAVIS_PALETTE) -> bytes:
    return next(iter(mask_pngs([("a", labels)], palette)))[1]


def test_palette_has_the_colours_of_objects() -> None:
    palette = make_palette({1: "#0aff10", 255: "#FFFFFF"})
    assert len(palette) == 768
    assert palette[3:6] == bytes([10, 255, 16])
    assert palette[765:] == b"\xff\xff\xff"
    assert palette[6:765] == DAVIS_PALETTE[6:765]
    for colours, words in (({0: "#000000"}, "from 1 to 255"), ({1: "red"}, "label 1 must be")):
        with pytest.raises(ValueError, match=words):
            make_palette(colours)


def test_encoded_masks_are_the_bytes_of_files(tmp_path: Path) -> None:
    palette = make_palette({7: "#123456"})
    frames = [("00000", label_map()), ("00001", np.zeros((24, 32), np.uint8))]
    write_masks(tmp_path / "Annotations" / "clip", frames, palette)
    for name, data in mask_pngs(frames, palette):
        assert data == (tmp_path / "Annotations" / "clip" / f"{name}.png").read_bytes()
    mask = read_mask(tmp_path / "Annotations/clip/00000.png")
    np.testing.assert_array_equal(mask.labels, label_map())
    assert mask.palette == palette


@pytest.mark.parametrize("size", [(48, 64), (47, 65)])
def test_overlay_decodes_with_its_frames_size_rate_and_colours(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    av = pytest.importorskip("av")
    palette = make_palette({1: "#e02020"})
    labels = np.zeros(size, np.uint8)
    labels[:, : size[1] // 2] = 1
    images = [np.full((*size, 3), (level, 120, 230 - level), np.uint8) for level in (40, 120, 200)]
    path = tmp_path / "new" / "clip.mp4"
    write_overlay(path, ((image, labels) for image in images), size, 29.97, palette)
    assert [*path.parent.iterdir()] == [path]
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        context = stream.codec_context
        assert stream.codec.name in ("h264", "vp9")
        assert stream.average_rate == Fraction(2997, 100)
        assert context.pix_fmt == "yuv420p"
        colour = (context.colorspace, context.color_primaries, context.color_trc)
        assert (*colour, context.color_range) == (1, 1, 1, 1)
        frames = [
            frame.to_ndarray(format="rgb24", src_colorspace="ITU709")
            for frame in file.decode(video=0)
        ]
    assert len(frames) == 3
    for image, frame in zip(images, frames, strict=True):
        assert frame.shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
        expected = blend(image, labels, palette).astype(int)
        errors = np.abs(frame[: size[0], : size[1]] - expected)
        errors[:, size[1] // 2 - 4 : size[1] // 2 + 4] = 0  # halved resolution of colours
        assert errors.max() <= 8
        np.testing.assert_allclose(frame[:, -1].astype(int), frame[:, -3], atol=8)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays while it loads


def test_a_failed_overlay_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("av")
    labels, image = np.zeros((48, 64), np.uint8), np.zeros((48, 64, 3), np.uint8)
    path = tmp_path / "clip.mp4"
    with pytest.raises(ValueError, match="no frames"):
        write_overlay(path, [], (48, 64), 24, DAVIS_PALETTE)
    frames = [(image, labels), (image[:, :60], labels[:, :60])]
    with pytest.raises(ValueError, match=r"Frame 1 of .*60x48"):
        write_overlay(path, frames, (48, 64), 24, DAVIS_PALETTE)
    with pytest.raises(ValueError, match="frame rate"):
        write_overlay(path, frames, (48, 64), 0, DAVIS_PALETTE)
    with pytest.raises(ValueError, match=r"\.mp4"):
        write_overlay(tmp_path / "clip.avi", frames, (48, 64), 24, DAVIS_PALETTE)
    assert not [*tmp_path.iterdir()]


def test_overlays_without_pyav_or_encoders_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "av", None)
        with pytest.raises(ValueError, match=r"requirements-annotator\.txt"):
            write_overlay(tmp_path / "a.mp4", [], (48, 64), 24, DAVIS_PALETTE)
    pytest.importorskip("av")
    monkeypatch.setattr(export, "_ENCODERS", {"no_such_encoder": {}})
    with pytest.raises(ValueError, match="no_such_encoder"):
        write_overlay(tmp_path / "a.mp4", [], (48, 64), 24, DAVIS_PALETTE)


def test_vp9_is_written_without_an_h264_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    av = pytest.importorskip("av")
    if "libvpx-vp9" not in av.codecs_available:
        pytest.skip("this PyAV has no VP9")
    monkeypatch.delitem(export._ENCODERS, "libx264")
    monkeypatch.delitem(export._ENCODERS, "libopenh264")
    frame = np.full((48, 64, 3), 90, np.uint8), np.zeros((48, 64), np.uint8)
    write_overlay(tmp_path / "a.mp4", [frame, frame], (48, 64), 24, DAVIS_PALETTE)
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert file.streams.video[0].codec.name == "vp9"
        assert len([*file.decode(video=0)]) == 2


def test_zip_reads_back_and_is_reproducible() -> None:
    def members() -> Iterator[tuple[str, bytes | Iterator[bytes]]]:
        yield "Annotations/clip/00000.png", png(label_map())
        yield "clip.mp4", iter([b"ab" * 500, b"", b"cd" * 500])
        yield "clip.coco.json", iter([b"{" + b" " * 5000, b"}"])

    data = b"".join(zip_stream(members()))
    assert data == b"".join(zip_stream(members()))
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    assert archive.read("Annotations/clip/00000.png") == png(label_map())
    assert archive.read("clip.mp4") == b"ab" * 500 + b"cd" * 500
    assert json.loads(archive.read("clip.coco.json")) == {}
    kinds = {info.filename: info.compress_type for info in archive.infolist()}
    assert kinds["clip.mp4"] == kinds["Annotations/clip/00000.png"] == zipfile.ZIP_STORED
    assert kinds["clip.coco.json"] == zipfile.ZIP_DEFLATED


def test_zip_is_made_as_it_is_read() -> None:
    made = []

    def members() -> Iterator[tuple[str, bytes]]:
        for index in range(5):
            made.append(index)
            yield f"{index}.png", bytes(1000)

    pieces = zip_stream(members())
    assert len(next(pieces)) > 1000
    assert made == [0]
    assert b"".join(zip_stream([])) == next(zip_stream([]))  # an empty zip file


def test_coco_decodes_to_the_same_masks() -> None:
    mask_api = pytest.importorskip("pycocotools.mask")
    frames = [(0, label_map()), (1, np.zeros((24, 32), np.uint8)), (2, label_map()[::-1].copy())]
    names = ["00000.jpg", "00001.jpg", "00002.jpg"]
    pieces = coco_json(names, (24, 32), {1: "dog", 7: 'a "cat"'}, iter(frames))
    content = json.loads(b"".join(pieces))
    assert content["categories"] == [{"id": 1, "name": "dog"}, {"id": 7, "name": 'a "cat"'}]
    assert content["images"][2] == {"id": 2, "file_name": "00002.jpg", "height": 24, "width": 32}
    annotations = content["annotations"]
    assert [(a["image_id"], a["track_id"]) for a in annotations] == [(0, 1), (0, 7), (2, 1), (2, 7)]
    assert [a["id"] for a in annotations] == [1, 2, 3, 4]
    for annotation in annotations:
        mask = dict(frames)[annotation["image_id"]] == annotation["category_id"]
        segmentation = annotation["segmentation"]
        np.testing.assert_array_equal(mask_api.decode(segmentation).astype(bool), mask)
        assert annotation["area"] == mask.sum() == mask_api.area(segmentation)
        assert annotation["bbox"] == mask_api.toBbox(segmentation).tolist()
        assert annotation["iscrowd"] == 0


def test_coco_without_annotations_and_with_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocotools.mask")
    assert json.loads(b"".join(coco_json(["a.jpg"], (24, 32), {}, [])))["annotations"] == []
    with pytest.raises(ValueError, match="Label 7 of frame 0"):
        [*coco_json(["a.jpg"], (24, 32), {1: "dog"}, [(0, label_map())])]
    with pytest.raises(ValueError, match="32x24"):
        [*coco_json(["a.jpg"], (24, 30), {1: "dog"}, [(0, label_map())])]
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ValueError, match=r"requirements-annotator\.txt"):
        [*coco_json([], (24, 30), {}, [])]


def frame_paths(num: int) -> list[Path]:
    return [Path("clip.mp4") / f"{index:05d}" for index in range(num)]


def test_masks_are_read_from_a_file_or_a_folder(tmp_path: Path) -> None:
    palette = make_palette({7: "#123456"})
    write_mask(tmp_path / "any name.png", label_map(), palette)
    ((index, mask),) = read_masks(tmp_path / "any name.png", frame_paths(3), (24, 32))
    assert index == 0
    np.testing.assert_array_equal(mask.labels, label_map())
    assert label_colours(mask) == {1: "#800000", 7: "#123456"}
    folder = tmp_path / "masks"
    write_mask(folder / "00002.png", label_map(), None)
    write_mask(folder / "00001.png", label_map(), palette)
    write_mask(folder / "00000.png", np.zeros((24, 32), np.uint8), palette)  # skipped
    found = [*read_masks(folder, frame_paths(3), (24, 32))]
    assert [index for index, _ in found] == [1, 2]
    assert label_colours(found[1][1]) == {}


def test_colour_masks_of_a_folder_share_labels(tmp_path: Path) -> None:
    for name, colours in (("00000", [(0, 200, 0)]), ("00001", [(0, 0, 90), (0, 200, 0)])):
        pixels = np.zeros((24, 32, 3), np.uint8)
        for number, colour in enumerate(colours):
            pixels[4:20, 4 + 12 * number : 14 + 12 * number] = colour
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    masks = dict(read_masks(tmp_path, frame_paths(2), (24, 32)))
    assert label_colours(masks[0]) == {2: "#00c800"}
    assert label_colours(masks[1]) == {1: "#00005a", 2: "#00c800"}


def test_all_problems_of_masks_are_named_before_one_is_read(tmp_path: Path) -> None:
    write_mask(tmp_path / "00000.png", label_map(), None)
    write_mask(tmp_path / "00001.png", label_map(20, 32), None)
    (tmp_path / "00002.png").write_bytes(png(label_map())[:-20])
    with pytest.raises(ValueError, match=r"(?s)00001\.png is 32x20.*00002\.png cannot be read"):
        read_masks(tmp_path, frame_paths(3), (24, 32))
    write_mask(tmp_path / "00009.png", label_map(), None)
    with pytest.raises(ValueError, match="belongs to no frame"):
        read_masks(tmp_path, frame_paths(3), (24, 32))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_masks(tmp_path / "none", frame_paths(3), (24, 32))
    write_mask(tmp_path / "background" / "00000.png", np.zeros((24, 32), np.uint8), None)
    for path in (tmp_path / "background", tmp_path / "background" / "00000.png"):
        with pytest.raises(ValueError, match="no object"):
            read_masks(path, frame_paths(3), (24, 32))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no mask"):
        read_masks(tmp_path / "empty", frame_paths(3), (24, 32))


def test_an_uploaded_mask_is_read() -> None:
    palette = make_palette({7: "#123456"})
    mask = read_uploaded(png(label_map(), palette), (24, 32))
    np.testing.assert_array_equal(mask.labels, label_map())
    assert label_colours(mask)[7] == "#123456"


def encoded(kind: str, pixels: np.ndarray) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, kind)
        return file.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "damaged, or not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 24\n", "damaged, or not an image"),
        (png(label_map())[:-20], "cannot be read"),
        (png(label_map(20, 32)), "32x20 .* its frame is 32x24"),
        (png(np.zeros((24, 32), np.uint8)), "no object"),
        (encoded("JPEG", label_map()), "JPEG"),
        (encoded("PNG", np.zeros((20000, 20000), np.uint8)), "20000x20000|not an image"),
    ],
    ids=["empty", "program", "truncated", "size", "background", "jpeg", "bomb"],
)
def test_an_uploaded_file_that_is_no_mask_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read_uploaded(data, (24, 32))
    assert "/tmp" not in str(caught.value)


def test_an_uploaded_file_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "MAX_BYTES", 50)
    with pytest.raises(ValueError, match="at most"):
        read_uploaded(png(label_map()), (24, 32))
