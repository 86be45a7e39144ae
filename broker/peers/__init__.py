"""Peers: other hubs that launches can be forwarded to, and where people may have an account.

`registry` says which there are and how they stand, `looking` asks them beside the requests, `tokens` keeps people's own
tokens for them. How a launch gets there is for `forwarding`.
"""

from broker.peers.looking import look, look_at
from broker.peers.registry import Known, add, drain, experienced, find, known, named, remove
from broker.peers.tokens import check, guide, kinds, listed, target_of

__all__ = [
    "Known",
    "add",
    "check",
    "drain",
    "experienced",
    "find",
    "guide",
    "kinds",
    "known",
    "listed",
    "look",
    "look_at",
    "named",
    "remove",
    "target_of",
]
