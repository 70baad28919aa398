"""Routes of single frames: image, masks, painting, operations and aids."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from annotator import aids, edits
from annotator.errors import SessionError
from annotator.exchange import put_masks
from annotator.export import make_palette
from annotator.imports import read_uploaded
from annotator.label_maps import Box, bounding_box, pack, unpack
from annotator.operations import operate
from annotator.requests import field, lines, point, query_number, read_json
from annotator.workspace import Workspace


def frame_routes(workspace: Workspace) -> list[Route]:
    """Make the routes under /api/frames/."""
    store, clip = workspace.store, workspace.clip

    def frame_of(request: Request) -> int:
        return store.check_frame(request.path_params["frame"])

    async def image(request: Request) -> Response:
        data = await run_in_threadpool(clip.jpeg, frame_of(request))
        caching = {"Cache-Control": "private, max-age=86400, immutable"}
        return Response(data, media_type="image/jpeg", headers=caching)

    def get_masks(frame: int) -> Response:
        with store.reading():
            state, labels = store.frame(frame), store.labels(frame)
        headers = {
            "X-Revision": str(state.revision),
            "X-States": json.dumps(state.states),
            "Content-Encoding": "gzip",
            "Cache-Control": "no-store",
        }
        return Response(pack(labels), media_type="application/octet-stream", headers=headers)

    async def masks(request: Request) -> Response:
        return await run_in_threadpool(get_masks, frame_of(request))

    async def paint(request: Request) -> Response:
        box = Box(*(query_number(request, n) for n in ("x", "y", "width", "height")))
        height, width = store.size
        if not (0 < box.width <= width and 0 < box.height <= height):
            raise SessionError(f"A rectangle of {box.width}x{box.height} pixels does not fit.")
        label, revision = query_number(request, "label"), query_number(request, "revision")
        frame, body = frame_of(request), await request.body()

        def work() -> dict[str, Any]:
            patch = unpack(body, (box.height, box.width))
            state = edits.paint(store, frame, revision, label, box, patch)
            return workspace.frame_reply(state)

        return JSONResponse(await run_in_threadpool(work))

    async def operation(request: Request) -> Response:
        content = await read_json(request)
        frame = frame_of(request)
        revision, label = field(content, "revision", int, -1), field(content, "label", int, 0)
        name, pixels = field(content, "operation", str, ""), field(content, "pixels", int, 1)
        source = None if content.get("source") is None else field(content, "source", int, 0)

        def work() -> dict[str, Any]:
            state = operate(store, frame, revision, label, name, source, pixels)
            return workspace.frame_reply(state)

        return JSONResponse(await run_in_threadpool(work))

    async def watershed(request: Request) -> Response:
        content, frame = await read_json(request), frame_of(request)
        inside, outside = lines(content, "inside"), lines(content, "outside")
        width = min(max(field(content, "width", int, 5), 1), 200)

        def work() -> Response:
            return _mask_reply(aids.watershed(clip[frame], inside, outside, width))

        return await run_in_threadpool(work)

    async def grabcut(request: Request) -> Response:
        content, frame = await read_json(request), frame_of(request)
        label = store.find_object(field(content, "label", int, 0)).label

        def work() -> Response:
            return _mask_reply(aids.grabcut(clip[frame], store.labels(frame) == label))

        return await run_in_threadpool(work)

    async def scissors(request: Request) -> Response:
        content, frame = await read_json(request), frame_of(request)
        start, end = point(content.get("start")), point(content.get("end"))

        def work() -> list[list[int]]:
            return aids.scissors(clip[frame], start, end).tolist()

        return JSONResponse({"points": await run_in_threadpool(work)})

    async def import_mask(request: Request) -> Response:
        frame, body = query_number(request, "frame"), await request.body()

        def work() -> dict[str, Any]:
            colours = {known.label: known.colour for known in store.objects()}
            mask = read_uploaded(body, store.size, make_palette(colours))
            put_masks(store, store.check_frame(frame), mask)
            workspace.objects_reply()
            return workspace.frame_reply(store.frame(frame))

        return JSONResponse(await run_in_threadpool(work))

    path = "/api/frames/{frame:int}/"
    posts = (paint, operation, watershed, grabcut, scissors)
    return [
        Route(path + "image", image),
        Route(path + "masks", masks),
        *(Route(path + handler.__name__, handler, methods=["POST"]) for handler in posts),
        Route("/api/import", import_mask, methods=["POST"]),
    ]


def _mask_reply(mask: np.ndarray) -> Response:
    """Reply with the bounding box of a mask (H, W) bool, compressed."""
    box = bounding_box(mask)
    numbers = (*box,) if mask.any() else (0, 0, 0, 0)
    headers = {"X-Box": ",".join(map(str, numbers)), "Content-Encoding": "gzip"}
    data = pack(box.of(mask).astype(np.uint8)) if mask.any() else pack(np.zeros(0, np.uint8))
    return Response(data, media_type="application/octet-stream", headers=headers)
