"""`docker`: an image by name, which is run as it is: nothing is built.

    docker/python:3.12                         docker/docker.io/library/python:3.12
    docker/quay.io/jupyter/base-notebook       docker/ghcr.io/o/r@sha256:<64 hex>

Names mean what they mean to Docker: without a host it is docker.io, without an owner there `library`, without a tag `latest`.
Written out, `docker/<host>/<name>:<tag>` and `docker/<host>/<name>@<digest>`, both can stand in an address as they are. By the
published OCI distribution API, token challenge included; HEAD, which Docker Hub does not count against its pull limit.
The operator's `hosts.docker.url` is a registry of their own that may be on a private network or speak plain http.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from urllib.parse import urlencode, urlsplit

from broker.repos import base, errors, http, listing, naming, urls
from broker.repos.asking import Asking
from providers.sentences import say

NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*(?::[0-9]{1,5})?")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LONGEST = 255
HUB = "docker.io"
ALIASES = ("registry-1.docker.io", "index.docker.io", "registry.hub.docker.com")
REGISTRIES = re.compile(
    r"docker\.io|registry-1\.docker\.io|index\.docker\.io|quay\.io|ghcr\.io|(.+\.)?gcr\.io|public\.ecr\.aws|mcr\.microsoft\.com|"
    r"nvcr\.io|registry\.[a-z0-9.-]+|.+\.azurecr\.io|.+\.pkg\.dev|.+\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com"
)
"""Hosts whose addresses name images, and nothing that could be cloned."""
ACCEPT = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)
PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"', re.IGNORECASE)


class Docker(listing.DataHost):
    """Images of any registry."""

    prefix = "docker"
    title = "Container image"
    host = "Registry"
    url = "https://registry-1.docker.io"
    repo_label = "Container image"
    repo_example = "example: quay.io/jupyter/scipy-notebook:latest"
    has_ref = False
    validate_regex = r".+"

    def parse(self, spec: str) -> base.RepoSpec:
        plain = re.sub(r"^docker:/{1,2}", "", urls.decoded(spec).strip("/"))
        name, at, digest = plain.partition("@")
        before, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:
            before, colon, tag = name, "", ""
        if (colon and not TAG.fullmatch(tag)) or (at and not DIGEST.fullmatch(digest.lower())):
            raise errors.BadSpec(
                say(
                    "“%(plain)s” has no proper tag or digest. Write name:tag, or name@sha256: with 64 digits.",
                    plain=plain[:80],
                )
            )
        named = "" if tag == "HEAD" else tag  # git's word, which links carry here too
        return base.RepoSpec(provider=self.prefix, repo=full_name(before), ref=digest.lower() or named or "latest")

    def spec(self, spec: base.RepoSpec) -> str:
        return f"{spec.repo}{'@' if DIGEST.fullmatch(spec.ref) else ':'}{spec.ref if spec.ref != 'HEAD' else 'latest'}"

    def detect(self, url: urls.Url) -> base.RepoSpec | None:
        if url.host == "hub.docker.com":
            match url.segments:
                case ("_", name, *_):
                    return self.parse(name)
                case ("r", owner, name, *_) | ("repository", "docker", owner, name, *_):
                    return self.parse(f"{owner}/{name}")
            raise errors.BadSpec(
                say("This page of Docker Hub is no image. Open the image, and paste its address or its name.")
            )
        if url.host == "quay.io" and url.segments[:1] == ("repository",):
            return self.parse("/".join(("quay.io", *url.segments[1:3])))
        if url.scheme not in ("http", "https") or not REGISTRIES.fullmatch(url.host) or not url.segments:
            return None
        return self.parse("/".join((f"{url.host}{f':{url.port}' if url.port else ''}", *url.segments)))

    def resolve(self, spec: base.RepoSpec, asking: Asking) -> base.Resolved:
        ref = "latest" if spec.ref == "HEAD" else spec.ref
        if not TAG.fullmatch(ref) and not DIGEST.fullmatch(ref):
            raise errors.BadSpec(
                say("“%(ref)s” is no tag of an image. Write one such as latest, or leave it empty.", ref=ref[:80])
            )
        host, _, name = spec.repo.partition("/")
        digest = Registry(host, asking).digest(name, ref)
        image = f"{spec.repo}@{digest}"
        page = f"https://hub.docker.com/{'_/' if name.startswith('library/') else 'r/'}{name.removeprefix('library/')}"
        return listing.published(
            spec,
            commit=digest,
            repo_url=spec.repo,
            web_url=page if host == HUB else f"https://{host}/{name}",
            slug=naming.slug(name.removeprefix("library/")),
            spec_string=image,
            content={"kind": "image", "image": image},
        )


def full_name(text: str) -> str:
    """`python` → `docker.io/library/python`: the name with its host, as Docker reads it. Raises BadSpec."""
    first, slash, rest = text.partition("/")
    named = slash and ("." in first or ":" in first or first.lower() == "localhost")
    host, name = (first.lower(), rest) if named else (HUB, text)
    host = HUB if host in ALIASES else host
    name = f"library/{name}" if host == HUB and "/" not in name else name
    if not NAME.fullmatch(name) or not HOST.fullmatch(host) or len(f"{host}/{name}") > LONGEST:
        raise errors.BadSpec(
            say(
                "“%(text)s” is not the name of an image. Write it in small letters, such as "
                "quay.io/jupyter/scipy-notebook:latest.",
                text=text[:80],
            )
        )
    return f"{host}/{name}"


class Registry:
    """One registry, asked for one digest."""

    def __init__(self, host: str, asking: Asking) -> None:
        self.host, self.asking = host, asking
        own = asking.url(base.providers[Docker.prefix])
        self.trusted = urlsplit(own).netloc.lower() in (host, "registry-1.docker.io" if host == HUB else host)
        plain = re.fullmatch(r"(localhost|127\.[0-9.]+)(:[0-9]+)?", host)  # Docker too speaks http to these
        self.address = (
            own if self.trusted else f"{'http' if plain else 'https'}://{host if host != HUB else ALIASES[0]}"
        )

    def digest(self, name: str, ref: str) -> str:
        """What this tag is now, or whether this digest is there. Raises RepoError."""
        url = f"{self.address}/v2/{name}/manifests/{ref}"
        shown = f"{self.host}/{name}{'@' if ':' in ref else ':'}{ref}"
        answer = self.ask(url, {"Accept": ACCEPT})
        if answer.status == 401:
            answer = self.ask(url, {"Accept": ACCEPT, "Authorization": self.permission(answer, name, shown)})
        if answer.status in (401, 403):
            raise errors.NotFound(
                say(
                    "There is no image %(shown)s, or it is not public. Check its name, and that anybody may pull it.",
                    shown=shown,
                )
            )
        if answer.status != 200:
            raise self.refusal(answer, shown)
        return ref if DIGEST.fullmatch(ref) else self.told(url, answer, shown)

    def ask(self, url: str, headers: dict[str, str], method: str = "HEAD") -> http.Answer:
        """Registries send on to other hosts; then nothing of ours is sent along."""
        for _ in range(http.REDIRECTS):
            answer = self.asking.http.ask_exactly(url, headers, method=method, trusted=self.trusted)
            target = http.location(answer)
            if target is None or http.origin_of(target) != http.origin_of(url):
                return answer
            url = target
        return answer

    def told(self, url: str, answer: http.Answer, shown: str) -> str:
        digest = answer.headers.get("docker-content-digest", "").lower()
        if DIGEST.fullmatch(digest):
            return digest
        whole = self.ask(url, {"Accept": ACCEPT}, "GET")  # old registries do not tell it
        if whole.status != 200 or not whole.body:
            raise self.refusal(whole, shown)
        return f"sha256:{hashlib.sha256(whole.body).hexdigest()}"

    def permission(self, answer: http.Answer, name: str, shown: str) -> str:
        """The Authorization that the challenge asks for: anybody's token, or the operator's own.

        The operator's token is `user:password`, as `docker login` takes them.
        """
        challenge = answer.headers.get("www-authenticate", "")
        told = dict(PARAMETER.findall(challenge))
        own = self.asking.token(base.providers[Docker.prefix]) if self.trusted else ""
        basic = f"Basic {base64.b64encode(own.encode()).decode()}" if own else ""
        if challenge.lower().startswith("basic") and basic:
            return basic
        realm = told.get("realm", "")
        if not challenge.lower().startswith("bearer") or not realm.startswith(("https://", "http://")):
            raise errors.NotFound(
                say(
                    "%(host)s shows %(shown)s to nobody without a password. Use a public image.",
                    host=self.host,
                    shown=shown,
                )
            )
        asked = {"service": told.get("service", ""), "scope": told.get("scope") or f"repository:{name}:pull"}
        near = self.trusted and urlsplit(realm).netloc == urlsplit(self.address).netloc
        headers = {"Accept": "application/json"} | ({"Authorization": basic} if basic and near else {})
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode({key: value for key, value in asked.items() if value})}"
        given = self.asking.http.ask_exactly(url, headers, trusted=near)
        with listing.sense(self.host):
            if given.status in (400, 401, 403, 404):
                raise errors.NotFound(
                    say("There is no image %(shown)s, or it is not public. Check its name.", shown=shown)
                )
            body = json.loads(given.body)
            token = str(body.get("token") or body["access_token"])
            if not re.fullmatch(r"[\x21-\x7e]+", token):
                raise ValueError(token)
        return f"Bearer {token}"

    def refusal(self, answer: http.Answer, shown: str) -> errors.RepoError:
        if answer.status == 404:
            return errors.NotFound(f"There is no image {shown}. Check its name and its tag.")
        return errors.HostUnavailable(f"{self.host} has trouble (status {answer.status}). Try again in a moment.")
