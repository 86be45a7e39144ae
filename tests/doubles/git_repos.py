"""Real bare repositories made from a dict of files, with the same commits every time.

commit = make_repo(root, "o/r.git", {"requirements.txt": "numpy\\n", "start": "#!/bin/bash -l\\nexec $@\\n"})
newer = add_commit(root / "o/r.git", {"README.md": "two"}, branch="feature/x")
add_tag(root / "o/r.git", "v1", commit, annotated=True)
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

Files = Mapping[str, str | bytes]

QUIET = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_AUTHOR_DATE": "2024-02-03T04:05:06Z",
    "GIT_COMMITTER_DATE": "2024-02-03T04:05:06Z",
}


def git(repo: Path, *arguments: str, given: bytes = b"", **environment: str) -> str:
    """What git prints for these arguments in this repository. Raises with git's own words where it fails."""
    command = ["git", "--git-dir", str(repo), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, env={**QUIET, **environment}, check=False)
    if done.returncode:
        raise AssertionError(f"git {' '.join(arguments)}: {done.stderr.decode()}")
    return done.stdout.decode().strip()


def make_repo(root: Path, name: str, files: Files, branch: str = "main") -> str:
    """A bare repository `root/name` whose default branch holds these files. The same files, the same commit.

    A file that begins with `#!` is executable.
    """
    repo = Path(root) / name
    repo.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", "--bare", str(repo)], check=True, env=QUIET)
    git(repo, "symbolic-ref", "HEAD", f"refs/heads/{branch}")
    git(repo, "config", "uploadpack.allowFilter", "true")
    return add_commit(repo, files, branch=branch)


def add_commit(repo: Path, files: Files, *, branch: str = "main", parent: str | None = None, message: str = "x") -> str:
    """One more commit on this branch, holding these files over those of its parent. The branch need not exist."""
    parent = parent or branch_tip(repo, branch)
    tree = write_tree(repo, files, parent)
    parents = ["-p", parent] if parent else []
    commit = git(repo, "commit-tree", tree, *parents, "-m", message)
    git(repo, "update-ref", f"refs/heads/{branch}", commit)
    git(repo, "update-server-info")
    return commit


def add_tag(repo: Path, name: str, commit: str, *, annotated: bool = False) -> str:
    """What the tag points at: the commit, or for an annotated one the tag object."""
    git(repo, "tag", *(["-a", "-m", name] if annotated else []), "--", name, commit)
    git(repo, "update-server-info")
    return git(repo, "rev-parse", f"refs/tags/{name}")


def set_ref(repo: Path, name: str, commit: str) -> None:
    """Point a reference of any full name, such as `refs/pull/7/head`, at this commit."""
    git(repo, "update-ref", name, commit)
    git(repo, "update-server-info")


def branch_tip(repo: Path, branch: str) -> str | None:
    """The commit of this branch; of the default branch where it does not exist yet; None in an empty repository."""
    for name in (f"refs/heads/{branch}", "HEAD"):
        command = ["git", "--git-dir", str(repo), "rev-parse", "--quiet", "--verify", name]
        done = subprocess.run(command, capture_output=True, env=QUIET, check=False)
        if done.returncode == 0:
            return done.stdout.decode().strip()
    return None


def write_tree(repo: Path, files: Files, parent: str | None) -> str:
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": f"{folder}/index"}
        if parent:
            git(repo, "read-tree", parent, **index)
        for path, text in files.items():
            content = text if isinstance(text, bytes) else text.encode()
            blob = git(repo, "hash-object", "-w", "--stdin", given=content)
            mode = "100755" if content.startswith(b"#!") else "100644"
            git(repo, "update-index", "--add", "--cacheinfo", f"{mode},{blob},{path}", **index)
        return git(repo, "write-tree", **index)
