"""Every route of an application, as it was declared: for tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

CHANGING = {"POST", "PUT", "PATCH", "DELETE"}


def of(made: FastAPI) -> list[APIRoute]:
    """All of them, whichever router they came with."""
    return list(_within(made.routes))


def _within(routes: Any) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):
            yield from _within(route.original_router.routes)


def named(made: FastAPI, wanted: Callable[[APIRoute], bool] = lambda _: True) -> set[tuple[str, str]]:
    """Method and path of those that are wanted."""
    return {(method, route.path) for route in of(made) if wanted(route) for method in route.methods or ()}


def asks(route: APIRoute, *who: Callable[..., Any]) -> bool:
    """Whether it depends on one of these, at whatever depth."""

    def within(dependant: Any) -> bool:
        return dependant.call in who or any(map(within, dependant.dependencies))

    return within(route.dependant)


def filled(path: str) -> str:
    """This path with something where it takes parameters."""
    return path.replace("{", "").replace("}", "").replace(":path", "")
