"""A key to one git server, handed to git for one piece of work, and found nowhere afterwards.

    with unlocking.offered(key, url) as offer:
        subprocess.run(["git", *offer.options, "fetch", …], pass_fds=offer.fds)

The key lies in memory that has no name (where the system has none, in a file that is unlinked before it is written). git is
told of it as a credential helper, which is this file as a program: it reads the key from the descriptor that it inherits, and
says it for this one server only, and there for the one repository and what lies in the same folder: a submodule must not
bring along what its author may not read and the person may. So the key is in no command line, no environment, no
configuration and no file with a name.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

MOST = 65_536  # bytes of a key


@dataclass(frozen=True, kw_only=True)
class Key:
    """What opens one server. Not JSON on purpose: whoever writes it into a file by mistake fails."""

    origin: str
    """Scheme, host and port, as in `https://git.example`. No other server gets it."""
    user: str
    secret: str = field(repr=False)

    @classmethod
    def told(cls, said: Mapping[str, Any]) -> Key:
        """As it travels from the broker to the builder."""
        return cls(origin=str(said["origin"]), user=str(said["user"]), secret=str(said["secret"]))

    def opens(self, url: str) -> bool:
        """Whether it is for the server of this address."""
        return origin_of(url) == self.origin


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What git needs to find the key: options before its verb, and descriptors that it inherits."""

    options: tuple[str, ...] = ()
    fds: tuple[int, ...] = ()


NOTHING = Offer()


@contextlib.contextmanager
def offered(key: Key | None, url: str) -> Iterator[Offer]:
    """Within, git opens the repository of this address and its neighbours with this key; afterwards nothing holds it.

    Without a key nothing is offered.
    """
    if key is None:
        yield NOTHING
        return
    fd = nameless()
    try:
        told = {"origin": key.origin, "user": key.user, "secret": key.secret, "near": near(url)}
        os.write(fd, json.dumps(told).encode())
        helper = f"!{shlex.join([sys.executable, '-I', os.path.abspath(__file__), str(fd)])}"  # noqa: PTH100 -- no pathlib in the helper
        # The empty one takes away every other helper: what is told to a helper could be stored by it.
        options = ("credential.helper=", "credential.useHttpPath=true", f"credential.{key.origin}.helper={helper}")
        yield Offer(options=tuple(word for option in options for word in ("-c", option)), fds=(fd,))
    finally:
        os.close(fd)


def nameless() -> int:
    """A descriptor of storage that only its holders reach."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("anybinder")
    fd, path = tempfile.mkstemp()
    os.unlink(path)  # noqa: PTH108
    return fd


def origin_of(url: str) -> str:
    """Scheme, host and port in small letters; what has a user in it is no origin, and is nobody's."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def near(url: str) -> str:
    """What the paths of this repository and of its neighbours begin with, in small letters: `owner/`."""
    path = urlsplit(url).path.strip("/").lower()
    folder = path.rpartition("/")[0]
    return f"{folder}/" if folder else path


def answer(fd: int, asked: str) -> str:
    """What git's question is answered with: nothing unless it is this server that asks, for one of these repositories."""
    told = dict(line.split("=", 1) for line in asked.splitlines() if "=" in line)
    held = json.loads(os.pread(fd, MOST, 0))
    key = Key.told(held)
    path = unquote(told.get("path", "")).lower().lstrip("/")
    if f"{told.get('protocol')}://{told.get('host')}".lower() != key.origin:
        return ""
    if not path.startswith(held["near"]) or ".." in path.split("/"):
        return ""
    return f"username={key.user}\npassword={key.secret}\n"


if __name__ == "__main__" and sys.argv[2:] == ["get"]:  # `store` and `erase` are not for us
    sys.stdout.write(answer(int(sys.argv[1]), sys.stdin.read()))
