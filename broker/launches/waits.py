"""How long steps wait before they look again, where nobody nudges them."""

from __future__ import annotations

import datetime as dt

RETRY_SECONDS = 5  # when a cloud is out of reach
GONE_SECONDS = 0.25  # between two looks at something that is being ended, at first
GONE_SECONDS_MOST = 5.0  # and later: a cloud takes a minute to end a machine, and counts the questions of an account
TEARDOWN = dt.timedelta(minutes=15)  # that a credential must be good for after the launch's deadline
LOOK_SECONDS = 2  # between two looks at an instance whose agent is expected to speak by itself

LOOK_MOST_SECONDS = 15  # with a thousand machines booting, looks every 2 s took all of a processor


def until_look(waited: dt.timedelta) -> float:
    """Until the next look at a machine that has been coming up for so long: as long again, for its agent's first word is
    a nudge and comes before."""
    return min(LOOK_MOST_SECONDS, max(LOOK_SECONDS, waited.total_seconds()))


def until_watch(heartbeat: float, *ends: dt.timedelta) -> float:
    """Until the next look at a running session: three reports of its agent, which nudges where something has changed, but no
    longer than until the first of these ends."""
    return max(1.0, min(3 * heartbeat, *(end.total_seconds() for end in ends)))


def until_gone(since: dt.timedelta) -> float:
    """Until the next look at something that has been ending for so long: an eighth of that more."""
    return min(max(GONE_SECONDS, since.total_seconds() / 8), max(GONE_SECONDS, GONE_SECONDS_MOST))
