"""What every request must show before it reaches the annotator: token, host, origin and size.

The server holds a person's masks and can use the machine's disk and GPU, and every web page that
this person opens can send requests to it. So a request needs the token of this start, from the
address that the program prints or from the cookie that this address sets; the host name that the
browser used must be a known one (against DNS rebinding); and what changes something must come from
the annotator's own page.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from urllib.parse import parse_qs, urlsplit

from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 64 * 2**20  # bytes of a request
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; connect-src 'self' ws: wss:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class TooLargeError(ValueError):
    """A request with a body above MAX_BODY."""


class Guard:
    """ASGI middleware that refuses requests without token, or from other hosts and pages.

    Args:
        token: secret of this start.
        hosts: names by which browsers may address the server, without port.
        cookie: name of the cookie. Cookies are shared by all ports of a host, so it should differ
            between servers.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Collection[str], cookie: str) -> None:
        self._app, self._token, self._hosts, self._cookie = app, token, {*hosts}, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        refusal = self._refuse(scope, headers)
        if refusal is not None:
            status, sentence = refusal
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008, "reason": sentence[:120]})
                return
            await JSONResponse({"error": sentence}, status, HEADERS)(scope, receive, send)
            return
        if scope["type"] == "http" and scope["path"] == "/" and self._has_token_in_address(scope):
            response = RedirectResponse("/", 303, HEADERS)
            response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
            await response(scope, receive, send)
            return
        await self._app(scope, _limited(receive), _with_headers(send))

    def _refuse(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return status and sentence for a request that must not pass."""
        host = headers.get("host", "")
        if _host_name(host) not in self._hosts:
            return 403, (
                "This address is unknown to the server: use the one that annotate.py printed, or "
                "start it with --allow_host NAME."
            )
        is_change = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if is_change and not _is_own(headers.get("origin", ""), host):
            return 403, "This request comes from another web page and is refused."
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > MAX_BODY:
            return 413, f"The request is larger than {MAX_BODY // 2**20} MiB."
        is_start = scope["type"] == "http" and scope["path"] == "/"
        if self._has_cookie(headers) or (is_start and self._has_token_in_address(scope)):
            return None
        return 401, (
            "The token of this start is missing: open the address that annotate.py printed."
        )

    def _has_cookie(self, headers: dict[str, str]) -> bool:
        # Other servers on this host share the cookies. http.cookies stops at the first odd one.
        cookies = cookie_parser(headers.get("cookie", ""))
        return _is_equal(cookies.get(self._cookie, ""), self._token)

    def _has_token_in_address(self, scope: Scope) -> bool:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return _is_equal(given, self._token)


def _is_equal(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())


def _host_name(host: str) -> str | None:
    """Name or address in a Host header, without port; None if it is malformed."""
    if not host or {*host} & {*"/@?#\\ "}:
        return None
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_own(origin: str, host: str) -> bool:
    """Whether a request comes from a page of this server."""
    return origin in (f"http://{host}", f"https://{host}")


def _limited(receive: Receive) -> Receive:
    """Raise TooLargeError once the body of a request has more than MAX_BODY bytes."""
    total = 0

    async def limited() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body") or b"") if message["type"] == "http.request" else 0
        if total > MAX_BODY:
            raise TooLargeError(f"The request is larger than {MAX_BODY // 2**20} MiB.")
        return message

    return limited


def _with_headers(send: Send) -> Send:
    """Add HEADERS to a response."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
            message["headers"] = [*message["headers"], *extra]
        await send(message)

    return sending
