"""Where agents call: enrolling and reporting. The tunnel itself is served by the front, before ASGI."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from broker import instances
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
