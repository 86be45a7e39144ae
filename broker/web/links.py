"""Launch links as text: what one that somebody pasted means here, and how one is written for a page of an author's. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlencode, urlsplit

from starlette.datastructures import QueryParams

from broker import repos
from broker.repos import errors, urls
from broker.web import views

HUBS = re.compile(r"/(?:v2|build)/(?P<link>[a-z0-9]+/.+)")
"""In the path of a Binder link, whichever hub it is of and wherever on its host that hub lies."""
OLDEST = re.compile(r"/repo/(?P<user>[^/]+)/(?P<name>[^/]+)(?P<opened>/.*)?")
"""Binder's first links."""
ENCODED = re.compile(r"[a-z][a-z0-9+.-]*%3a", re.IGNORECASE)
IN_TEXT = re.compile(r"https?://[^\s()\[\]<>\"']+/(?:v2|build)/[^\s()\[\]<>\"']+")
"""A launch link within a badge's Markdown, HTML or reStructuredText."""
IN_PATH = "/%:@!$&'()*+,;=~-._"
"""What a path of ours keeps as it is; all else is quoted before a browser is sent there."""
ASKED = ("backends", "size", "cpu", "memory", "disk", "gpu", "hours")
"""What a link says besides repository and file, in the order in which it is written."""
NONE = (
    "That is neither a launch link nor the address of a repository. Paste the link of a Binder badge, such as "
    "https://mybinder.org/v2/gh/owner/name/HEAD, or the address of a repository's page."
)


# --- reading ------------------------------------------------------------------------------------------------------------


def pasted(text: str) -> str:
    """What somebody pasted, as one link: out of the text of a badge, and with its scheme. Raises BadSpec."""
    if found := IN_TEXT.search(text):
        text = html.unescape(found[0])
    text = urls.slashed(unfolded(urls.clean(text)))
    return f"https://{text}" if urls.BARE_HOST.match(text) else text


def unfolded(text: str) -> str:
    """The link without the percent-encoding that was put around all of it; one that has none is left as it is."""
    whole = ENCODED.match(text) or ("/" not in text and "%2f" in text.lower())
    return unquote(text) if whole else text


def way(text: str) -> str:
    """The page of this hub where a pasted link leads: the launch form, filled in. It starts nothing, whatever is pasted.

    Always a path of ours. Raises RepoError and nothing else.
    """
    text = pasted(text)
    if path := binder_path(text):
        return path
    spec = repos.RepoSpec.parse(text)
    if spec.provider == "git" and not _may_be_a_repository(spec):
        raise errors.BadSpec(NONE)
    return views.Filled(repo=text).link(linked="1")


def binder_path(text: str) -> str:
    """The same of a Binder link of any hub, `/build` and the oldest ones included; empty where it is none.

    Raises BadSpec for a link of a kind of host that nobody knows here.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        raise errors.BadSpec(NONE) from None
    if parts.scheme.lower() not in ("http", "https"):
        return ""
    path, query = parts.path, [parts.query] * bool(parts.query)
    if any(unquote(part) in (".", "..") for part in path.replace("\\", "/").split("/")):
        raise errors.BadSpec(NONE)
    typed = views.Filled.of(QueryParams(parts.query))
    if path in ("", "/") and typed.typed["repo"]:  # the form of another hub like this one
        return typed.link(linked="1")
    if (oldest := OLDEST.fullmatch(path)) and f".{parts.hostname}".endswith(".mybinder.org"):
        user, name, opened = oldest.group("user", "name", "opened")
        path = f"/v2/gh/{user}/{name}/master"
        query += [urlencode({"urlpath": opened})] * bool(opened)
    found = HUBS.search(path)
    if found is None:
        return ""
    link = found["link"]
    if link.partition("/")[0] not in repos.providers:
        if found.start():  # a folder of a repository may be called so
            return ""
        raise errors.BadSpec(f"No kind of repository host is called “{link.partition('/')[0][:40]}” here. {NONE}")
    there = f"/v2/{quote(link, safe=IN_PATH)}"
    return f"{there}?{quote('&'.join([*query, 'choose=1']), safe=f'{IN_PATH}?')}"


def _may_be_a_repository(spec: repos.RepoSpec) -> bool:
    """Any address could be one. A page with a single word for a path hardly is."""
    parts = urlsplit(spec.repo)
    return parts.scheme not in ("http", "https") or parts.path.count("/") > 1 or parts.path.endswith(".git")


# --- writing ------------------------------------------------------------------------------------------------------------

BADGE_SIZE = (100, 20)  # static/badge.svg


@dataclass(frozen=True, kw_only=True)
class Link:
    """A launch link as an author offers it."""

    hub: str
    """The address that this hub is known by, with a slash at its end."""
    spec: str
    """BinderHub's string, prefix and all."""
    ref: str = ""
    """The end of `spec` that says which of its commits; empty where none is said, or they are not kept apart."""
    title: str
    """The repository in a few words."""
    filled: views.Filled

    @property
    def url(self) -> str:
        """The link itself: BinderHub's own form, which works at any hub once its address is put in place of this one's."""
        asked = self._query()
        return f"{self.hub}v2/{_inert(self.spec)}" + (
            f"?{urlencode(asked, quote_via=quote, safe='/,')}" if asked else ""
        )

    def at(self, place: str, *, straight: bool) -> str:
        """The same where one place is marked already. `straight`: visitors run there; elsewhere people sign in first."""
        told = {"backend": place} if straight else {"backend": place, "choose": "1"}
        return f"{self.url}{'&' if '?' in self.url else '?'}{urlencode(told, quote_via=quote)}"

    @property
    def alt(self) -> str:
        """What stands in for the badge where it is not seen."""
        return f"Launch {self.title}"

    @property
    def badge(self) -> str:
        """The picture, from this hub, which pages of any origin may show."""
        return f"{self.hub}badge.svg"

    @property
    def markdown(self) -> str:
        """A badge for a README, a notebook, or an article in MyST."""
        alt = re.sub(r"([\\\[\]`*_<>])", r"\\\1", self.alt)
        return f"[![{alt}]({self.badge})]({self.url})"

    @property
    def html(self) -> str:
        """A badge for a page."""
        width, height = BADGE_SIZE
        picture = (
            f'<img src="{html.escape(self.badge)}" alt="{html.escape(self.alt)}" width="{width}" height="{height}">'
        )
        return f'<a href="{html.escape(self.url)}">{picture}</a>'

    @property
    def restructured(self) -> str:
        """A badge for Sphinx and docutils."""
        return f".. image:: {self.badge}\n   :target: {self.url}\n   :alt: {self.alt}"

    def element(self, script: str, integrity: str) -> str:
        """The choice inside of a page, by the script at this address; a badge until it has come, and where it never does."""
        typed, repo = self.filled.typed, self.spec
        for written in (self.ref, quote(self.ref, safe="")):
            repo = repo.removesuffix(f"/{written}") if written else repo
        told = {"repo": repo, "ref": self.ref if repo != self.spec else "", "path": typed["path"]}
        told |= {name: typed[name] for name in ASKED}
        attributes = "".join(f' {name}="{html.escape(value)}"' for name, value in told.items() if value)
        return (
            f'<script type="module" src="{html.escape(script)}"\n'
            f'        integrity="{integrity}" crossorigin="anonymous"></script>\n'
            f"<anybinder-launch{attributes}>\n  {self.html}\n</anybinder-launch>"
        )

    def listed(self, places: Mapping[str, str], straight: str) -> str:
        """The choice without a script: a link for each of these places, by name and title. `straight`: the one for visitors."""
        rows = "".join(
            f'\n  <li><a href="{html.escape(self.at(name, straight=name == straight))}">{html.escape(title)}</a></li>'
            for name, title in places.items()
        )
        return f"<p>{html.escape(self.alt)}:</p>\n<ul>{rows}\n</ul>"

    def _query(self) -> list[tuple[str, str]]:
        path, typed = self.filled.typed["path"], self.filled.typed
        opened = [("urlpath", path.lstrip("/")) if path.startswith("/") else ("labpath", path)] * bool(path.strip("/"))
        return [*opened, *((name, typed[name]) for name in ASKED if typed[name])]


def _inert(spec: str) -> str:
    """The same string without what Markdown or HTML would take for an end."""
    return re.sub(r"[()'*!]", lambda found: f"%{ord(found[0]):02X}", spec)
