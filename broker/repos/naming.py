"""Short readable names made of what people typed."""

from __future__ import annotations

import re

LONGEST_SLUG = 40


def slug(text: str) -> str:
    """`Owner/My.Repo` → `owner-my-repo`: lower-case letters, digits and single `-`, never empty."""
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return words[:LONGEST_SLUG].strip("-") or "repo"
