"""`anybinder keys`: what it shows, and that keys change while brokers run and nobody waits."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from joserfc import jwt
from joserfc.jwk import KeySet

from broker import connections, crypto, errors, identity, people, resealing, sealing, service, settings, signins
from broker.models import Connection, SignIn, SigningKey
from providers import base
from tests.broker import guests
from tests.journeys.conftest import COMMAND, Broker

SECRET = "canary-kept-key"
KIND = base.Kind(
    name="kept",
    title="A key",
    tier=base.Tier.KEPT,
    fields=(base.Setting(name="key", help="The key.", secret=True),),
)


@pytest.fixture
def at(home: Path) -> Iterator[service.Service]:
    made = service.build(settings.Settings(home=home, identities=(guests.IDENTITY,)))
    yield made
    made.close()


@pytest.fixture
def keys(home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`anybinder keys …` in a process of its own."""

    def run(*words: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "ANYBINDER_HOME": str(home), **more}
        command = [*COMMAND, "keys", *words]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == code, (words, ended.stdout, ended.stderr)
        for line in (home / "sealing.keys").read_text().split() if (home / "sealing.keys").exists() else ():
            assert line.partition(":")[2] not in ended.stdout + ended.stderr, "a key was shown"
        return ended

    return run


def filled(at: service.Service, count: int = 3) -> list[str]:
    """Secrets of every kind, in their rows; the ids of the connections."""
    identity.rotate(at)
    for number in range(count):
        person = guests.person(at, f"P{number}")
        vouched = guests.vouched(at, f"P{number}", grant=f"grant {number}")
        signins.begin(at, person, vouched, "browser")
    targets = [f"backend:b{number}" for number in range(count)]
    return [
        connections.connect(at, people.LOCAL, target, [KIND], "kept", {"key": f"{SECRET} {target}"}).id
        for target in targets
    ]


def opened(at: service.Service) -> int:
    """Open every secret there is; how many."""
    with at.db.reading() as session:
        rows = [
            *((f"connections/{one.id}", one.secret) for one in session.scalars(sa.select(Connection))),
            *((f"sign_ins/{one.id}", one.grant) for one in session.scalars(sa.select(SignIn))),
            *((f"signing_keys/{one.kid}", one.private) for one in session.scalars(sa.select(SigningKey))),
        ]
    return len([at.sealer.open(sealed, about) for about, sealed in rows if sealed])


def listed(keys: Callable[..., subprocess.CompletedProcess[str]], use: str, **more: str) -> list[list[str]]:
    rows = [json.loads(line) for line in keys("list", "--json", **more).stdout.splitlines()]
    return [[row["key"], row["state"]] for row in rows if row["for"] == use]


# --- what it shows --------------------------------------------------------------------------------------------------


def test_a_fresh_broker_has_no_keys_and_looking_makes_none(keys: Callable[..., object], home: Path) -> None:
    assert listed(keys, "sealing") + listed(keys, "signing") == []  # type: ignore[arg-type]
    assert not (home / "sealing.keys").exists()


def test_a_new_line_is_one_that_a_ring_takes(keys: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    printed = [keys("new").stdout for _ in range(2)]
    assert [len(sealing.parsed(line)) for line in printed] == [1, 1]
    assert printed[0] != printed[1]


def test_signing_keys_are_listed_with_what_they_do(
    keys: Callable[..., subprocess.CompletedProcess[str]], at: service.Service
) -> None:
    first = identity.jwks(at)["keys"][0]["kid"]
    said = keys("rotate").stderr
    assert "signs in 25 hours" in said
    rows = listed(keys, "signing")
    assert [state for _, state in rows] == ["will sign", "signs"]
    assert rows[1][0] == first
    fresh = keys("rotate", "--at-once").stderr
    states = dict(listed(keys, "signing"))
    assert sorted(states.values()) == ["hidden", "hidden", "signs"]
    assert states[next(kid for kid in states if kid in fresh)] == "signs"
    assert [key["kid"] for key in identity.jwks(at)["keys"]] == [kid for kid in states if states[kid] == "signs"]


# --- sealing keys ---------------------------------------------------------------------------------------------------


def test_rotating_puts_everything_under_a_fresh_key(
    keys: Callable[..., subprocess.CompletedProcess[str]], at: service.Service, home: Path
) -> None:
    filled(at)
    (old,) = at.sealer.names
    before = opened(at)
    ended = keys("rotate-sealing")
    assert f"({old}) may be taken away after" in ended.stderr
    new = at.sealer.names[0]
    assert listed(keys, "sealing") == [[new, f"seals, {before} under it"], [old, "opens, 0 under it"]]
    assert stat.S_IMODE((home / "sealing.keys").stat().st_mode) == 0o600
    (home / "sealing.keys").write_text((home / "sealing.keys").read_text().splitlines()[0])
    assert at.sealer.names == [new]
    assert opened(at) == before
    assert "Nothing to do" in keys("reseal").stderr


def test_a_ring_of_the_environment_is_changed_by_hand(
    keys: Callable[..., subprocess.CompletedProcess[str]], home: Path
) -> None:
    one, two = sealing.new_line(), sealing.new_line()
    made = service.build(settings.Settings(home=home, sealing_keys=one))
    made.close()
    identity.jwks(made)
    refused = keys("rotate-sealing", code=1, ANYBINDER_SEALING_KEYS=one)
    assert "keys new" in refused.stderr
    assert "1 in signing_keys" in keys("reseal", ANYBINDER_SEALING_KEYS=f"{two},{one}").stderr
    names = [line.partition(":")[0] for line in (two, one)]
    states = [[names[0], "seals, 1 under it"], [names[1], "opens, 0 under it"]]
    assert listed(keys, "sealing", ANYBINDER_SEALING_KEYS=f"{two},{one}") == states
    made.db.dispose()


def test_what_no_key_opens_is_named_and_left_as_it_is(
    keys: Callable[..., subprocess.CompletedProcess[str]], at: service.Service, home: Path
) -> None:
    lost = filled(at, 1)
    ring = (home / "sealing.keys").read_text()
    (home / "sealing.keys").write_text(sealing.new_line())
    ended = keys("reseal", code=1)
    assert f"connections/{lost[0]}" in ended.stderr
    assert "missing" in str(listed(keys, "sealing"))
    (home / "sealing.keys").write_text(f"{(home / 'sealing.keys').read_text()}\n{ring}")
    keys("reseal")
    assert at.sealer.names
    assert opened(at) > 0


def test_a_secret_that_is_erased_meanwhile_stays_erased(at: service.Service, monkeypatch: pytest.MonkeyPatch) -> None:
    erased, changed, other = filled(at)
    before = at.sealer.resealed

    def meanwhile(sealed: bytes, about: str, *, fresh: bool = True) -> bytes | None:
        """Somebody else writes after it was read, and before it is written again."""
        if about == f"connections/{erased}":
            write(at, erased, None)
            write(at, changed, at.sealer.seal("newer", f"connections/{changed}"))
        return before(sealed, about, fresh=fresh)

    monkeypatch.setattr(at.sealer, "resealed", meanwhile)
    sealing.add_first(at.settings)
    resealing.reseal(at)
    with at.db.reading() as session:
        found = {one.id: one.secret for one in session.scalars(sa.select(Connection))}
    assert found[erased] is None
    assert at.sealer.open(found[changed] or b"", f"connections/{changed}") == "newer"
    assert SECRET in at.sealer.open(found[other] or b"", f"connections/{other}")


def write(at: service.Service, connection_id: str, secret: bytes | None) -> None:
    with at.db.transaction() as session:
        session.execute(sa.update(Connection).where(Connection.id == connection_id).values(secret=secret))


def test_many_are_moved_in_small_steps(at: service.Service) -> None:
    filled(at, 12)
    sealing.add_first(at.settings)
    longest = 0
    said: list[int] = []
    sa.event.listen(at.db.engine, "commit", lambda _: said.append(1))
    came = resealing.reseal(at, batch=5)
    longest = came.done.total()
    assert (came.done["connections"], came.done["sign_ins"], came.shut) == (12, 12, ())
    assert len(said) > longest / 5
    assert resealing.reseal(at).done == {}


def test_no_column_of_sealed_secrets_is_left_out() -> None:
    """Digests have 32 bytes; every other column of bytes is sealed, but for the hash that an agent's token is known by."""
    tables = Connection.metadata.tables.values()
    free = {str(column) for table in tables for column in table.columns
            if isinstance(column.type, sa.LargeBinary) and column.type.length != 32}  # fmt: skip
    named = {f"{name.class_.__tablename__}.{secret.key}" for name, secret in resealing.PLACES}
    assert named == free - {"orders.agent_hash"}


def test_the_same_on_postgresql(home: Path, postgres_url: str) -> None:
    made = service.build(settings.Settings(home=home, database_url=postgres_url))  # type: ignore[arg-type]
    filled(made, 7)
    name = sealing.add_first(made.settings)
    came = resealing.reseal(made, batch=3)
    assert (came.done["connections"], came.done["sign_ins"], came.shut) == (7, 7, ())
    assert set(resealing.under(made)) == {name}
    assert opened(made) == came.done.total()
    made.close()


def test_without_a_ring_nothing_is_touched(home: Path) -> None:
    made = service.build(settings.Settings(home=home, sealing_key_file=home / "missing"))
    with pytest.raises(errors.BadRequest, match="cannot be read"):
        resealing.reseal(made)
    made.close()


# --- while brokers run ----------------------------------------------------------------------------------------------


def test_keys_change_under_a_running_broker_and_nobody_notices(
    home: Path, keys: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """A real broker publishes its keys, threads of another process sign and seal, and both kinds of key change twice."""
    broker = Broker(home, {})
    broker.start("up", "--no-browser", "--port", "0")
    try:
        broker.wait()
        at = service.build(settings.Settings(home=home))
        ids = filled(at, 4)
        over = threading.Event()
        done = [0] * 2

        def use(number: int) -> None:
            """Open, seal anew, sign; until told to stop."""
            while not over.is_set():
                found = connections.row(at, ids[number])
                assert found is not None
                assert SECRET in connections.opened(at, found)
                write(at, ids[number], at.sealer.seal(f"{SECRET} {crypto.new_id(8)}", f"connections/{ids[number]}"))
                token = identity.token(at, "launch:x", base.Assertion(audience="cloud"))
                jwks = broker.api("GET", "/.well-known/jwks.json").raise_for_status().json()
                assert jwt.decode(token, KeySet.import_key_set(jwks)).claims["aud"] == "cloud"
                done[number] += 1

        with ThreadPoolExecutor(2) as threads:
            busy = [threads.submit(use, number) for number in range(2)]
            try:
                for _ in range(2):
                    keys("rotate-sealing")
                    keys("rotate")
            finally:
                over.set()
            for each in busy:
                each.result()
        assert min(done) > 3
        # The old lines go once nothing is under them.
        keys("reseal")
        (first, *old) = at.sealer.names
        assert len(old) == 2
        assert [state for name, state in listed(keys, "sealing") if name in old] == ["opens, 0 under it"] * 2
        (home / "sealing.keys").write_text((home / "sealing.keys").read_text().splitlines()[0] + "\n")
        assert at.sealer.names == [first]
        assert opened(at) >= 8
        assert broker.api("GET", "/.well-known/jwks.json").status_code == 200
        at.close()
    finally:
        broker.close()
    for secret in (SECRET, *(line.partition(":")[2] for line in (home / "sealing.keys").read_text().split())):
        assert secret not in broker.log()
