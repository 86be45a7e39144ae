"""Sessions as plain processes of this computer, for brokers under test that are told to believe them confined.

`/build` and visitors run nowhere else than in confined places, and real ones (containers, clouds) are not on every
computer that runs the tests. The tests' own repositories are harmless. Nothing but a test may install this:

    environment = confined_local.installed(folder)      # for the broker's process: its backend, and where to find it
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx

from broker import crypto
from providers.local import LocalProvider
from tests.waiting import until

CLONE = Path(__file__).resolve().parent.parent.parent


class ConfinedLocal(LocalProvider):
    """Says what is not true."""

    title = "A place for visitors"

    @property
    def confined(self) -> bool:
        return True


def installed(folder: Path, *, beside: tuple[dict[str, str], ...] = ()) -> dict[str, str]:
    """The environment in which a broker knows it as the backend `open`, which links run on; `beside` are others."""
    facts = folder / "anybinder_confined-0.dist-info"
    facts.mkdir(parents=True, exist_ok=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: anybinder-confined\nVersion: 0\n")
    (facts / "entry_points.txt").write_text(
        "[anybinder.providers]\nconfined = tests.doubles.confined_local:ConfinedLocal\n"
    )
    paths = [str(folder), str(CLONE), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "ANYBINDER_BACKENDS": json.dumps([{"name": "open", "provider": "confined"}, *beside]),
        "ANYBINDER_BINDER_BACKEND": "open",
        "ANYBINDER_RATE_LIMIT": "0",
    }


def end_all(home: Path) -> None:
    """End every session of this broker, visitors' too, and see them gone: nobody's list holds those."""
    keys, at = crypto.Keyring(home), json.loads((home / "broker.json").read_text())
    for launch_id in running(home):
        headers = {"Authorization": f"Bearer {keys.token('launch', launch_id)}"}
        url = f"http://{at['host']}:{at['port']}/api/launches/{launch_id}"
        httpx.delete(url, headers=headers, timeout=30).raise_for_status()
    until(lambda: not running(home), seconds=60, what="sessions that end")


def running(home: Path) -> list[str]:
    """The launches that are not over."""
    with closing(sqlite3.connect(f"file:{home / 'anybinder.sqlite'}?mode=ro", uri=True, timeout=20)) as table:
        return [row[0] for row in table.execute("select id from launches where lower(state) != 'stopped'")]
