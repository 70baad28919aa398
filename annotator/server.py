"""The web server of the annotator: page, routes, events and errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from annotator.errors import ConflictError, FullDiskError, SessionError
from annotator.guard import Guard, TooLargeError
from annotator.routes_frames import frame_routes
from annotator.routes_session import session_routes
from annotator.workspace import Workspace

_PAGE = Path(__file__).parent / "page"


def make_app(workspace: Workspace, token: str, hosts: Collection[str], cookie: str) -> Starlette:
    """Make the application of one workspace, which it closes at its end.

    Args:
        token, hosts, cookie: see `annotator.guard.Guard`.
    """

    async def page(_: Request) -> Response:
        return FileResponse(_PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    async def events(socket: WebSocket) -> None:
        await socket.accept()
        with workspace.listening() as queue, contextlib.suppress(WebSocketDisconnect, RuntimeError):
            watcher = asyncio.create_task(_end_with_page(socket, queue))
            try:
                while (event := await queue.get()) is not None:
                    await socket.send_json(event)
                await socket.close()
            finally:
                watcher.cancel()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        workspace.start()
        try:
            yield
        finally:
            workspace.close()

    return Starlette(
        routes=[
            Route("/", page),
            Mount("/page", StaticFiles(directory=_PAGE)),
            *frame_routes(workspace),
            *session_routes(workspace),
            WebSocketRoute("/api/events", events),
        ],
        middleware=[Middleware(Guard, token=token, hosts=hosts, cookie=cookie)],
        exception_handlers={
            SessionError: _explain,
            ValueError: _explain,  # of damaged frames and files
            OSError: _explain,
            HTTPException: _explain_status,
        },
        lifespan=lifespan,
    )


async def _end_with_page(socket: WebSocket, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
    """Put None into the queue when the page has gone; what pages send is ignored."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
    with contextlib.suppress(asyncio.QueueFull):
        queue.put_nowait(None)


def _explain(_: Request, error: Exception) -> Response:
    """Answer with the sentence of an error."""
    status = 400
    for kind, code in ((ConflictError, 409), (FullDiskError, 507), (TooLargeError, 413)):
        if isinstance(error, kind):
            status = code
    return JSONResponse({"error": str(error).removesuffix(".") + "."}, status)


def _explain_status(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": f"{error.detail}."}, error.status_code)
