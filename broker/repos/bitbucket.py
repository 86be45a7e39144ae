"""`bb`: Bitbucket Cloud. (A Bitbucket Data Center of one's own is reached by `git`.)"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from broker.repos import base, errors, forges, http, remotes, urls
from broker.repos.asking import Asking
from providers.sentences import say

WORKSPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.][A-Za-z0-9_.-]{0,127}(?<!\.git)", re.ASCII)
HOSTS = ("bitbucket.org", "www.bitbucket.org", "altssh.bitbucket.org")


class Bitbucket(forges.Forge):
    """BinderHub has no such host; its links are written like those of GitHub: `workspace/repository/ref`."""

    prefix = "bb"
    title = "Bitbucket"
    named = "Bitbucket"
    api = "https://api.bitbucket.org/2.0"
    url = "https://bitbucket.org"
    repo_label = "Bitbucket repository name or URL"
    repo_example = "example: workspace/repository or https://bitbucket.org/workspace/repository"
    validate_regex = r"[^\/]+\/[^\/]+\/.+"
    detect_regex = base.below("bitbucket.org")

    def parse(self, spec: str) -> base.RepoSpec:
        return forges.owned(self, spec, "workspace/repository", repository)

    def spec(self, spec: base.RepoSpec) -> str:
        return f"{spec.repo}/{base.quoted(spec.ref)}"

    def detect(self, url: urls.Url) -> base.RepoSpec | None:
        if url.host not in HOSTS:
            return None
        if len(url.segments) < 2:
            raise errors.BadSpec(
                say("This page of Bitbucket belongs to no repository. Open the repository and paste its address.")
            )
        workspace, name, *page = url.segments
        at = dict(url.query).get("at", "")
        return base.RepoSpec(provider=self.prefix, repo=repository(workspace, name), **opened(page, at))

    def web_url(self, spec: base.RepoSpec, commit: str, asking: Asking) -> str:
        return f"{self.clone_url(spec, asking)}/src/{commit}"

    def commit_by_api(self, spec: base.RepoSpec, asking: Asking) -> str:
        kind, name = full_name(self.default_branch(spec, asking) if spec.ref == "HEAD" else spec.ref)
        if (not kind and remotes.SHORT.fullmatch(name.lower())) or remotes.COMMIT.fullmatch(name):
            return self.commit_or_ref(spec, kind, name, asking)
        return self.named_commit(spec, kind, name, asking)

    def default_branch(self, spec: base.RepoSpec, asking: Asking) -> str:
        answer = self.ask(f"repositories/{spec.repo}?fields=mainbranch.name", asking)
        if answer.status != 200:
            raise self.refusal(answer, spec)
        name = self.read(answer, lambda row: row.get("mainbranch") and row["mainbranch"]["name"])
        if not name:
            raise self.no_ref(spec)
        return f"refs/heads/{name}"

    def commit_or_ref(self, spec: base.RepoSpec, kind: str, name: str, asking: Asking) -> str:
        """Four to forty hexadecimal digits are most likely a commit, but branches may be called so."""
        answer = self.ask(f"repositories/{spec.repo}/commit/{name}?fields=hash", asking, lasting=no_repository)
        if answer.status == 200:
            return self.counted(answer, self.read(answer, lambda row: row["hash"]))
        if answer.status == 404 and not no_repository(answer):
            return self.named_commit(spec, kind, name, asking)
        raise self.refusal(answer, spec)

    def named_commit(self, spec: base.RepoSpec, kind: str, name: str, asking: Asking) -> str:
        """A branch before a tag, as `git clone --branch` has it."""
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        where = quote(f'name = "{escaped}"', safe="")
        fields = quote("values.name,values.type,values.target.hash", safe="")
        answer = self.ask(f"repositories/{spec.repo}/refs?q={where}&fields={fields}", asking)
        if answer.status != 200:
            raise self.refusal(answer, spec)
        rows = self.read(answer, lambda found: {row["type"]: row["target"]["hash"] for row in found["values"]})
        for each in (kind,) if kind else ("branch", "tag"):
            if each in rows:
                return self.counted(answer, rows[each])
        raise self.no_ref(spec)

    def refusal(self, answer: http.Answer, spec: base.RepoSpec) -> errors.RepoError:
        """What the API means by this status."""
        if answer.status == 400:
            return self.no_ref(spec)
        if answer.status in (401, 403, 404, 410):
            return self.no_repository(spec)
        return self.senseless(answer)


def no_repository(answer: http.Answer) -> bool:
    """True where Bitbucket says that the repository is not there; it says so of commits as well."""
    return answer.status == 404 and b"ommit" not in answer.body


def full_name(ref: str) -> tuple[str, str]:
    """What Bitbucket calls the kind of reference (nothing where any will do), and the name without it."""
    for begin, kind in (("refs/heads/", "branch"), ("refs/tags/", "tag"), ("heads/", "branch"), ("tags/", "tag")):
        if ref.startswith(begin):
            return kind, ref.removeprefix(begin)
    return "", ref


def repository(workspace: str, name: str) -> str:
    """`workspace/name`, as Bitbucket spells such. Raises BadSpec."""
    name = name.removesuffix(".git")
    if not WORKSPACE.fullmatch(workspace) or not NAME.fullmatch(name):
        raise errors.BadSpec(
            say(
                "“%(workspace)s/%(name)s” cannot be a repository on Bitbucket. Write workspace/repository.",
                workspace=workspace[:80],
                name=name[:80],
            )
        )
    return f"{workspace}/{name}"


def opened(page: list[str], at: str) -> dict[str, Any]:
    """Reference and path of a page below the repository's own; `?at=` names the branch where the page has a commit."""
    match page:
        case ["src" | "raw" | "annotate" | "history-node", *rest] if rest and at:
            return {"ref": urls.ref(at), "path": urls.path("/".join(rest[1:]))}
        case ["src" | "raw" | "annotate" | "history-node", *rest] if rest:
            return remotes.undivided(rest)
        case ["commits", "tag", *rest] if rest:
            return {"ref": urls.ref("tags/" + "/".join(rest))}
        case ["commits", "branch", *rest] | ["branch", *rest] | ["commits", *rest] if rest:
            return {"ref": remotes.lowered(urls.ref("/".join(rest)))}
    return {}
