"""Damage of files for scripts/experiments/fuzz.py: bytes, images, JSON and lists."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

Rng = np.random.Generator
_PAGE = b"<!DOCTYPE html><html><title>Quota exceeded</title></html>"
# Values that replace one of a JSON file.
_VALUES: tuple[Any, ...] = (
    None,
    -1,
    0,
    1e300,
    True,
    "",
    "x",
    "../..",
    "a" * 300,
    "\0",
    [],
    [[]],
    {},
    {"x": []},
)
_LINES = ("", "..", "../../x", "/", "x" * 300, "a\0b", "\ufeffx", "# comment", "x y", "val-000/")


def damage_bytes(rng: Rng, content: bytes) -> tuple[str, bytes]:
    """Damage the bytes of a file, as disks, networks and interrupted copies do; name the kind."""
    size = max(len(content), 1)
    start = int(rng.integers(size))
    end = min(start + int(rng.integers(1, max(size // 4, 2))), size)
    noise = rng.bytes(end - start)
    flipped = bytearray(content)
    for at in rng.integers(size, size=int(rng.integers(1, 9))):
        if content:
            flipped[at] ^= 1 << int(rng.integers(8))
    kinds: dict[str, bytes] = {
        "bits flipped": bytes(flipped),
        "one bit flipped": content[:start] + bytes([(content or b"\0")[start] ^ 1])
        + content[start + 1 :],
        "block of zeros": content[:start] + bytes(end - start) + content[end:],
        "block of noise": content[:start] + noise + content[end:],
        "block removed": content[:start] + content[end:],
        "block repeated": content[:end] + content[start:],
        "noise inserted": content[:start] + noise + content[start:],
        "truncated": content[:start],
        "head only": content[: int(rng.integers(16))],
        "empty": b"",
        "web page": _PAGE,
        "noise": rng.bytes(int(rng.integers(1, 2000))),
    }  # fmt: skip
    kind = str(rng.choice([*kinds]))
    return kind, kinds[kind]


def edit_image(rng: Rng, content: bytes) -> tuple[str, bytes]:
    """Save an image in another way: other size, mode, format or orientation."""
    image = Image.open(io.BytesIO(content))
    image.load()
    kind = image.format or "PNG"
    colour = image.convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(0, 12))
    values = np.array(image.convert("L")).astype(np.uint16)
    edits: dict[str, Callable[[], bytes]] = {
        "other size": lambda: _save(image.resize((image.width + 1, image.height)), kind),
        "one pixel": lambda: _save(image.resize((1, 1)), kind),
        "turned": lambda: _save(image.transpose(Image.Transpose.ROTATE_90), kind),
        "blurred": lambda: _save(colour.filter(ImageFilter.BLUR), kind),
        "colour": lambda: _save(colour, kind),
        "orientation": lambda: _save(colour, "JPEG", exif=exif),
        "cmyk": lambda: _save(colour.convert("CMYK"), "JPEG"),
        "transparent": lambda: _save(colour.convert("LA"), "PNG"),
        "bilevel": lambda: _save(colour.convert("1"), "PNG"),
        "16 bits": lambda: _save(Image.fromarray(values * 257), "PNG"),
        "floats": lambda: _save(Image.fromarray(values.astype(np.float32)), "TIFF"),
        "animation": lambda: _save(colour, "GIF", save_all=True, append_images=[colour]),
        "black": lambda: _save(image.point(lambda _: 0), kind),
        "noise": lambda: _save(
            Image.fromarray(rng.integers(0, 256, (image.height, image.width), np.uint8)), kind
        ),
    }
    name = str(rng.choice([*edits]))
    return name, edits[name]()


def _save(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def edit_json(rng: Rng, content: bytes) -> tuple[str, bytes]:
    """Replace, remove or rename a random value of a JSON file."""
    root = json.loads(content)
    holder, key = root, next(iter(root))
    while rng.random() < 0.8 and isinstance(holder[key], dict | list) and holder[key]:
        holder = holder[key]
        keys = [*holder] if isinstance(holder, dict) else [*range(len(holder))]
        key = keys[int(rng.integers(len(keys)))]
    kind = str(rng.choice(["value", "removed", "renamed", "nested"]))
    if kind == "removed" or (kind == "renamed" and isinstance(holder, list)):
        del holder[key]
    elif kind == "renamed":
        holder[str(rng.choice(["x", "", "../x", "0", "256", "\0"]))] = holder.pop(key)
    else:
        holder[key] = _VALUES[int(rng.integers(len(_VALUES)))]
    if kind == "nested":
        return kind, b"[" * 100_000
    return kind, json.dumps(root).encode()


def edit_list(rng: Rng, content: bytes) -> tuple[str, bytes]:
    """Insert a wrong name into a list of names, or remove all of them."""
    lines = content.decode().splitlines()
    lines.insert(int(rng.integers(len(lines) + 1)), _LINES[int(rng.integers(len(_LINES)))])
    encoding = str(rng.choice(["utf-8", "utf-16", "utf-8-sig"]))
    return f"line, {encoding}", "\n".join(lines).encode(encoding)


def replace_file(rng: Rng, path: Path) -> str:
    """Replace a file by nothing, a folder or a dangling link; return the kind."""
    kind = str(rng.choice(["missing", "folder", "dangling link"]))
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to(path.with_name("nowhere"))
    return kind
