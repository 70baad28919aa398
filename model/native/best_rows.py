"""The rows of memory that are most similar to queries, on CPUs: see best_rows.cpp."""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F

from model.native import declare, pointer


class _Rows(ctypes.Structure):
    """The C++ struct of the same name."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("key", "offset", "query")),
        *((name, ctypes.c_int64) for name in ("rows", "channels", "queries")),
        ("scale", ctypes.c_double),
        ("threads", ctypes.c_int64),
    ]


class BestRows:
    """The compiled functions.

    Raises:
        ValueError: they do not compute what torch does.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions = library
        whole, address, call = ctypes.c_int64, ctypes.c_void_p, ctypes.POINTER(_Rows)
        declare(
            library,
            ("rows_group", whole, []),
            ("rows_step", whole, []),
            ("rows_maxima", None, [call, address]),
            ("rows_scores", None, [call, address, whole, address]),
        )
        self.group: int = self._functions.rows_group()  # rows
        self._step: int = self._functions.rows_step()
        self._check()

    def suits(self, key: torch.Tensor) -> bool:
        """Whether keys (N, CK) can be looked through."""
        return key.dtype == torch.float32 and key.shape[1] % 16 == 0 and key.is_contiguous()

    def find(
        self,
        key: torch.Tensor,
        query_key: torch.Tensor,
        top_k: int,
        scale: float,
        offset: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The top_k largest of scale * query_key @ key.T + offset in every row, and where they are.

        Args:
            key: (N, CK) float32, of more than top_k groups of rows; query_key: (P, CK).
            offset: (N,) float32.

        Returns:
            (P, top_k) both, in any order.
        """
        num_rows, channels = key.shape
        queries = query_key.shape[0]
        groups = -(-num_rows // self.group)
        assert groups > top_k, "of so few rows, look at all"
        if key.dtype != torch.float32 or {key.device.type, query_key.device.type} != {"cpu"}:
            raise ValueError(f"Keys are float32 on the CPU; these are {key.dtype}, {key.device}.")
        if query_key.shape[1] != channels or (offset is not None and len(offset) != num_rows):
            raise ValueError(
                "Queries have the keys' channels, and there is an offset for each row."
            )
        key = key.contiguous()
        query_key = F.pad(query_key.float(), (0, 0, 0, -queries % self._step)).contiguous()
        offset = None if offset is None else offset.float().contiguous()
        call = _Rows(
            pointer(key), pointer(offset), pointer(query_key), num_rows, channels, queries,
            scale, torch.get_num_threads(),
        )  # fmt: skip
        maxima = torch.empty(queries, groups, dtype=torch.float32, device="cpu")
        self._functions.rows_maxima(ctypes.byref(call), pointer(maxima))
        chosen = maxima.topk(top_k, sorted=False).indices.contiguous()  # (P, top_k)
        scores = maxima.new_empty(queries, top_k * self.group)
        self._functions.rows_scores(ctypes.byref(call), pointer(chosen), top_k, pointer(scores))
        best, at = scores.topk(top_k, sorted=False)
        rows = chosen.gather(1, at // self.group) * self.group + at % self.group
        return best, rows.clamp_(max=num_rows - 1)  # where all else is minus infinity too

    def _check(self) -> None:
        generator = torch.Generator().manual_seed(0)
        key, query = (
            torch.randn(n, 16, generator=generator, dtype=torch.float32, device="cpu")
            for n in (5 * self.group + 3, 8)
        )
        offset = key.sum(1)
        found, rows = self.find(key, query, 3, 0.5, offset)
        expected = 0.5 * query @ key.t() + offset
        if not torch.allclose(expected.gather(1, rows), found, atol=1e-5) or not torch.allclose(
            expected.topk(3).values, found.sort(descending=True).values, atol=1e-5
        ):
            raise ValueError("reads find the wrong rows.")
