"""What clouds read of this broker as an issuer: where its keys are, and the keys."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from broker import identity
from broker.web import deps

router = APIRouter(tags=["issuer"])


@router.get("/.well-known/openid-configuration")
def discovery(at: deps.At, response: Response) -> dict[str, Any]:
    """This broker as an OpenID issuer towards clouds. It signs nobody in anywhere else."""
    response.headers.update(_cached(at))
    return identity.discovery(at)


@router.get("/.well-known/jwks.json")
def jwks(at: deps.At, response: Response) -> dict[str, Any]:
    """The public halves of the keys that sign its tokens for clouds."""
    response.headers.update(_cached(at))
    return identity.jwks(at)


def _cached(at: deps.At) -> dict[str, str]:
    return {"cache-control": f"public, max-age={identity.cache_seconds(at)}"}
