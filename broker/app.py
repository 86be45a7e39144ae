"""The web application: routes, the errors they raise, and what runs beside them."""

from __future__ import annotations

from typing import cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from broker import crypto, errors, settings
from broker.service import Service
from broker.web import (
    account,
    agent,
    api,
    assets,
    binder,
    builder,
    connect,
    cors,
    deps,
    downloads,
    figures,
    health,
    hub,
    instead,
    issuer,
    language,
    login,
    me,
    oembed,
    pages,
    places,
    running,
    schemas,
    trampoline,
    v2,
)
from providers import errors as clouds
from providers.sentences import say

log = structlog.get_logger(__name__)
CLOUD_STATUS = 502  # a cloud refused: the fault is neither the person's nor ours


def create(service: Service) -> FastAPI:
    """The application of this service. Starts nothing."""
    app = FastAPI(
        title="Anybinder",
        version="0.1.0",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses={"4XX": {"model": schemas.Refusal}, "5XX": {"model": schemas.Refusal}},
    )
    app.state.service = service
    app.state.door, app.state.builds = deps.Door(service), binder.Builds(service)
    app.state.guesses = account.guesses(service.settings)
    app.state.checks = connect.checks(service.settings)
    app.state.link_looks = builder.looks(service.settings)
    app.state.looks = running.looks(service.settings)
    app.state.downloads = set()
    app.state.health, app.state.figures = health.Health(service), figures.Figures(service)
    app.add_middleware(cors.Cors, allow_origin=service.settings.cors_allow_origin)
    app.add_middleware(language.Languages, chosen=service.settings)
    app.add_middleware(deps.Guard, hosts=hosts(service.settings), chosen=service.settings)
    own = (api.router, places.router, running.api, downloads.api, connect.api, me.router, issuer.router)
    for routes in (*own, agent.router, binder.router, hub.router):
        app.include_router(routes)
    hub.answered(app.router, "/metrics", response_class=PlainTextResponse)(metrics)
    if not service.settings.api_only:
        app.include_router(hub.pages)
        app.include_router(login.router)
        app.include_router(pages.router)
        app.include_router(running.router)
        app.include_router(downloads.router)
        app.include_router(connect.router)
        app.include_router(account.router)
        app.include_router(v2.router)
        app.include_router(trampoline.router)
        app.include_router(builder.router)
        app.include_router(instead.router)
        app.include_router(oembed.router)
        app.mount("/static", assets.Assets(), name="static")
    app.add_exception_handler(errors.BrokerError, _told)
    app.add_exception_handler(clouds.ProviderError, _told)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)
    return app


def hosts(chosen: settings.Settings) -> frozenset[str]:
    """Every `Host` this broker answers to. A name that merely resolves to us (DNS rebinding) is none of them."""
    names = {f"{name}:{chosen.port}" for name in ("localhost", "127.0.0.1", "[::1]")}
    if chosen.port == 80:
        names |= {"localhost", "127.0.0.1", "[::1]"}
    if chosen.public_url:
        names.add(chosen.public_url.removeprefix("https://").rstrip("/").lower())
    return frozenset(names)


def metrics(request: Request) -> Response:
    """Prometheus text: ours, and what BinderHub's dashboards read."""
    counted: figures.Figures = request.app.state.figures
    try:
        counted.update()
    except SQLAlchemyError:
        log.exception("uncounted")  # what this process counts itself is told all the same
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _answer(request: Request, status: int, sentence: str, reason: str) -> Response:
    """A page for a browser that wants one, JSON for everybody else."""
    path = request.url.path
    shown = not deps.service_of(request).settings.api_only and not path.startswith(("/api/", "/agent/"))
    if shown and "text/html" in request.headers.get("accept", ""):
        return pages.error_page(request, status, sentence, reason)
    return JSONResponse({"detail": language.known(sentence), "reason": reason}, status_code=status)


async def _told(request: Request, error: Exception) -> Response:
    if isinstance(error, errors.NotSignedIn | errors.SignInAgain) and (led := await login.led(request, error)):
        return led
    status = getattr(error, "status_code", CLOUD_STATUS)
    return _answer(request, status, login.sentence(request, error), getattr(error, "reason", "error"))


async def _invalid(request: Request, error: Exception) -> Response:
    found = cast("RequestValidationError", error).errors()
    wrong = [f"{'.'.join(str(part) for part in one['loc'][1:]) or 'body'}: {_said(one['msg'])}" for one in found]
    return _answer(request, 422, say("That cannot be used: %(reasons)s.", reasons="; ".join(wrong)), "bad_request")


def _said(by_pydantic: str) -> str:
    """A sentence of ours comes back with a word before it that is for programmers."""
    return by_pydantic.removeprefix("Value error, ").rstrip(".")


async def _http(request: Request, error: Exception) -> Response:
    refused = cast("HTTPException", error)
    sentences = {
        404: say("There is no such page here."),
        405: say("This address does not take that kind of request."),
    }
    return _answer(request, refused.status_code, sentences.get(refused.status_code, str(refused.detail)), "http")


async def _unexpected(request: Request, error: Exception) -> Response:
    reference = crypto.new_id(8)
    log.error("unexpected", reference=reference, path=request.url.path, exc_info=error)
    sentence = say(
        "The broker met an error of its own. Its log has more under the reference %(reference)s.", reference=reference
    )
    return _answer(request, 500, sentence, "broker")
