"""What the checks of the schedules are worth: each build that is broken on purpose is caught, by the fault that it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.broker.conftest import Bench
from tests.peers import plans
from tests.peers.broken import BROKEN
from tests.peers.play import play

SOON = 6.0
"""Seconds after which a launch counts as lost here: long after a sound build has settled the same schedule."""


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_build_is_caught(name: str, make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    broken = BROKEN[name]
    broken.patch(monkeypatch)
    found = [fault for lie in broken.lies for fault in play(_plan(lie, kills=broken.kills), make_bench, SOON).faults]
    assert any(broken.says in fault for fault in found), found


def _plan(lie: str, *, kills: bool) -> plans.Plan:
    plan = plans.of(lie)
    return replace(plan, kill=(0, 0, 3, "restart")) if kills else plan
