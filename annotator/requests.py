"""Values of requests, checked: numbers of the query, fields of JSON, pixels."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from starlette.requests import Request

from annotator.errors import SessionError

ValueT = TypeVar("ValueT")
MAX_COORDINATE = 10**6  # of a point, in pixels
MAX_POINTS = 20_000  # of the lines of one request: a person draws some hundreds
_TYPES = {int: "a whole number", str: "text", bool: "true or false", list: "a list"}


def query_number(request: Request, name: str) -> int:
    """Return a whole number from the query of the address.

    Raises:
        SessionError: it is missing or no number.
    """
    text = request.query_params.get(name, "")
    if not text.removeprefix("-").isdecimal() or len(text) > 9:
        raise SessionError(f"{name} must be a whole number in the address; it is {text[:20]!r}.")
    return int(text)


async def read_json(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body of a request; an empty body is an empty object.

    Raises:
        SessionError: the body is no JSON object.
    """
    body = await request.body()
    try:
        content = json.loads(body) if body else {}
    except (ValueError, RecursionError) as error:
        raise SessionError("The request is not JSON.") from error
    if not isinstance(content, dict):
        raise SessionError("The request is not a JSON object.")
    return content


def field(content: dict[str, Any], name: str, kind: type[ValueT], default: ValueT) -> ValueT:
    """Return a field of a JSON object, or its default.

    Raises:
        SessionError: it has another type.
    """
    value = content.get(name, default)
    is_right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not is_right or (isinstance(value, int) and abs(value) >= 2**31):
        raise SessionError(f"{name} must be {_TYPES[kind]}; it is {str(value)[:20]!r}.")
    return value


def point(value: object) -> tuple[float, float]:
    """Return a point [x, y] of a JSON list; raise SessionError for anything else."""
    if isinstance(value, list) and len(value) == 2:
        x, y = value
        is_number = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (x, y))
        if is_number and all(abs(v) < MAX_COORDINATE for v in (x, y)):  # false for NaN
            return float(x), float(y)
    raise SessionError(f"A point must be [x, y] in pixels; it is {str(value)[:40]!r}.")


def lines(content: dict[str, Any], name: str) -> list[list[tuple[float, float]]]:
    """Return a list of polylines [[[x, y], ...], ...] from a JSON object.

    Raises:
        SessionError: it is something else, or has more than MAX_POINTS points.
    """
    given = field(content, name, list, [])
    if not all(isinstance(line, list) for line in given):
        raise SessionError(f"{name} must be lists of points [x, y].")
    if max(len(given), sum(map(len, given))) > MAX_POINTS:
        raise SessionError(f"{name} has more than {MAX_POINTS} points: draw shorter lines.")
    return [[point(value) for value in line] for line in given]
