"""Secrets at rest: each sealed with a key of its own, which is wrapped by a key of the ring (envelope encryption).

The ring comes from a setting, a file or a command. Its first key seals, all of them open, so that a ring is rotated
without downtime: put a new key first, `anybinder keys reseal`, and take the old one away. A process reads the ring again
every RING_SECONDS, and at once when it meets a key it does not know.

A sealed secret is bound to where it stands (`about`): copied to another row it opens nothing.

    1 byte version | 1 byte length of the key's name | name | 40 bytes wrapped data key (RFC 3394) | 12 bytes nonce | AES-256-GCM
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import shlex
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker import crypto, errors, home, settings

log = structlog.get_logger(__name__)
VERSION = 1
WRAPPED, NONCE = 40, 12
COMMAND_SECONDS = 20
RING_SECONDS = 60
"""No process seals for longer than this with a key that is no longer the first."""
FILE = "sealing.keys"


class Unsealable(errors.BrokerError):
    """A secret cannot be opened with the sealing keys in force. Whoever runs this broker must bring back the key it names."""

    status_code, reason = 503, "sealing"


class Sealer:
    """Seals and opens. Safe to share between threads; its `repr` shows nothing."""

    def __init__(self, chosen: settings.Settings) -> None:
        """Reads nothing yet: a broker without secrets needs no ring."""
        self._chosen = chosen
        self._ring: dict[str, bytes] = {}
        self._read_at = 0.0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return "Sealer(…)"

    def seal(self, secret: str, about: str) -> bytes:
        """Sealed with the ring's first key, for this place only. Raises BadRequest where the ring cannot be read."""
        name, key = next(iter(self._keys().items()))
        data_key = AESGCM.generate_key(256)
        nonce = crypto.random_bytes(NONCE)
        sealed = AESGCM(data_key).encrypt(nonce, secret.encode(), about.encode())
        return _head(name) + keywrap.aes_key_wrap(key, data_key) + nonce + sealed

    def open(self, sealed: bytes, about: str) -> str:
        """The secret again. Raises Unsealable where its key is gone, or it was not sealed for this place."""
        name, wrapped, nonce, body = _parts(sealed)
        try:
            data_key = keywrap.aes_key_unwrap(self._key(name), wrapped)
            return AESGCM(data_key).decrypt(nonce, body, about.encode()).decode()
        except (keywrap.InvalidUnwrap, InvalidTag, ValueError):  # the last where it was cut off
            raise Unsealable("A sealed secret is damaged, or stands in the wrong place.") from None

    def resealed(self, sealed: bytes, about: str, *, fresh: bool = True) -> bytes | None:
        """The same secret under the ring's first key; None where it is that already. Raises Unsealable.

        Reads the ring again, unless whoever asks for many has done so (`names`).
        """
        if name_of(sealed) == next(iter(self._keys(fresh=fresh))):
            return None
        return self.seal(self.open(sealed, about), about)

    @property
    def names(self) -> list[str]:
        """The names of the ring's keys, the one that seals first."""
        return list(self._keys(fresh=True))

    def _key(self, name: str) -> bytes:
        found = self._keys().get(name) or self._keys(fresh=True).get(name)
        if found is None:
            raise Unsealable(f"A secret is sealed with the key “{name}”, which is not among the sealing keys.")
        return found

    def _keys(self, *, fresh: bool = False) -> Mapping[str, bytes]:
        if fresh or not self._ring:
            with self._lock:
                if fresh or not self._ring:
                    self._read()
        elif time.monotonic() - self._read_at > RING_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._read()
            except errors.BadRequest as fault:  # what opened a minute ago goes on to
                self._read_at = time.monotonic()
                log.warning("sealing_keys_unread", why=str(fault))
            finally:
                self._lock.release()
        return self._ring

    def _read(self) -> None:
        self._ring, self._read_at = parsed(self._text()), time.monotonic()

    def _text(self) -> str:
        chosen = self._chosen
        if given := chosen.sealing_keys.get_secret_value():
            return given.replace(",", "\n")
        if chosen.sealing_key_command:
            return _printed_by(chosen.sealing_key_command)
        path = file_of(chosen)
        if not path.exists() and chosen.sealing_key_file is None:
            _make(path)
        try:
            return path.read_text()
        except OSError as error:
            raise errors.BadRequest(f"The sealing keys in {path} cannot be read ({error.strerror}).") from None


def file_of(chosen: settings.Settings) -> Path:
    """Where the ring lies, when it is a file."""
    return chosen.sealing_key_file or chosen.home / FILE


def check(chosen: settings.Settings) -> None:
    """Read the ring, where there is to be one already: a broker that cannot open its secrets does not start. Makes none.

    Raises BadRequest.
    """
    told = chosen.sealing_keys.get_secret_value() or chosen.sealing_key_command or chosen.sealing_key_file
    if told or file_of(chosen).exists():
        Sealer(chosen).names  # noqa: B018 -- reads it


def add_first(chosen: settings.Settings) -> str:
    """Put a fresh key first in the file of the ring; its name. Whole or not at all, and on the disk when this returns.

    Raises BadRequest where the ring is no file.
    """
    if chosen.sealing_keys.get_secret_value() or chosen.sealing_key_command:
        raise errors.BadRequest(
            "The sealing keys are not in a file. Put the line that `anybinder keys new` prints before the others, where "
            "they come from; then run `anybinder keys reseal`."
        )
    with (settings.private_folder(chosen.home) / "sealing.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Sealer(chosen).names  # noqa: B018 -- makes the file where there is none, and refuses one that is broken
        path, line = file_of(chosen).resolve(), new_line()
        home.write_private(path, f"{line}\n{path.read_text()}")
    return line.partition(":")[0]


def new_line() -> str:
    """A fresh key for a ring: `name:key`."""
    return f"k{crypto.new_id(6)}:{base64.urlsafe_b64encode(crypto.random_bytes(32)).decode()}"


def parsed(text: str) -> dict[str, bytes]:
    """The keys of a ring by name, in order. Raises BadRequest, which shows none of them."""
    ring: dict[str, bytes] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, encoded = line.partition(":")
        try:
            key = base64.urlsafe_b64decode(encoded.strip())
        except (binascii.Error, ValueError):
            key = b""
        if not name.isalnum() or not name.isascii() or len(name) > 64 or len(key) != 32:
            raise errors.BadRequest(
                "One of the sealing keys is not a name, a colon, and 32 bytes in base64, as `anybinder keys new` prints it."
            )
        if ring.setdefault(name, key) != key:
            raise errors.BadRequest(
                f"Two different sealing keys are called “{name}”. Take the one away that is not in use."
            )
    if not ring:
        raise errors.BadRequest("There is no sealing key where one is expected. `anybinder keys new` prints one.")
    return ring


def name_of(sealed: bytes) -> str:
    """The name of the key that this is sealed with. Raises Unsealable."""
    return _parts(sealed)[0]


def _head(name: str) -> bytes:
    return bytes([VERSION, len(name)]) + name.encode()


def _parts(sealed: bytes) -> tuple[str, bytes, bytes, bytes]:
    if len(sealed) < 2 or sealed[0] != VERSION:
        raise Unsealable("A sealed secret is damaged.")
    at = 2 + sealed[1]
    name = sealed[2:at].decode(errors="replace")
    return name, sealed[at : at + WRAPPED], sealed[at + WRAPPED : at + WRAPPED + NONCE], sealed[at + WRAPPED + NONCE :]


def _printed_by(command: str) -> str:
    try:
        ended = subprocess.run(
            shlex.split(command), capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise errors.BadRequest(f"sealing_key_command did not print keys ({type(error).__name__}).") from None
    return ended.stdout


def _make(path: Path) -> None:
    """Two processes that start at once agree on one ring."""
    home.write_private_once(path, f"{new_line()}\n")
