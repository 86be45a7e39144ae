"""Imports a broker once, and forks as many as wanted: a line of JSON in, the process number out. Ends with its input.

`python -m tests.crashes.zygote`. A start takes a few milliseconds instead of a second, so that thousands can be killed.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

from tests.crashes import children


def main() -> None:
    warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    gc.collect()
    gc.freeze()
    say("ready")
    while line := sys.stdin.readline():
        say(str(fork(json.loads(line))))


def fork(told: dict[str, object]) -> int:
    if pid := os.fork():
        return pid
    status = 1
    try:
        children.prepare(told, Path(str(told["log"])))
        children.be(told)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def warm_up() -> None:
    """Import all that a broker imports, late ones too: it is made once, in vain."""
    import psycopg  # noqa: F401
    import uvicorn.lifespan.on
    import uvicorn.loops.uvloop  # noqa: F401

    from broker import placement, service, serving, settings
    from broker.people import LOCAL
    from providers.local import LocalProvider  # noqa: F401
    from providers.openstack import OpenStackProvider  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        fake = settings.BackendSetting(name="fake", provider="fake", configuration={"socket": "none"})
        at = service.build(settings.Settings(home=Path(folder) / "home", port=1, backends=(fake,)))
        serving.build(at)
        placement.places(at, LOCAL)
        at.close()
    warm_up_the_sdk()


def warm_up_the_sdk() -> None:
    """AWS's own descriptions are megabytes of JSON: read once, here."""
    from providers.aws import clients

    place, keys = clients.Place(region="eu-central-1"), {"access_key_id": "x", "secret_access_key": "x"}
    for service in ("ec2", "sts", "ssm", "scheduler", "iam"):
        clients._client(service, place, keys)


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
