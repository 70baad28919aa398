"""All that is compiled, where a machine can have it."""

from __future__ import annotations

import functools
import logging
from typing import NamedTuple

from model.native import build
from model.native.best_rows import BestRows
from model.native.enlarge import Enlarger
from model.native.winograd import Winograd

logger = logging.getLogger(__name__)


class Library(NamedTuple):
    """The compiled functions."""

    winograd: Winograd
    best_rows: BestRows
    enlarge: Enlarger


@functools.cache
def library() -> Library | None:
    """What is compiled for this machine; None, with a warning, where it cannot be had."""
    try:
        made = build()
        return Library(Winograd(made), BestRows(made), Enlarger(made))
    except (OSError, ValueError, RuntimeError) as error:
        logger.warning(
            "torch computes without this project's C++, which takes up to three times as long on "
            "a CPU: %s",
            error,
        )
        return None
