"""Who I am and my API tokens, as JSON; and how a command line is let in."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from broker import api_tokens, devices, errors
from broker.models import ApiToken
from broker.web import callers, deps

router = APIRouter(prefix="/api", tags=["account"])
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
UNSTORED = {"cache-control": "no-store"}


class TokenRequest(BaseModel):
    """A token that is wanted."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    scopes: list[str] = Field(min_length=1, max_length=len(api_tokens.SCOPES))
    days: float | None = Field(None, gt=0, le=3660)


@router.get("/me")
def me(asking: deps.Asking) -> dict[str, Any]:
    """Who I am here, and what I ask with may do."""
    return {
        "id": asking.id,
        "name": asking.name,
        "local": asking.local,
        "signed_in_at": _iso(asking.signed_in_at),
        "providers": sorted(asking.providers),
        "groups": sorted(asking.groups),
        "entitlements": sorted(asking.entitlements),
        "affiliations": sorted(asking.affiliations),
        "scopes": [scope for scope in api_tokens.SCOPES if asking.may(scope)],
        "token": asking.token or None,
    }


@router.get("/tokens")
def index(asking: deps.Asking, at: deps.At) -> list[dict[str, Any]]:
    """My API tokens that are good, newest first; never their texts."""
    return [token_json(token) for token in api_tokens.of(at, asking)]


@router.post("/tokens", status_code=201)
def create(asking: deps.InPerson, at: deps.At, wanted: TokenRequest, response: Response) -> dict[str, Any]:
    """A new API token. Its text is in this answer and can be had nowhere else. No token makes another."""
    token, text = api_tokens.create(at, asking, name=wanted.name, scopes=wanted.scopes, days=wanted.days)
    response.headers.update(UNSTORED)
    return {**token_json(token), "token": text}


@router.delete("/tokens/{token_id}", status_code=204)
def revoke(request: Request, at: deps.At, token_id: str) -> Response:
    """This token of mine opens nothing any more. May be repeated. A token itself may revoke itself, and no other."""
    asking = deps.signed_in(request)
    if asking is None or asking.token != token_id:
        asking = deps.in_person(request)
    api_tokens.revoke(at, asking, token_id)
    return Response(status_code=204)


@router.post("/device")
def begin(
    request: Request,
    at: deps.At,
    name: Annotated[str, Form(max_length=200)] = "",
    scope: Annotated[str, Form(max_length=64)] = "read launch",
    client_id: Annotated[str, Form(max_length=200)] = "",  # noqa: ARG001  RFC 8628 has every client name itself
) -> JSONResponse:
    """A command line that wants in, by RFC 8628: shows its person `user_code`, for them to type at `verification_uri`."""
    network = callers.network(callers.address(request.scope, at.settings.trusted_proxies))
    begun = devices.begin(at, name=name, scopes=scope.split(), asked_from=network)
    told = {
        "device_code": begun.device_code,
        "user_code": begun.user_code,
        "verification_uri": f"{at.settings.own_address}/device",
        "expires_in": begun.expires_in,
        "interval": begun.interval,
    }
    return JSONResponse(told, headers=UNSTORED)


@router.post("/device/token")
def collect(
    at: deps.At,
    device_code: Annotated[str, Form(max_length=200)] = "",
    grant_type: Annotated[str, Form(max_length=100)] = DEVICE_GRANT,
    client_id: Annotated[str, Form(max_length=200)] = "",  # noqa: ARG001
) -> JSONResponse:
    """Its token, once its person has let it in; until then 400 with the `error` of RFC 8628."""
    try:
        if grant_type != DEVICE_GRANT:
            raise UnsupportedGrant
        token, text = devices.collect(at, device_code)
    except errors.BrokerError as refusal:
        said = {"error": refusal.reason, "error_description": str(refusal)}
        said |= {"detail": str(refusal), "reason": refusal.reason}
        return JSONResponse(said, status_code=refusal.status_code, headers=UNSTORED)
    left = token.ends_at - at.now()
    told = {
        "access_token": text,
        "token_type": "Bearer",
        "expires_in": int(left.total_seconds()),
        "scope": token.scopes,
        "token_id": token.id,
    }
    return JSONResponse(told, headers=UNSTORED)


class UnsupportedGrant(errors.BadRequest):
    """Only device codes are taken here."""

    reason = "unsupported_grant_type"


def token_json(token: ApiToken) -> dict[str, Any]:
    """A token without its text."""
    return {
        "id": token.id,
        "name": token.name,
        "scopes": token.scopes.split(),
        "created_at": _iso(token.created_at),
        "ends_at": _iso(token.ends_at),
        "used_at": _iso(token.used_at),
    }


def _iso(moment: dt.datetime | None) -> str | None:
    return moment.isoformat() if moment else None
