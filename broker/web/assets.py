"""The files that pages are made of besides HTML: sent once, then kept by browsers until they change."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from urllib.parse import parse_qs

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = Path(__file__).parent / "static"
KEEP = "public, max-age=31536000, immutable"  # its address changes with its content
ASK = "no-cache"  # may be kept, but asked after each time


class Assets(StaticFiles):
    """`/static`: what is asked for by its version may be kept for good, everything else is asked after."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER)

    def file_response(
        self, full_path: os.PathLike[str] | str, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """The file, or 304 where the browser has it."""
        answer = super().file_response(full_path, stat_result, scope, status_code)
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("v")
        answer.headers["cache-control"] = KEEP if asked == [version(Path(full_path).name)] else ASK
        return answer


def address(name: str) -> str:
    """Where a page finds this file, as it is now."""
    return f"/static/{name}?v={version(name)}"


@functools.cache
def version(name: str) -> str:
    """Twelve digits that change when the file does. Read once a process."""
    found = FOLDER / name
    return hashlib.sha256(found.read_bytes()).hexdigest()[:12] if found.is_file() else ""
