"""Where machines call: what they fetch, and their agents enrolling and reporting. The tunnel itself is served by the front,
before ASGI."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, Response

from broker import errors, instances, parcels
from broker.web import deps

router = APIRouter(prefix="/agent", tags=["agent"])


@router.post("/enrol")
def enrol(request: Request, at: deps.At, said: instances.Enrolment) -> dict[str, Any]:
    """Once an order; see instances.enrol."""
    return instances.enrol(at, deps.bearer(request), said)


@router.post("/report")
def report(request: Request, at: deps.At, said: instances.Report) -> dict[str, Any]:
    """As often as there is something to say; see instances.report."""
    return instances.report(at, deps.bearer(request), said)


@router.get(
    "/files/{sha256}",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def file(sha256: str) -> Response:
    """What a new machine fetches, by its digest: open to all, and the same for ever. See parcels."""
    parcel = parcels.by_digest(sha256)
    if parcel is None:
        raise errors.NotFound("There is no file of this digest here, or none any more.")
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    if parcel.path is not None:
        return FileResponse(parcel.path, media_type="application/octet-stream", headers=headers)
    return Response(parcel.content, media_type="application/octet-stream", headers=headers)
