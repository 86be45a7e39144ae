"""Where a secret may be sent. Standard library only: the command line starts with it."""

from __future__ import annotations

from urllib.parse import SplitResult

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""What a computer calls itself."""


def takes_secrets(address: SplitResult) -> bool:
    """Whether what is sent there can be read by nobody on the way: by https, or without leaving this computer."""
    return address.scheme == "https" or (address.scheme == "http" and address.hostname in LOOPBACK)
