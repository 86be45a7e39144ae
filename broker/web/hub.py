"""What else is found at a BinderHub: versions, repository hosts, badges, the old addresses. Nobody signs in for it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response

from broker import repos
from broker.forwarding import entrance
from broker.web import assets, deps, health

Route = TypeVar("Route", bound=Callable[..., Any])
router = APIRouter(tags=["hub"])
"""What answers in every broker."""
pages = APIRouter(include_in_schema=False)
"""What only answers where there are pages."""
DAY = "public, max-age=86400"
REPO2DOCKER = "jupyter-repo2docker"
IMAGES = {
    "/badge.svg": "badge.svg",
    "/badge_logo.svg": "badge_logo.svg",
    "/assets/images/badge.svg": "badge.svg",
    "/logo_social.png": "logo_social.png",
    "/favicon.ico": "favicon.ico",
    "/favicon_building.ico": "favicon_building.ico",
    "/favicon_success.ico": "favicon_success.ico",
    "/favicon_fail.ico": "favicon_fail.ico",
}


def answered(at: APIRouter, path: str, **described: Any) -> Callable[[Route], Route]:
    """Have this answer GET and HEAD; `described` is what FastAPI's routes take besides."""

    def add(endpoint: Route) -> Route:
        at.add_api_route(path, endpoint, methods=["GET"], **described)
        at.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False, **described)
        return endpoint

    return add


@answered(router, "/versions")
def versions(at: deps.At) -> dict[str, Any]:
    """What runs here. A federation compares this whole object with its prime's, so an operator may set all of it; where peers
    run what is launched here, it is what they all say."""
    if at.settings.versions:
        return dict(at.settings.versions)
    if entrance.is_one(at) and (agreed := entrance.versions(at)):
        return dict(agreed)
    return {
        "builder_info": {"repo2docker-version": _version(REPO2DOCKER)},
        "binderhub": f"0+anybinder.{_version('anybinder')}",
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


@answered(router, "/health")
def healthy(request: Request) -> JSONResponse:
    """200 while launches can be made here, 503 with the reason otherwise. Asked as often as one likes."""
    checks: health.Health = request.app.state.health
    report = checks.report()
    return JSONResponse(report, status_code=200 if report["ok"] else 503)


@answered(router, "/api/repoproviders")
def providers() -> list[dict[str, Any]]:
    """Kinds of repository host, the default first; patterns are JavaScript's."""
    return repos.display()


@answered(pages, "/_config")
def config() -> dict[str, Any]:
    """What older clients read before `/api/repoproviders` there was."""
    return {
        shown["id"]: {
            "text": shown["repo"]["label"],
            "tag_text": "Git ref (branch, tag, or commit)",
            "ref_prop_disabled": not shown["ref"]["enabled"],
            "label_prop_disabled": False,
        }
        for shown in repos.display()
    }


@answered(pages, "/repo/{user}/{name}")
@answered(pages, "/repo/{user}/{name}/{path:path}")
def old_link(user: str, name: str, path: str = "") -> RedirectResponse:
    """Binder's first links. They name the default branch as it was called then, which is understood to this day."""
    opened = f"?urlpath={quote(f'/{path}', safe='')}" if path else ""
    return RedirectResponse(f"/v2/gh/{quote(user, safe='')}/{quote(name, safe='')}/master{opened}", status_code=302)


def image(request: Request) -> Response:
    """A badge or an icon: never without being asked after for more than a day."""
    return FileResponse(assets.FOLDER / IMAGES[request.url.path], headers={"cache-control": DAY})


for _path in IMAGES:
    answered(pages, _path)(image)
