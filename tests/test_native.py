"""The C++ functions compared with torch's, and what happens if they are not available."""

from __future__ import annotations

import itertools
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from model.convolution import find_packing
from model.matching import Similarity, read
from model.methods import build_network
from model.native.library import Library, load_library
from model.network import NetworkSpec

CPU = torch.device("cpu")
LIBRARY = load_library()
needs_compiler = pytest.mark.skipif(LIBRARY is None, reason="there is no C++ compiler")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache for compiled libraries."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load_library.cache_clear()
    yield tmp_path / "cache" / "vos"
    load_library.cache_clear()


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    values = torch.randn(*shape, generator=torch.manual_seed(seed))
    return values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values


@needs_compiler
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 9), (33, 18)])
@pytest.mark.parametrize(("channels", "out", "batch"), [(64, 64, 1), (80, 144, 3), (512, 512, 2)])
def test_convolutions(channels: int, out: int, batch: int, size: tuple[int, int]) -> None:
    assert LIBRARY is not None
    x = features(batch, channels, *size)
    weight = features(out, channels, 3, 3) / (9 * channels) ** 0.5
    for bias, add, relu_before, relu_after in [
        (None, None, False, False),
        (features(out, seed=2), None, True, False),
        (features(out, seed=2), features(batch, out, *size, seed=3), True, True),
        (None, features(1, out, *size, seed=3), False, True),
    ]:
        expected = F.relu(x) if relu_before else x
        expected = F.conv2d(expected.double(), weight.double(), padding=1)
        expected = expected + (0 if bias is None else bias[:, None, None])
        expected = (expected + (0 if add is None else add)).float()
        expected = F.relu(expected) if relu_after else expected
        options = bias, add, relu_before, relu_after
        result = LIBRARY.winograd.convolve(x, LIBRARY.winograd.pack(weight), *options)
        assert result.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(result, expected, atol=5e-5, rtol=1e-5)
        half = [None if t is None else t.bfloat16() for t in (x, weight, add)]
        assert half[0] is not None
        assert half[1] is not None
        for precise, tolerance in ((True, 0.04), (False, 0.12)):
            packed = LIBRARY.winograd.pack(half[1], precise)
            result = LIBRARY.winograd.convolve(
                half[0], packed, bias, half[2], relu_before, relu_after
            )
            assert result.dtype == torch.bfloat16
            torch.testing.assert_close(result.float(), expected, atol=tolerance, rtol=0.02)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_stays_nan_in_its_tile(dtype: torch.dtype) -> None:
    assert LIBRARY is not None
    x = features(1, 64, 12, 12).to(dtype)
    x[0, 3, 0, 0] = float("nan")
    packed = LIBRARY.winograd.pack(features(64, 64, 3, 3).to(dtype))
    result = LIBRARY.winograd.convolve(x, packed, relu_before=True, relu_after=True)
    assert result[..., :2, :2].isnan().all()
    assert result[..., 4:, 4:].isfinite().all()


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 4)])
def test_upsampling(size: tuple[int, int], dtype: torch.dtype) -> None:
    assert LIBRARY is not None
    x = features(3, 48, *size)
    for batch in (1, 3):
        skip = features(batch, 48, 2 * size[0], 2 * size[1], seed=1)
        expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False) + skip
        result = LIBRARY.upsample(x.to(dtype), skip.to(dtype))
        assert result.dtype == dtype
        tolerance = 1e-5 if dtype == torch.float32 else 0.05
        torch.testing.assert_close(result.float(), expected, atol=tolerance, rtol=0)


@needs_compiler
@pytest.mark.parametrize(("has_offset", "num_rows"), [(True, 6000), (False, 5121)])
def test_most_similar_rows(has_offset: bool, num_rows: int) -> None:
    assert LIBRARY is not None
    key, query = features(num_rows, 48), features(29, 48, seed=1)
    offset = features(num_rows, seed=2) if has_offset else None
    best, rows = LIBRARY.best_rows.find(key, query, 7, 0.3, offset)
    similarities = 0.3 * query.double() @ key.double().t()
    similarities = (similarities if offset is None else similarities + offset).float()
    torch.testing.assert_close(best, similarities.gather(1, rows), atol=1e-5, rtol=1e-5)
    expected = similarities.topk(7)
    assert torch.equal(rows.sort(1).values, expected.indices.sort(1).values)


@needs_compiler
@pytest.mark.parametrize("is_distance", [True, False])
@pytest.mark.parametrize("channels", [64, 13])
def test_read_of_a_long_memory_matches_torch(
    is_distance: bool, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in blocks of queries, and with 13 channels, which only torch supports."""
    key, value = features(2, 3000, channels), features(2, 3000, 32, seed=1)
    query, similarity = features(2, 50, channels, seed=2), Similarity(is_distance)
    with torch.inference_mode():
        expected = [read(k[None], v[None], q[None], 5, similarity) for k, v, q in
                    zip(key, value, query, strict=True)]  # fmt: skip
        monkeypatch.setattr("model.matching._BLOCK_BYTES", 4 * 5 * 64 * 20)
        result = read(key, value, query, 5, similarity)
        torch.testing.assert_close(result, torch.cat(expected), atol=1e-5, rtol=1e-4)
        monkeypatch.setattr("model.matching.load_library", lambda: None)
        result = read(key, value, query, 5, similarity)
        torch.testing.assert_close(result, torch.cat(expected), atol=1e-5, rtol=1e-4)


@needs_compiler
def test_nan_in_a_long_memory_reaches_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LIBRARY is not None
    key, query = features(3000, 64), features(9, 64, seed=1)
    for value in ("inf", "nan"):
        key[77, 5] = float(value)
        arguments = key[None], features(1, 3000, 32), query[None], 5
        with torch.inference_mode(), monkeypatch.context() as patch:
            result = read(*arguments)
            patch.setattr("model.matching.load_library", lambda: None)
            expected = read(*arguments)
        assert expected.isnan().any()
        assert torch.equal(result.isnan(), expected.isnan())
    assert expected.isnan().all()
    _, rows = LIBRARY.best_rows.find(key, query, 5, 1.0, torch.full((3000,), -float("inf")))
    assert rows.max() < 3000  # no row after the last one


@needs_compiler
def test_wrong_shapes_and_types_are_errors() -> None:
    assert LIBRARY is not None
    x, weight = features(2, 64, 8, 8), features(64, 64, 3, 3)
    convolve, packed = LIBRARY.winograd.convolve, LIBRARY.winograd.pack(weight)
    for wrong in (x.half(), x.double(), x.bfloat16(), features(2, 80, 8, 8)):
        with pytest.raises(ValueError, match="Packed weights for 64 channels"):
            convolve(wrong, packed)
    for wrong in (features(2, 64, 1, 1), x.bfloat16(), features(3, 64, 8, 8)):
        with pytest.raises(ValueError, match="cannot be added to"):
            convolve(x, packed, add=wrong)
    with pytest.raises(ValueError, match="cannot be added to features"):
        LIBRARY.upsample(x, x)
    with pytest.raises(ValueError, match="as many channels as keys"):
        LIBRARY.best_rows.find(features(3000, 64), features(9, 48), 5, 1.0)
    assert convolve(x[:0], packed).shape == (0, 64, 8, 8)


@needs_compiler
def test_default_type_and_device_of_torch_have_no_effect() -> None:
    assert LIBRARY is not None
    x, weight = features(1, 64, 8, 8), features(64, 64, 3, 3)
    expected = LIBRARY.winograd.convolve(x, LIBRARY.winograd.pack(weight))
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            result = LIBRARY.winograd.convolve(x, LIBRARY.winograd.pack(weight))
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(result, expected)


def no_compiler(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("model.native.shutil.which", lambda name: None)
    return "no C++ compiler"


def failing_compiler(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CXX", "false")
    return "cannot compile it"


def missing_compiler(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    return "CXX names no-such-compiler, which is not on the PATH"


def wrong_results(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(
        "model.native.winograd.F.conv2d", lambda x, *_, **__: x.new_zeros(1, 80, 5, 7)
    )
    return "convolutions differ from torch's by"


def other_system(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("model.native.sys.platform", "win32")
    return "Linux only"


@pytest.mark.parametrize(
    "fault", [no_compiler, failing_compiler, missing_compiler, wrong_results, other_system]
)
def test_torch_replaces_missing_functions_after_one_warning(
    fault: Callable[[pytest.MonkeyPatch], str],
    empty_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if fault is wrong_results and LIBRARY is None:
        pytest.skip("there is no C++ compiler")
    message = fault(monkeypatch)
    assert load_library() is None
    assert load_library() is None
    (record,) = caplog.records  # one warning
    assert message in record.getMessage()
    monkeypatch.undo()
    network = build_network(NetworkSpec("stcn", "tiny")).for_inference(CPU, torch.float32)
    with torch.inference_mode():
        query = network.encode_query(network.encode_image(features(1, 3, 32, 48)))
    assert query.key.isfinite().all()


@needs_compiler
def test_library_is_compiled_once(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(load_library(), Library)
    file, _ = sorted(empty_cache.iterdir(), key=lambda path: path.suffix, reverse=True)
    before = file.stat().st_mtime_ns
    load_library.cache_clear()
    monkeypatch.setattr("model.native.subprocess.run", None)  # a call would fail
    assert isinstance(load_library(), Library)
    assert file.stat().st_mtime_ns == before
    monkeypatch.undo()


@needs_compiler
@pytest.mark.parametrize("size", [0, 20000])
def test_damaged_library_is_compiled_again(empty_cache: Path, size: int) -> None:
    assert isinstance(load_library(), Library)
    (file,) = empty_cache.glob("*.so")
    content = file.read_bytes()
    file.unlink()  # it is mapped: truncating it in place would kill this process
    file.write_bytes(content[:size])
    load_library.cache_clear()
    assert isinstance(load_library(), Library)
    assert len(file.read_bytes()) == len(content)


@needs_compiler
def test_user_without_a_home_folder(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("model.native.Path.home", no_home)
    assert isinstance(load_library(), Library)


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


@needs_compiler
def test_cache_that_cannot_be_written(empty_cache: Path) -> None:
    empty_cache.parent.write_text("a file in place of the folder")
    assert isinstance(load_library(), Library)


@needs_compiler
def test_exact_networks_use_no_cpp_functions() -> None:
    for exact, dtype in itertools.product((True, False), (torch.float32, torch.bfloat16)):
        packing = find_packing(CPU, dtype, exact)
        if packing is not None:
            assert (packing.native is None) == exact


def test_tune_keeps_freed_memory() -> None:
    """In a child process, because it changes the allocator."""
    code = (
        "import torch; from util.devices import tune; from pathlib import Path\n"
        "tune(torch.device('cpu'))\n"
        "def resident(): return int(Path('/proc/self/statm').read_text().split()[1]) * 4096\n"
        "x = torch.ones(50_000_000); before = resident(); del x\n"
        "assert before - resident() < 20e6, before - resident()\n"
    )
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc has this option")
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
