"""Lists of positions as text."""

from __future__ import annotations


def parse_positions(text: str, num: int) -> set[int]:
    """Parse indices and slices of `num` elements, such as "1,-5:" or ":2,-5:-1".

    Raises:
        ValueError: a part is not an index or slice.
    """
    positions: set[int] = set()
    for part in text.split(","):
        try:
            start, *rest = [int(end) if end else None for end in part.split(":")]
            if rest:
                (stop,) = rest
                positions.update(range(num)[start:stop])
            elif start is None:
                raise ValueError("an empty part")
            else:
                positions.update(range(num)[start : start + 1 or None])
        except ValueError as error:
            raise ValueError(
                f"sample_keep {text!r} contains {part!r}, which is not an index or slice: give for "
                "example 1 or 0:2 or -5:, separated by commas."
            ) from error
    return positions
