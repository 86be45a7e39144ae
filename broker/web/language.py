"""The language of whoever looks: what they chose, else what their browser asks for, else English; and how it says things.

A choice is a cookie. Every page's footer has it as a link, which works without scripts: `?lang=fr` is remembered, and leads
back to the same address without it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import http.cookies
import io
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import babel
from babel import dates, numbers
from babel.messages import catalog, mofile, pofile
from babel.support import NullTranslations, Translations
from markupsafe import Markup, escape
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker import settings
from broker.web import callers
from providers.sentences import Listed, Money, Sentence, written

ENGLISH = "en"
FOLDER = Path(__file__).parent / "locale"
SCRIPTS = "broker/web/static/"
KEPT = ("broker/launches/", "broker/connections.py", "broker/peers/", "broker/repo_hosts.py", "providers/")
"""Where a catalogue says that a message is one of our scripts', or is kept in the row of a launch or a connection."""
KEPT_MOST = 1_000  # characters: a stranger's build may fail with many more, and looking through those takes a while
COOKIE = "anybinder-lang"
COOKIE_SECONDS = 365 * 24 * 3600
QUERY = "lang"
UNREPEATED = ("/go/", "/login/", "/device")
"""What stands behind these is somebody's link, or was told to this request alone: a code is never put into a page."""
SIGNED = ("USD", "EUR", "GBP")  # as broker/budgets.py: what is counted in anything else has its letters behind it


# --- what a language says -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Language:
    """One language, with its catalogue."""

    code: str
    locale: babel.Locale
    translations: NullTranslations
    script: Mapping[str, str]
    """What our scripts say in it; empty for the language that they are written in."""
    kept: Sequence[tuple[re.Pattern[str], str]] = ()
    """What rows keep as text, to be found again by its form."""

    def say(self, told: Any) -> Any:
        """The same in this language: sentences with their values, numbers, sums. Other text is left alone: it is a name."""
        if isinstance(told, Sentence):
            return self._sentence(told)
        if isinstance(told, Listed):
            return told.between.join(self.say(part) for part in told.parts)
        if isinstance(told, Money):
            return self.money(told)
        if isinstance(told, int | float | Decimal) and not isinstance(told, bool):
            return self.number(told)
        return told

    def known(self, text: str) -> str:
        """The same for text that was kept as a string: said in this language where it is one of our sentences."""
        if isinstance(text, Sentence | Listed | Money) or not text or self.code == ENGLISH:
            return self.say(text)
        said = self.translations.ugettext(text)
        return self._recognised(text) if said == text else said

    def _recognised(self, text: str) -> str:
        """What a row of a launch has kept, with its values in it; as it is where it is nothing of ours."""
        if len(text) > KEPT_MOST:
            return text
        for pattern, template in self.kept:
            if found := pattern.fullmatch(text):
                return self.translations.ugettext(template) % found.groupdict()
        return text

    def number(self, value: float | Decimal) -> str:
        """Without needless digits."""
        if self.code == ENGLISH:
            return written(value)
        return numbers.format_decimal(value, locale=self.locale, decimal_quantization=False)

    def money(self, told: Money) -> str:
        """A sum with the sign of its currency where this language has it."""
        if self.code == ENGLISH:
            return str.__str__(told)
        if told.currency not in SIGNED:
            return f"{self.number(told.amount)}\N{NO-BREAK SPACE}{told.currency}"
        amount = told.amount.quantize(Decimal(1).scaleb(-told.digits))
        return numbers.format_currency(amount, told.currency, locale=self.locale, decimal_quantization=False)

    def day(self, moment: dt.datetime) -> str:
        """`3 May 2026`."""
        if self.code == ENGLISH:
            return f"{moment.day} {moment:%B %Y}"
        return dates.format_date(moment, "long", locale=self.locale)

    def moment(self, moment: dt.datetime) -> str:
        """`2026-05-03 14:05 UTC`, or as this language writes it."""
        if self.code == ENGLISH:
            return f"{moment:%Y-%m-%d %H:%M} UTC"
        return f"{dates.format_datetime(moment, 'medium', tzinfo=dt.UTC, locale=self.locale)} UTC"

    def _sentence(self, told: Sentence) -> str:
        if self.code == ENGLISH:
            return str.__str__(told)
        values = {name: self.say(value) for name, value in told.values.items()}
        if not told.plural:
            return self.translations.ugettext(told.template) % values
        # Catalogues count in whole numbers: what lies between two has the words of the lower one, as in French.
        return self.translations.ungettext(told.template, told.plural, int(told.count)) % values


@functools.cache
def available() -> tuple[str, ...]:
    """Codes of the languages there are, English first."""
    return (ENGLISH, *sorted(path.stem for path in FOLDER.glob("*.po")))


@functools.cache
def name_of(code: str) -> str:
    """As it calls itself. Its catalogue is not read for that: every page's footer names all languages."""
    return (babel.Locale.parse(code).get_language_name(code) or code).capitalize()


@functools.cache
def of_code(code: str) -> Language:
    """This language. Its catalogue is read once a process, as people write it: nothing compiled can be older than it."""
    locale = babel.Locale.parse(code)
    if code == ENGLISH:
        return Language(code=code, locale=locale, translations=NullTranslations(), script={})
    with (FOLDER / f"{code}.po").open("rb") as file:
        catalogue = pofile.read_po(file, locale=code)
    compiled = io.BytesIO()
    mofile.write_mo(compiled, catalogue)
    compiled.seek(0)
    kept = [
        (_form(message.id), message.id)
        for message in catalogue
        if isinstance(message.id, str) and "%(" in message.id and _is_in(message, KEPT)
    ]
    script = {str(message.id): str(message.string) for message in catalogue if _is_in(message, SCRIPTS)}
    return Language(code=code, locale=locale, translations=Translations(compiled), script=script, kept=kept)


def _is_in(message: catalog.Message, folder: str | tuple[str, ...]) -> bool:
    return any(place.startswith(folder) for place, _line in message.locations)


def _form(template: str) -> re.Pattern[str]:
    """What its sentences look like, whatever their values are."""
    written, seen = "", set[str]()
    for at, part in enumerate(re.split(r"%\((\w+)\)s", template)):
        if not at % 2:
            written += re.escape(part)
        else:
            written += f"(?P={part})" if part in seen else f"(?P<{part}>.+?)"
            seen.add(part)
    return re.compile(written, re.DOTALL)


# --- whose ----------------------------------------------------------------------------------------------------------

_current: ContextVar[str] = ContextVar("language", default=ENGLISH)


def current() -> Language:
    """That of the request that is being answered; English outside of one."""
    return of_code(_current.get())


def use(scope: Scope) -> None:
    """Answer this request in its language."""
    _current.set(negotiated(scope))


def negotiated(scope: Scope) -> str:
    """The code of the language of this request: asked for in its address, chosen, its browser's, or English."""
    headers = Headers(scope=scope)
    asked = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get(QUERY, "")
    for chosen in (asked, _cookie(headers)):
        if chosen in available():
            return chosen
    return babel.negotiate_locale(accepted(headers.get("accept-language", "")), available(), sep="-") or ENGLISH


def accepted(header: str) -> list[str]:
    """What a browser asks for, the dearest first: `fr-CH, fr;q=0.9, *;q=0.5`. What cannot be read is left out."""
    wanted = []
    for part in header[:500].split(","):
        code, _, quality = part.strip().partition(";")
        try:
            weight = float(quality.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        if weight > 0 and code.strip():
            wanted.append((weight, code.strip()))
    return [code for _weight, code in sorted(wanted, key=lambda each: -each[0])]


def _cookie(headers: Headers) -> str:
    jar: http.cookies.SimpleCookie = http.cookies.SimpleCookie()
    with contextlib.suppress(http.cookies.CookieError):
        jar.load(headers.get("cookie", ""))
    return jar[COOKIE].value if COOKIE in jar else ""


# --- in pages -------------------------------------------------------------------------------------------------------


def shown(told: Any) -> Any:
    """What templates show, in the language of the request."""
    return current().say(told) if isinstance(told, Sentence | Listed | Money) else told


def known(text: str) -> str:
    """The same for text that was kept as a string."""
    return current().known(text)


def spoken(told: Any) -> Any:
    """The same for all that is in a structure which goes out as JSON."""
    if isinstance(told, Mapping):
        return {name: spoken(value) for name, value in told.items()}
    if isinstance(told, list | tuple):
        return [spoken(value) for value in told]
    return shown(told)


def gettext(message: str, /, **values: Any) -> Markup:
    """What `{% trans %}` and `_()` in templates call. Messages may hold HTML; values are escaped."""
    return Markup(current().translations.ugettext(message)) % _values(values)  # noqa: S704  our own catalogues


def ngettext(one: str, many: str, count: int, /, **values: Any) -> Markup:
    """The same with a number that decides about its words."""
    text = current().translations.ungettext(one, many, count)
    return Markup(text) % _values({"num": count, **values})  # noqa: S704  our own catalogues


def _values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: escape(current().say(value)) for name, value in values.items()}


def switch(scope: Scope) -> list[dict[str, str | bool]]:
    """The languages to choose from: each with its code, its own name, and the address of this page in it."""
    path, query = callers.path(scope), scope["query_string"].decode("latin-1")
    if scope["method"] not in ("GET", "HEAD") or path.startswith(UNREPEATED):
        path, query = _before(scope), ""
    told = parse_qsl(query, keep_blank_values=True)
    rest = [(name, value) for name, value in told if name not in (QUERY, "key") and (name != "next" or _is_ours(value))]
    return [
        {
            "code": code,
            "name": name_of(code),
            "here": code == _current.get(),
            "address": f"{path}?{urlencode([*rest, (QUERY, code)])}",
        }
        for code in available()
    ]


def _is_ours(there: str) -> bool:
    """A path of this site; else it stands in no link of ours, whoever looks at it again later."""
    return there.startswith("/") and not there.startswith("//") and "\\" not in there


def _before(scope: Scope) -> str:
    """A page that can be opened, for the answer to a form and for what has more in its address than may be said again."""
    path = callers.path(scope)
    if path.startswith(("/connect/", "/launches/", "/visits/")):
        return path.rpartition("/")[0] if path.endswith(("/extend", "/elsewhere", "/check")) else path
    first = f"/{path.split('/')[1]}"
    return first if first in ("/account", "/device", "/go", "/login") else "/"


class Languages:
    """Around every route: what is answered is in the language of whoever asks, and says so to caches; a choice is kept."""

    def __init__(self, app: ASGIApp, chosen: settings.Settings) -> None:
        self._app = app
        self._secure = bool(chosen.public_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever a page of ours is asked for with `lang` leads to itself without."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if there := self._chosen(scope):
            await there(scope, receive, send)
            return
        use(scope)
        await self._app(scope, receive, _told(send) if _speaks(scope["path"]) else send)

    def _chosen(self, scope: Scope) -> RedirectResponse | None:
        """Back to the same page, with the choice in a cookie. `/go/…` is left alone: its query is somebody's link."""
        wants_page = "text/html" in Headers(scope=scope).get("accept", "")
        path, query = callers.path(scope), scope["query_string"].decode("latin-1")
        asked = parse_qsl(query, keep_blank_values=True)
        code = dict(asked).get(QUERY, "")
        if scope["method"] != "GET" or not wants_page or code not in available() or path.startswith(("/go/", "/api/")):
            return None
        rest = urlencode([(name, value) for name, value in asked if name != QUERY and value])
        there = "/" + path.lstrip("/\\") + (f"?{rest}" if rest else "")
        answer = RedirectResponse(there, status_code=303, headers={"cache-control": "no-store"})
        answer.set_cookie(COOKIE, code, max_age=COOKIE_SECONDS, httponly=True, samesite="lax", secure=self._secure)
        return answer


def _speaks(path: str) -> bool:
    """Whether what is there has sentences in it: not what agents, clouds and BinderHub's clients ask for."""
    return not path.startswith(("/agent/", "/build/", "/static/", "/metrics", "/health", "/versions", "/.well-known/"))


def _told(send: Send) -> Send:
    """With the language in its head, and what it hangs on for whatever keeps a copy."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if headers.get("content-type", "").startswith(("text/html", "application/json", "text/event-stream")):
                headers.setdefault("content-language", current().code)
                headers.add_vary_header("Accept-Language, Cookie")
        await send(message)

    return sending
