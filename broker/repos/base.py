"""The words: what was asked for (RepoSpec), what it is (Resolved), what knows one kind of host (RepoProvider)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, quote, urlsplit

from broker.repos import errors, urls
from providers.sentences import say

if TYPE_CHECKING:
    from broker.repos.asking import Asking

providers: dict[str, RepoProvider] = {}
"""By prefix, in the order in which people are offered them."""


NOWHERE_ELSE: Mapping[str, str] = MappingProxyType({})


def register(provider: RepoProvider) -> None:
    """From now on its prefix is understood."""
    providers[provider.prefix] = provider


@dataclass(frozen=True, kw_only=True)
class RepoSpec:
    """What somebody wants to open. `str()` gives BinderHub's own string; parsing that gives an equal spec again."""

    provider: str
    repo: str
    """Which repository, in the words of its provider: `owner/name`, or an address."""
    ref: str = "HEAD"
    path: str = ""
    """File or folder to open."""
    urlpath: str = ""
    """What a launch link asks to open that is no file: `rstudio`, `git-pull?repo=…`. Relative, else unchecked."""
    divided: bool = True
    """False: `ref` and `path` come from a web address such as `/tree/a/b/c`, and only the repository knows where the
    name of the branch ends. Resolving decides."""
    located: bool = True
    """False: `repo` and `ref` come from a link that does not keep them apart, and only the host knows where the
    repository's address ends. Until resolving decides, `repo` is the longest it can be."""

    @classmethod
    def parse(cls, text: str, ref: str | None = None, homes: Mapping[str, str] = NOWHERE_ELSE) -> RepoSpec:
        """What this text means; `ref`, where given, wins over one in it. Raises RepoError and nothing else.

        `homes`: by prefix where the operator has a host of this kind instead of the public one; see `Resolver.parse`.
        """
        spec = _parse(urls.clean(text), homes)
        return spec.at(ref) if ref else spec

    def at(self, ref: str) -> RepoSpec:
        """The same with this branch, tag or commit."""
        ref, path, repo = urls.ref(ref.strip()), self.path, self.repo
        together = f"{self.ref}/{path}"
        if not self.divided and together.startswith(f"{ref}/"):
            path = together.removeprefix(f"{ref}/")
        if not self.located and ref.endswith(f"/{self.ref}"):
            repo = f"{repo}/{self.ref}".removesuffix(f"/{ref}")
        return replace(self, repo=repo, ref=ref, path=path, divided=True, located=True)

    @property
    def called(self) -> str:
        """The repository as people call it: without its scheme."""
        return self.repo.partition("://")[2].removesuffix(".git") or self.repo

    @property
    def spec(self) -> str:
        """BinderHub's string without the prefix."""
        return providers[self.provider].spec(self)

    def __str__(self) -> str:
        return f"{self.provider}/{self.spec}"


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What a spec is right now, fixed for good: the same commit gives the same files."""

    spec: RepoSpec
    commit: str
    """What is fixed, at most 128 characters of `A-Za-z0-9._:@+-`: 40 hex digits for git, else the host's own version."""
    repo_url: str
    """What `git clone` takes."""
    web_url: str
    """Where a person looks at it; the clone address where no web page is known."""
    slug: str
    """Short and readable, of letters, digits and `-`: for names of things made for this repository."""
    ref: str
    """The branch, tag or commit that was asked for."""
    path: str
    spec_string: str
    """`gh/owner/name/<commit>`."""
    via: str = ""
    """Who said so: `GitHub API`, `git ls-remote`, …"""
    note: str = ""
    """A sentence for the person where something else than they wrote was taken; else empty."""
    content: Mapping[str, Any] = field(default_factory=lambda: {"kind": "git"})
    """How the instance gets the files, as JSON without secrets: `git` clones, `files` downloads a list, `image` runs one."""
    lasting: str = ""
    """A sentence where the host does not promise the same files for the same version for ever; else empty."""
    opened_with: str = ""
    """The connection of the person's that opened it; empty where it is there for everybody."""


class RepoProvider(ABC):
    """One kind of host. Stateless; everything it needs to look something up is handed in as `asking`."""

    prefix: ClassVar[str]
    title: ClassVar[str]
    api: ClassVar[str] = ""
    """Where its interface answers, unless the operator names another; see `Asking.api`."""
    url: ClassVar[str] = ""
    """Where its pages are, unless the operator names another."""
    repo_label: ClassVar[str]
    repo_example: ClassVar[str]
    url_encode: ClassVar[bool] = False
    has_ref: ClassVar[bool] = True
    one_home: ClassVar[bool] = False
    """All its repositories are below `url`: one operator's GitLab is not another's."""
    takes_every_address: ClassVar[bool] = False
    """Such a provider is shown a pasted address after all others."""
    validate_regex: ClassVar[str]
    detect_regex: ClassVar[str] = ""
    """JavaScript's spelling, with `(?<repo>…)`."""

    @abstractmethod
    def parse(self, spec: str) -> RepoSpec:
        """What BinderHub's string without prefix means. Raises BadSpec or NotAllowed."""

    @abstractmethod
    def spec(self, spec: RepoSpec) -> str:
        """BinderHub's string without prefix."""

    @abstractmethod
    def detect(self, url: urls.Url) -> RepoSpec | None:
        """What a pasted web address means, if it is one of ours. Raises BadSpec where it is but cannot be right."""

    @abstractmethod
    def resolve(self, spec: RepoSpec, asking: Asking) -> Resolved:
        """Ask the host. Raises RepoError; blocks no longer than `settings.git_seconds`, or little more."""

    def display(self) -> dict[str, Any]:
        """This provider's item of BinderHub's `/api/repoproviders`."""
        shown: dict[str, Any] = {
            "displayName": self.title,
            "id": self.prefix,
            "spec": {"validateRegex": self.validate_regex},
            "repo": {"label": self.repo_label, "placeholder": self.repo_example, "urlEncode": self.url_encode},
            "ref": {"enabled": True, "default": "HEAD"} if self.has_ref else {"enabled": False},
        }
        return shown | ({"detect": {"regex": self.detect_regex}} if self.detect_regex else {})


def _parse(text: str, homes: Mapping[str, str]) -> RepoSpec:
    """The order matters: what has a scheme is an address; then BinderHub's strings; then owner/name."""
    text = urls.spelled_out(text)
    if urls.has_scheme(text) or urls.SCP.fullmatch(text) or urls.BARE_HOST.match(text):
        return _from_url(text, homes)
    prefix, _, rest = text.partition("/")
    if prefix in providers:
        return _from_string(prefix, rest)
    if text.count("/") == 1 and "gh" in providers:
        return providers["gh"].parse(text)
    known = ", ".join(f"{name}/" for name in providers)
    raise errors.BadSpec(
        say(
            "“%(text)s” is not the address of a repository. Paste the address of its web page, write "
            "owner/name for GitHub, or begin with one of %(known)s.",
            text=text[:80],
            known=known,
        )
    )


def _from_string(prefix: str, rest: str) -> RepoSpec:
    """`git/git` is both a prefix with nothing behind it and a repository on GitHub: who can read it, has it."""
    try:
        return providers[prefix].parse(rest.rstrip("/"))
    except errors.BadSpec:
        if rest.strip("/") and "/" not in rest.strip("/") and "%" not in rest:
            return providers["gh"].parse(f"{prefix}/{rest}")
        raise


def _from_url(text: str, homes: Mapping[str, str]) -> RepoSpec:
    if link := _launch_link(text) or _link_with_a_repository(text, homes):
        return link
    return _detected(text, homes)


def _detected(text: str, homes: Mapping[str, str]) -> RepoSpec:
    """What the first host that knows this address says it means."""
    url = urls.split(text)
    for provider in sorted(providers.values(), key=lambda each: each.takes_every_address):
        seen = _seen_from_home(provider, url, homes.get(provider.prefix, ""))
        if seen and (found := provider.detect(seen)):
            return found
    raise errors.BadSpec


def _seen_from_home(provider: RepoProvider, url: urls.Url, home: str) -> urls.Url | None:
    """The address as its host's public site would have it. None where it is of another host than the operator's."""
    if not home or not provider.one_home:
        return url
    own = urls.split(home)
    same_port = url.port == own.port or url.scheme not in ("http", "https")
    if url.host != own.host or not same_port or url.raw[: len(own.raw)] != own.raw:
        return None
    return replace(url, host=urls.split(provider.url).host, port=None, raw=url.raw[len(own.raw) :])


def _launch_link(text: str) -> RepoSpec | None:
    """`https://any.host/v2/gh/owner/name/ref?labpath=…`, as on badges. The spec stays encoded as it came."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    _, found, rest = parts.path.partition("/v2/")
    prefix, _, spec = rest.partition("/")
    if not found or prefix not in providers or parts.scheme not in ("http", "https"):
        return None
    return replace(_from_string(prefix, spec), **_opened(parse_qs(parts.query)))


def _link_with_a_repository(text: str, homes: Mapping[str, str]) -> RepoSpec | None:
    """Links of other services that carry a repository's address, as they stand beside those to Binder on many pages."""
    try:
        parts = urlsplit(text)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    except ValueError:
        return None
    if parts.path.endswith("/hub/lti/launch") and "next" in query:  # nbgitpuller's, from within Canvas
        return _link_with_a_repository(query["next"], homes)
    if parts.path.endswith("/git-pull") and "repo" in query:
        return _pulled(query, homes)
    if parts.hostname == "deepnote.com" and "url" in query:
        return _detected(urls.clean(query["url"]), homes)
    return None


def _pulled(query: Mapping[str, str], homes: Mapping[str, str]) -> RepoSpec:
    """What nbgitpuller would fetch into a folder and open there. Here the repository is the folder that is opened."""
    spec = _detected(urls.clean(query["repo"]), homes)
    if "branch" in query:
        spec = spec.at(query["branch"])
    folder = query.get("targetPath") or query["repo"].rstrip("/").rpartition("/")[2].removesuffix(".git")
    wanted = query.get("urlpath") or f"lab/tree/{folder}/{query.get('subPath', '')}"
    before, found, behind = f"/{wanted}".partition(f"/{folder.strip('/')}/")
    return replace(spec, **_opened({"urlpath": [f"{before}/{behind}" if found else wanted]}))


def _opened(query: Mapping[str, list[str]]) -> dict[str, Any]:
    """What the link opens, in BinderHub's own order: labpath, filepath, urlpath."""
    for name in ("labpath", "filepath"):
        if name in query:
            return {"path": urls.path(query[name][0])}
    wanted = query.get("urlpath", [""])[0].lstrip("/\\")
    if not wanted or urls.has_scheme(wanted) or len(wanted) > urls.LONGEST or not wanted.isprintable():
        return {}
    for view in ("doc/tree/", "lab/tree/", "tree/", "notebooks/"):
        if wanted.startswith(view) and "?" not in wanted:
            return {"path": urls.path(wanted.removeprefix(view))}
    return {"urlpath": wanted}


def below(host: str) -> str:
    """The `detect` of a provider whose pages are on this host. As BinderHub has it, a name without any host counts too."""
    dotted = host.replace(".", r"\.")
    return rf"^(https?:\/\/{dotted}\/)?(?<repo>.*[^\/])\/?"


def quoted(text: str) -> str:
    """For BinderHub's strings: slashes stay, as people write them in branches."""
    return quote(text, safe="/~+@,;=!$&'()*:")
