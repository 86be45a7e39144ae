"""Secrets at rest: what an envelope is, what opens it, and how the ring of keys is changed under way."""

from __future__ import annotations

import stat
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from broker import errors, sealing, settings

ABOUT = "connections/abc"
Make = Callable[..., sealing.Sealer]


@pytest.fixture
def make(home: Path) -> Make:
    home.mkdir(mode=0o700)
    return lambda **chosen: sealing.Sealer(settings.Settings(home=home, **chosen))


def line(name: str) -> str:
    return f"{name}:{sealing.new_line().partition(':')[2]}"


def write(home: Path, *lines: str) -> None:
    (home / "sealing.keys").write_text("\n".join(lines))


# --- one envelope ---------------------------------------------------------------------------------------------------


def test_an_envelope_names_its_key_and_hides_everything_else(make: Make) -> None:
    sealer = make(sealing_keys=line("first"))
    sealed = sealer.seal("the secret", ABOUT)
    assert sealed[:7] == bytes([1, 5]) + b"first"
    assert len(sealed) == 2 + 5 + 40 + 12 + len("the secret") + 16
    assert b"secret" not in sealed
    assert sealer.seal("the secret", ABOUT) != sealed
    assert "first" not in repr(sealer)


@hypothesis.given(secret=st.text(), about=st.text(max_size=60))
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
def test_whatever_is_sealed_comes_back(secret: str, about: str) -> None:
    sealer = ringed()
    assert sealer.open(sealer.seal(secret, about), about) == secret


@hypothesis.given(secret=st.text(max_size=20), about=st.text(max_size=20), other=st.text(max_size=20))
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
def test_in_another_place_it_opens_nothing(secret: str, about: str, other: str) -> None:
    hypothesis.assume(about != other)
    sealer = ringed()
    with pytest.raises(sealing.Unsealable, match="wrong place"):
        sealer.open(sealer.seal(secret, about), other)


@hypothesis.given(at=st.integers(0, 200), change=st.integers(1, 255), cut=st.booleans())
@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
def test_one_that_is_damaged_or_cut_off_opens_nothing(at: int, change: int, cut: bool) -> None:
    sealer = ringed()
    sealed = bytearray(sealer.seal("s" * 20, ABOUT))
    at %= len(sealed)
    if cut:
        del sealed[at:]
    else:
        sealed[at] ^= change
    with pytest.raises(sealing.Unsealable) as refusal:
        sealer.open(bytes(sealed), ABOUT)
    assert "sss" not in str(refusal.value)


def ringed(ring: str = "k1:" + "A" * 43 + "=") -> sealing.Sealer:
    return sealing.Sealer(settings.Settings(sealing_keys=ring))


# --- where the ring comes from --------------------------------------------------------------------------------------


def test_the_first_secret_makes_a_file_for_the_owner_only(make: Make, home: Path) -> None:
    sealer = make()
    assert not (home / "sealing.keys").exists()
    sealer.seal("x", ABOUT)
    assert stat.S_IMODE((home / "sealing.keys").stat().st_mode) == 0o600


def test_processes_that_start_at_once_agree_on_one_ring(make: Make) -> None:
    sealers = [make() for _ in range(8)]
    together = threading.Barrier(len(sealers))

    def seal(sealer: sealing.Sealer) -> bytes:
        together.wait()
        return sealer.seal("x", ABOUT)

    with ThreadPoolExecutor(len(sealers)) as threads:
        sealed = list(threads.map(seal, sealers))
    assert {other.open(each, ABOUT) for each in sealed for other in sealers} == {"x"}


def test_a_ring_is_read_from_a_setting_a_file_or_a_command(make: Make, tmp_path: Path) -> None:
    one, two = line("one"), line("two")
    (tmp_path / "ring").write_text(f"{one}\n\n{two}\n")
    printing = f'{sys.executable} -c "print({one!r}); print({two!r})"'
    made = [
        make(sealing_keys=f"{one}, {two}"),
        make(sealing_key_file=tmp_path / "ring"),
        make(sealing_key_command=printing),
    ]
    assert [sealer.names for sealer in made] == [["one", "two"]] * 3
    sealed = made[0].seal("x", ABOUT)
    assert {sealer.open(sealed, ABOUT) for sealer in made} == {"x"}


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"sealing_keys": "one"}, "keys new"),
        ({"sealing_keys": "one:c2hvcnQ="}, "keys new"),
        ({"sealing_keys": f"a b:{line('x').partition(':')[2]}"}, "keys new"),
        ({"sealing_keys": " , "}, "keys new"),
        ({"sealing_keys": ",".join("one:" + letter * 43 + "=" for letter in "AE")}, "Two different"),
        ({"sealing_key_file": "/nowhere/ring"}, "cannot be read"),
        ({"sealing_key_command": "/nowhere/command"}, "did not print"),
        ({"sealing_key_command": "false"}, "did not print"),
        ({"sealing_key_command": "'"}, "did not print"),
        ({"sealing_key_command": "true"}, "keys new"),
    ],
)
def test_a_ring_that_is_none_is_refused_in_a_sentence_that_shows_no_key(
    make: Make, home: Path, chosen: dict[str, Any], says: str
) -> None:
    with pytest.raises(errors.BadRequest, match=says) as refusal:
        make(**chosen).seal("x", ABOUT)
    assert "c2hvcnQ" not in str(refusal.value)
    with pytest.raises(errors.BadRequest, match=says):  # a broker that could open nothing does not start
        sealing.check(settings.Settings(home=home, **chosen))


def test_a_broker_without_secrets_starts_without_a_ring_and_gets_none(home: Path) -> None:
    sealing.check(settings.Settings(home=home))
    assert not (home / "sealing.keys").exists()


# --- changing it ----------------------------------------------------------------------------------------------------


def test_a_key_that_is_not_known_is_looked_for_in_the_ring_again(make: Make, home: Path) -> None:
    old, new = line("old"), line("new")
    write(home, old)
    running = make()
    running.seal("x", ABOUT)
    write(home, new, old)
    sealed = make().seal("y", ABOUT)
    assert running.open(sealed, ABOUT) == "y"
    assert sealing.name_of(running.seal("z", ABOUT)) == "new"


def test_a_process_seals_with_the_old_first_key_for_a_minute_at_most(
    make: Make, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, line("old"))
    running = make()
    running.seal("x", ABOUT)
    write(home, line("new"), (home / "sealing.keys").read_text())
    assert sealing.name_of(running.seal("x", ABOUT)) == "old"
    monkeypatch.setattr(sealing, "RING_SECONDS", -1)
    running.seal("x", ABOUT)
    assert sealing.name_of(running.seal("x", ABOUT)) == "new"


def test_a_ring_that_cannot_be_read_for_a_while_goes_on_as_it_was(
    make: Make, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = make()
    sealed = running.seal("x", ABOUT)
    monkeypatch.setattr(sealing, "RING_SECONDS", -1)
    (home / "sealing.keys").write_text("broken")
    assert running.open(sealed, ABOUT) == "x"


def test_a_key_that_is_gone_is_named(make: Make, home: Path) -> None:
    write(home, line("gone"))
    sealed = make().seal("x", ABOUT)
    write(home, line("other"))
    with pytest.raises(sealing.Unsealable, match="“gone”"):
        make().open(sealed, ABOUT)


def test_resealing_changes_the_key_and_not_the_secret(make: Make, home: Path) -> None:
    write(home, line("old"))
    sealer = make()
    sealed = sealer.seal("x", ABOUT)
    assert sealer.resealed(sealed, ABOUT) is None
    name = sealing.add_first(settings.Settings(home=home))
    fresh = sealer.resealed(sealed, ABOUT)
    assert fresh is not None
    assert (sealing.name_of(fresh), sealer.open(fresh, ABOUT)) == (name, "x")
    assert sealer.resealed(fresh, ABOUT) is None


def test_a_key_that_is_added_stands_first_in_a_file_for_the_owner_only(make: Make, home: Path) -> None:
    make().seal("x", ABOUT)
    before = make().names
    added = [sealing.add_first(settings.Settings(home=home)) for _ in range(2)]
    assert make().names == [*reversed(added), *before]
    assert stat.S_IMODE((home / "sealing.keys").stat().st_mode) == 0o600


def test_keys_that_are_added_at_once_are_all_kept(make: Make, home: Path) -> None:
    with ThreadPoolExecutor(6) as threads:
        added = list(threads.map(sealing.add_first, [settings.Settings(home=home)] * 6))
    assert set(added) < set(make().names)


def test_a_ring_that_is_no_file_is_not_written_to(home: Path) -> None:
    with pytest.raises(errors.BadRequest, match="keys reseal"):
        sealing.add_first(settings.Settings(home=home, sealing_keys=line("x")))
