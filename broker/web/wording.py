"""Times, prices and numbers as people say them. Templates use these as filters."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

from markupsafe import Markup, escape

from broker import budgets

MINUTE, HOUR, DAY = 60, 3600, 86400


def span(seconds: float) -> str:
    """`12 s`, `3 min`, `2 h 5 min`, `3 days`: two words at most, nothing more exact than it is useful."""
    seconds = max(0, round(seconds))
    if seconds < MINUTE:
        return f"{seconds} s"
    if seconds < HOUR:
        return f"{seconds // MINUTE} min"
    if seconds < 2 * DAY:
        hours, minutes = seconds // HOUR, seconds % HOUR // MINUTE
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{seconds // DAY} days"


def stopwatch(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:03`."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def since(moment: str | None, until: str | None = None) -> float:
    """Seconds from this moment to another, or to now."""
    if not moment:
        return 0.0
    end = dt.datetime.fromisoformat(until) if until else dt.datetime.now(dt.UTC)
    return (end - dt.datetime.fromisoformat(moment)).total_seconds()


def relative(moment: str) -> str:
    """`just now`, `3 min ago`, `in 5 h 59 min`. static/times.js says it the same way as time goes on."""
    passed = since(moment)
    if -5 < passed < 10:
        return "just now"
    return f"{span(passed)} ago" if passed > 0 else f"in {span(-passed)}"


def price(per_hour: Decimal | None) -> str:
    """What an hour costs, as far as that is known."""
    if per_hour is None:
        return "price unknown"
    return "free" if per_hour == 0 else f"{per_hour.normalize():f} per hour"


def hourly(told: str | None, currency: str) -> str:
    """The price of an hour as JSON has it, to the digit: a tenth of a cent an hour is nine dollars in a year."""
    if told is None:
        return "unknown"
    known = Decimal(told)
    return budgets.exact(known, currency) if known else "free"


def spent(told: str | None, currency: str) -> str:
    """A cost as JSON has it."""
    if told is None:
        return "unknown"
    return budgets.money(Decimal(told), currency) if Decimal(told) else "nothing"


def code(sentence: str) -> Markup:
    """A sentence whose `words in backticks` are set as what one types."""
    parts = (
        Markup("<code>{}</code>").format(part) if at % 2 else escape(part)
        for at, part in enumerate(sentence.split("`"))
    )
    return Markup("").join(parts)


def breakable(address: str) -> Markup:
    """An address that may be broken after its slashes and nowhere else, as long as there is room."""
    return Markup("/<wbr>").join(escape(part) for part in address.split("/"))  # every part is escaped
