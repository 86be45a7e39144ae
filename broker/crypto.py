"""The broker's own keys, and the few things made from them. No other module touches a key.

One root key lies in the state folder (0600). Everything else is derived from it by HKDF under a name, so that no
derived key tells anything of another.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"  # base32 in lower case: fits a host name, a label and an idempotency key


def new_id(length: int) -> str:
    """A random name of this many characters, 5 bits each. Names are not secrets."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def random_bytes(length: int) -> bytes:
    """This many bytes that nobody can guess."""
    return secrets.token_bytes(length)


def new_secret() -> str:
    """A secret of 256 bits, in letters that need no quoting."""
    return secrets.token_urlsafe(32)


def short(secret: str, length: int) -> str:
    """A name made of a secret, of which the secret cannot be told: this many of ALPHABET's letters, at most 50."""
    number = int.from_bytes(hashlib.sha256(secret.encode()).digest())
    return "".join(ALPHABET[number >> (5 * place) & 31] for place in range(length))


def digest(secret: str) -> bytes:
    """What is stored of a secret that only has to be recognised. Fit for random secrets of 128 bits and more."""
    return hashlib.sha256(secret.encode()).digest()


def matches(secret: str, stored: bytes | None) -> bool:
    """Whether this is that secret, in constant time."""
    return stored is not None and hmac.compare_digest(digest(secret), stored)


def prove(token_digest: bytes, nonce: str) -> str:
    """What only somebody who knows the token's digest can answer to this nonce."""
    return hmac.new(token_digest, nonce.encode(), hashlib.sha256).hexdigest()


class Keyring:
    """Keys of one broker, made on first use. Safe to share between threads and processes of one state folder."""

    def __init__(self, folder: Path) -> None:
        self._root = _read_or_make(folder / "root.key")

    def __repr__(self) -> str:
        return "Keyring(…)"

    @functools.cached_property
    def broker_id(self) -> str:
        """Who we are in tags: the same for every process of this state folder, different for every other broker."""
        return "ab" + hashlib.sha256(self.derive("broker-id")).hexdigest()[:14]

    def derive(self, name: str) -> bytes:
        """32 bytes that belong to this name and to nothing else."""
        return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=name.encode()).derive(self._root)

    @functools.cached_property
    def public(self) -> str:
        """The broker's own key as machines are told it at birth: 32 bytes of Ed25519, in hexadecimal."""
        return self._own.public_key().public_bytes_raw().hex()

    def sign(self, text: str) -> str:
        """What whoever knows `public` can tell that this broker said, in hexadecimal."""
        return self._own.sign(text.encode()).hex()

    @functools.cached_property
    def _own(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.derive("broker-key"))

    def token(self, use: str, subject: str) -> str:
        """A secret for this use and subject: the same each time, so that it needs no storage and a retry repeats it."""
        return hmac.new(self.derive(use), subject.encode(), hashlib.sha256).hexdigest()


def _read_or_make(path: Path) -> bytes:
    """The key in this file; a new one where there is none. Two processes that start at once agree on one."""
    fresh = path.with_name(f".{path.name}.{new_id(8)}")
    if not path.exists():
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass  # another process was first; its key is the one
        finally:
            fresh.unlink()
    return path.read_bytes()
