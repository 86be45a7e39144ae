"""Times, prices and numbers as people say them. Templates use these as filters."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

from markupsafe import Markup, escape

from broker import budgets
from broker.web import language
from providers.sentences import Sentence, say

MINUTE, HOUR, DAY = 60, 3600, 86400


def span(seconds: float) -> str:
    """`12 s`, `3 min`, `2 h 5 min`, `3 days`: two words at most, nothing more exact than it is useful."""
    return language.current().say(_span(max(0, round(seconds))))


def _span(seconds: int) -> Sentence:
    if seconds < MINUTE:
        return say("%(seconds)s s", seconds=seconds)
    if seconds < HOUR:
        return say("%(minutes)s min", minutes=seconds // MINUTE)
    if seconds >= 2 * DAY:
        return say("%(days)s days", days=seconds // DAY)
    hours, minutes = seconds // HOUR, seconds % HOUR // MINUTE
    if minutes:
        return say("%(hours)s h %(minutes)s min", hours=hours, minutes=minutes)
    return say("%(hours)s h", hours=hours)


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
        return language.current().say(say("just now"))
    time = _span(round(abs(passed)))
    return language.current().say(say("%(time)s ago", time=time) if passed > 0 else say("in %(time)s", time=time))


def ago(moment: str) -> Markup:
    """The same as an element that static/times.js keeps right: a value for sentences."""
    return Markup('<time datetime="{}" data-relative>{}</time>').format(moment, relative(moment))


def lasting(moment: str) -> Markup:
    """For how long that is already, in the same way."""
    return Markup('<time datetime="{}" data-span>{}</time>').format(moment, span(since(moment)))


def day(moment: str) -> Markup:
    """`3 May 2026`."""
    said = language.current().day(dt.datetime.fromisoformat(moment))
    return Markup('<time datetime="{}">{}</time>').format(moment, said)


def exactly(told: str) -> str:
    """`2026-05-03 14:05 UTC`, for whoever wants to know exactly."""
    return language.current().moment(dt.datetime.fromisoformat(told).astimezone(dt.UTC))


def price(per_hour: Decimal | None) -> str:
    """What an hour costs, as far as that is known."""
    if per_hour is None:
        return say("price unknown")
    return say("free") if per_hour == 0 else say("%(price)s per hour", price=per_hour.normalize())


def hourly(told: str | None, currency: str) -> str:
    """The price of an hour as JSON has it, to the digit: a tenth of a cent an hour is nine dollars in a year."""
    if told is None:
        return say("unknown")
    known = Decimal(told)
    return budgets.exact(known, currency) if known else say("free")


def spent(told: str | None, currency: str) -> str:
    """A cost as JSON has it."""
    if told is None:
        return say("unknown")
    return budgets.money(Decimal(told), currency) if Decimal(told) else say("nothing")


def opening(words: str) -> str:
    """Words that begin something: their first letter is a capital."""
    said = language.shown(words)
    return said[:1].upper() + said[1:]


def abroad(address: str) -> Markup:
    """What a link has that leads away from here, in a tab of its own."""
    return Markup('href="{}" rel="noreferrer noopener" target="_blank"').format(address)


def code(sentence: str) -> Markup:
    """A sentence whose `words in backticks` are set as what one types."""
    parts = (
        Markup("<code>{}</code>").format(part) if at % 2 else escape(part)
        for at, part in enumerate(language.known(sentence).split("`"))
    )
    return Markup("").join(parts)


def breakable(address: str) -> Markup:
    """An address that may be broken after its slashes and nowhere else, as long as there is room."""
    return Markup("/<wbr>").join(escape(part) for part in address.split("/"))  # every part is escaped
