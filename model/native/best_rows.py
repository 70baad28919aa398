"""Search for the memory rows that are most similar to queries, on CPUs: see best_rows.cpp."""

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

    Args:
        library: from `build`.

    Raises:
        ValueError: their results differ from torch's.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions = library
        whole, address, call = ctypes.c_int64, ctypes.c_void_p, ctypes.POINTER(_Rows)
        declare(
            library,
            ("rows_group", whole, []),
            ("rows_step", whole, []),
            ("rows_maxima", None, [call, address]),
            ("rows_similarities", None, [call, address, whole, address]),
        )
        self.group: int = self._functions.rows_group()  # rows of a group
        self._step: int = self._functions.rows_step()
        self._check()

    def supports(self, key: torch.Tensor) -> bool:
        """Return True if channels, type and layout of keys (N, CK) are supported."""
        return key.dtype == torch.float32 and key.shape[1] % 16 == 0 and key.is_contiguous()

    def find(
        self,
        key: torch.Tensor,
        query_key: torch.Tensor,
        top_k: int,
        scale: float,
        offset: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the top_k largest values of each row of scale * query_key @ key.T + offset.

        Args:
            key: (N, CK), float32, with more than top_k groups of rows.
            query_key: (P, CK).
            top_k: number of memory rows to find for each query.
            scale: see Similarity.
            offset: (N,), float32.

        Returns:
            The values and their memory rows, both (P, top_k), in any order.

        Raises:
            ValueError: a shape, type or device does not match.
        """
        num_rows, channels = key.shape
        queries = query_key.shape[0]
        groups = -(-num_rows // self.group)
        assert groups > top_k, "too few rows to search by groups"
        if key.dtype != torch.float32 or {key.device.type, query_key.device.type} != {"cpu"}:
            raise ValueError(
                f"Keys must be float32 on the CPU; these are {key.dtype} on {key.device}."
            )
        if query_key.shape[1] != channels or (offset is not None and len(offset) != num_rows):
            raise ValueError(
                f"Query keys {tuple(query_key.shape)} must have as many channels as keys "
                f"{tuple(key.shape)}, and there must be one offset per key."
            )
        key = key.contiguous()
        query_key = F.pad(query_key.float(), (0, 0, 0, -queries % self._step)).contiguous()
        offset = None if offset is None else offset.float().contiguous()
        call = _Rows(
            pointer(key), pointer(offset), pointer(query_key), num_rows, channels, queries,
            scale, torch.get_num_threads(),
        )  # fmt: skip
        maxima = torch.empty(queries, groups, dtype=torch.float32, device="cpu")  # (P, groups)
        self._functions.rows_maxima(ctypes.byref(call), pointer(maxima))
        chosen = maxima.topk(top_k, sorted=False).indices.contiguous()  # (P, top_k)
        similarities = maxima.new_empty(queries, top_k * self.group)
        self._functions.rows_similarities(
            ctypes.byref(call), pointer(chosen), top_k, pointer(similarities)
        )
        best, at = similarities.topk(top_k, sorted=False)  # (P, top_k)
        rows = chosen.gather(1, at // self.group) * self.group + at % self.group
        # The last group is filled up with -inf, which counts if all other values are -inf too.
        return best, rows.clamp_(max=num_rows - 1)

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
            raise ValueError("the most similar rows differ from torch's.")
