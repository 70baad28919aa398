"""Padding to the network's stride."""

from __future__ import annotations

import pytest
import torch

from util.padding import pad, padding_of, unpad


@pytest.mark.parametrize(
    ("size", "padding"),
    [
        ((480, 854), (5, 5, 0, 0)),
        ((480, 853), (5, 6, 0, 0)),  # the odd pixel is at the end
        ((90, 150), (5, 5, 3, 3)),
        ((1, 1), (7, 8, 7, 8)),
        ((15, 17), (7, 8, 0, 1)),
        ((32, 64), (0, 0, 0, 0)),
    ],
)
def test_padding_is_split_evenly(size: tuple[int, int], padding: tuple[int, int, int, int]) -> None:
    assert padding_of(*size) == padding


def test_padding_with_another_stride() -> None:
    assert padding_of(10, 9, stride=8) == (3, 4, 3, 3)


@pytest.mark.parametrize("height", [1, 16, 17, 31])
@pytest.mark.parametrize("width", [5, 32, 33])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_unpad_undoes_pad(height: int, width: int, shape: tuple[int, ...]) -> None:
    tensor = 1 + torch.rand(*shape, height, width)
    padding = padding_of(height, width)
    padded = pad(tensor, padding)
    assert padded.shape[:-2] == shape
    assert padded.shape[-2] % 16 == padded.shape[-1] % 16 == 0
    assert padded.shape[-2] - height < 16
    assert padded.shape[-1] - width < 16
    assert (padded != 0).sum() == tensor.numel()  # padded with zeros
    unpadded = unpad(padded, padding)
    assert torch.equal(unpadded, tensor)
    assert unpadded.untyped_storage().data_ptr() == padded.untyped_storage().data_ptr()  # no copy
