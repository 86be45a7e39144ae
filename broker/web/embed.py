"""The choice inside of a page elsewhere: the script that pages load from here (`static/embed-1.js`).

A version that has been released is never changed, for pages hold the digest of what they load: what changes is a new file, and
the old ones stay.
"""

from __future__ import annotations

import base64
import functools
import hashlib

from starlette.responses import FileResponse, Response

from broker.web import assets, hub

VERSIONS = ("embed-1.js",)
NEWEST = VERSIONS[-1]


@functools.cache
def integrity(name: str = NEWEST) -> str:
    """What a page says of this version, so that its browser runs nothing else. Read once a process."""
    digest = hashlib.sha384((assets.FOLDER / name).read_bytes()).digest()
    return f"sha384-{base64.b64encode(digest).decode()}"


def script(name: str) -> Response:
    """This version of the script."""
    return FileResponse(assets.FOLDER / name, media_type="text/javascript", headers={"cache-control": hub.DAY})


def _serving(name: str) -> functools.partial[Response]:
    return functools.partial(script, name)


for _name in VERSIONS:
    hub.answered(hub.pages, f"/{_name}")(_serving(_name))
hub.answered(hub.pages, "/embed.js")(_serving(NEWEST))
"""For pages that hold no digest: always the newest."""
