"""What clouds read of this broker as an issuer: where its keys are, and the keys."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from broker import identity
from broker.web import deps

router = APIRouter(tags=["issuer"])
CACHED = {"cache-control": f"public, max-age={identity.JWKS_SECONDS}"}


@router.get("/.well-known/openid-configuration")
def discovery(at: deps.At, response: Response) -> dict[str, Any]:
    """This broker as an OpenID issuer towards clouds. It signs nobody in anywhere else."""
    response.headers.update(CACHED)
    return identity.discovery(at)


@router.get("/.well-known/jwks.json")
def jwks(at: deps.At, response: Response) -> dict[str, Any]:
    """The public halves of the keys that sign its tokens for clouds."""
    response.headers.update(CACHED)
    return identity.jwks(at)
