"""Routes of the whole session: objects, history, timeline, propagation, suggestions, export."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from annotator import edits
from annotator.errors import SessionError
from annotator.exchange import PARTS, export_session
from annotator.gaps import Direction, Scope
from annotator.next_frames import next_frames
from annotator.requests import field, query_number, read_json
from annotator.store import Store
from annotator.workspace import Workspace

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_MAX_NAME = 100  # characters


def session_routes(workspace: Workspace) -> list[Route]:
    """Make the routes under /api/ that are not of single frames."""
    store = workspace.store

    async def session(_: Request) -> Response:
        return JSONResponse(await run_in_threadpool(workspace.describe))

    async def timeline(_: Request) -> Response:
        rows = await run_in_threadpool(edits.timeline, store)
        return JSONResponse({"num_frames": store.num_frames, "rows": rows})

    async def add(request: Request) -> Response:
        name = _checked_name(await read_json(request))

        def work() -> dict[str, Any]:
            known = store.add_object(name)
            return {"object": known._asdict(), **workspace.objects_reply()}

        return JSONResponse(await run_in_threadpool(work))

    async def change(request: Request) -> Response:
        label, values = request.path_params["label"], _object_values(await read_json(request))

        def work() -> dict[str, Any]:
            store.change_object(label, **values)
            return workspace.objects_reply()

        return JSONResponse(await run_in_threadpool(work))

    async def remove(request: Request) -> Response:
        def work() -> dict[str, Any]:
            edits.remove_object(store, request.path_params["label"])
            return workspace.objects_reply()

        return JSONResponse(await run_in_threadpool(work))

    def step(function: Callable[[Store], tuple[int | None, int]]) -> dict[str, Any]:
        frame, _ = function(store)
        reply = workspace.objects_reply()
        if frame is None:
            return {"frame": None, **reply}
        return {**reply, **workspace.frame_reply(store.frame(frame), "undo")}

    async def undo(_: Request) -> Response:
        return JSONResponse(await run_in_threadpool(step, edits.undo))

    async def redo(_: Request) -> Response:
        return JSONResponse(await run_in_threadpool(step, edits.redo))

    async def propagate(request: Request) -> Response:
        content = await read_json(request)
        direction: Any = content.get("direction")
        scope: Any = content.get("scope", "gap")
        if direction not in get_args(Direction) or scope not in get_args(Scope):
            raise SessionError(
                "direction must be forwards, backwards or both, and scope gap or all."
            )
        frame = store.check_frame(field(content, "frame", int, 0))
        propagator = workspace.propagator
        if propagator is None:
            raise SessionError("There are no weights: start annotate.py with --model FILE.")
        job = await run_in_threadpool(propagator.start, direction, scope, frame)
        return JSONResponse({"job": job._asdict()})

    async def stop(_: Request) -> Response:
        if workspace.propagator is not None:
            await run_in_threadpool(workspace.propagator.stop)
        return JSONResponse({"job": None})

    async def suggestions(request: Request) -> Response:
        num = query_number(request, "num") if "num" in request.query_params else 5
        found = await run_in_threadpool(next_frames, store, min(max(num, 1), 50))
        return JSONResponse({"suggestions": [suggestion._asdict() for suggestion in found]})

    async def export(request: Request) -> Response:
        wanted = request.query_params.get("what", "masks").split(",")
        unknown = sorted({*wanted} - {*PARTS})
        if unknown:
            raise SessionError(f"There is no part {unknown[0]!r} to export: {', '.join(PARTS)}.")
        pieces = await run_in_threadpool(export_session, workspace.clip, store, wanted)
        name = re.sub(r"[^A-Za-z0-9._-]", "_", workspace.clip.name) or "clip"
        headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
        return StreamingResponse(pieces, media_type="application/zip", headers=headers)

    return [
        Route("/api/session", session),
        Route("/api/timeline", timeline),
        Route("/api/suggestions", suggestions),
        Route("/api/export", export),
        Route("/api/objects", add, methods=["POST"]),
        Route("/api/objects/{label:int}", change, methods=["POST"]),
        Route("/api/objects/{label:int}/remove", remove, methods=["POST"]),
        *(
            Route(f"/api/{handler.__name__}", handler, methods=["POST"])
            for handler in (undo, redo, propagate, stop)
        ),
    ]


def _checked_name(content: dict[str, Any]) -> str:
    name = field(content, "name", str, "").strip()
    if len(name) > _MAX_NAME or not (name.isprintable() or not name):
        raise SessionError(f"A name has at most {_MAX_NAME} printable characters.")
    return name


def _object_values(content: dict[str, Any]) -> dict[str, object]:
    """Check the changes of an object."""
    values: dict[str, object] = {}
    if "name" in content:
        values["name"] = _checked_name(content)
        if not values["name"]:
            raise SessionError("An object needs a name.")
    if "colour" in content:
        colour = field(content, "colour", str, "")
        if not _COLOUR.fullmatch(colour):
            raise SessionError(f"A colour is written as #rrggbb; this is {colour[:20]!r}.")
        values["colour"] = colour.lower()
    for name in ("is_visible", "is_locked"):
        if name in content:
            values[name] = field(content, name, bool, False)
    return values
