"""The line that a person pastes into a server of their own: it fetches our program by digest, and hands it the one-time token.

The token goes through a pipe: it is in no address, and in no argument of a process, where others on that server could read it.
The space before it keeps it out of the history of most shells.
"""

from __future__ import annotations

import datetime as dt
import json
import shlex
from typing import Any

from broker import bootstrap, orders, parcels
from broker.models import Launch, Order, State
from broker.service import Service

FILES = ("agent.py", "builder.tar.gz", "guest.py", "machine.py", "uv-aarch64", "uv-x86_64", "uv.lock")
FETCH = (
    'import hashlib,json,sys,urllib.request as u;t=json.load(sys.stdin);d=t["files"]["guest.py"];'
    'c=u.urlopen(t["broker"]+"/agent/files/"+d,timeout=30).read();'
    'hashlib.sha256(c).hexdigest()==d or sys.exit("Not what was ordered: its digest is wrong.");'
    'm={};exec(c,m);sys.exit(m["main"](t))'
)


def told(service: Service, launch: Launch) -> dict[str, Any]:
    """The line and until when it can be pasted, for the owner of the launch; nothing once it is used or given up."""
    if not launch.offer or launch.state is not State.STARTING or launch.stop_wanted:
        return {}
    order = orders.current(service, launch)
    if order is None or order.instance is None or order.enrolled_at or order.closing_at:
        return {}
    began = max(launch.entered_at, order.first_asked_at or order.created_at)
    until = began + dt.timedelta(minutes=service.settings.boot_minutes)
    return {"paste": line(service, order), "paste_until": until.isoformat()}


def line(service: Service, order: Order) -> str:
    """What any shell of a Linux server takes."""
    digests = parcels.digests()
    config = bootstrap.boot(service, order).config
    said = json.dumps({**config, "files": {name: digests[name] for name in FILES if name in digests}})
    return f" printf %s {shlex.quote(said)} | python3 -Ic {shlex.quote(FETCH)}"
