"""All C++ functions of this project."""

from __future__ import annotations

import functools
import logging
from typing import NamedTuple

from model.native import build
from model.native.best_rows import BestRows
from model.native.upsample import Upsampler
from model.native.winograd import Winograd

logger = logging.getLogger(__name__)


class Library(NamedTuple):
    """The compiled functions."""

    winograd: Winograd
    best_rows: BestRows
    upsample: Upsampler


@functools.cache
def load_library() -> Library | None:
    """Load the C++ functions, and compile them if needed.

    Returns:
        None, after a warning, if they cannot be compiled or their results differ from torch's.
    """
    try:
        compiled = build()
        return Library(Winograd(compiled), BestRows(compiled), Upsampler(compiled))
    except (OSError, ValueError, RuntimeError) as error:
        logger.warning(
            "The C++ code of this project is not used, so CPUs take up to three times as long: %s",
            error,
        )
        return None
