"""The same question is asked once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from broker import repos
from broker.repos import cache, errors
from tests.waiting import until


def test_identical_look_ups_at_one_time_are_one(github, resolver):
    asking, spec = resolver(github), repos.RepoSpec.parse("o/r")
    github.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(asking.resolve, spec) for _ in range(8)]
        until(lambda: github.requests)
        github.gate.set()
        assert len({each.result().commit for each in waiting}) == 1
    assert github.asked == 1


def test_identical_look_ups_share_a_refusal_and_it_is_not_kept(github, resolver):
    asking, spec = resolver(github), repos.RepoSpec.parse("o/r", ref="soon")
    github.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(asking.resolve, spec) for _ in range(4)]
        until(lambda: github.requests)
        github.gate.set()
        assert all(isinstance(each.exception(), errors.RefNotFound) for each in waiting)
    before = github.asked
    with pytest.raises(errors.RefNotFound):
        asking.resolve(spec)
    assert github.asked == before + 1


def test_what_was_just_looked_up_is_not_asked_again(smart, resolver, clock):
    asking, spec = resolver(resolve_cache_seconds=20), repos.RepoSpec.parse(f"{smart.url}/o/r")
    asking.resolve(spec)
    clock.now += 19
    before = len(smart.requests)
    asking.resolve(spec)
    assert len(smart.requests) == before
    clock.now += 2
    asking.resolve(spec)
    assert len(smart.requests) > before


def test_different_references_are_different_questions(smart, resolver, known):
    asking = resolver()
    found = {asking.resolve(repos.RepoSpec.parse(f"{smart.url}/o/r", ref=ref)).commit for ref in ("main", "v1.0")}
    assert found == {known.main, known.first}


def test_a_cache_forgets_the_oldest_first(clock):
    recent = cache.Recent(2, 10, clock)
    for number in range(3):
        recent.put(number, number)
    assert [recent.get(number) for number in range(3)] == [None, 1, 2]
    assert len(recent) == 2
