"""What a machine starts from: the newest stock image of the cloud's own, or the one that is configured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from providers.errors import InvalidOrder
from providers.openstack.services import Services

USUAL = r"(Featured-)?(Debian|debian)[- ]?1[23].*|(Featured-)?(Ubuntu|ubuntu)[- ]?2[2468].*"
"""Images with cloud-init and apt, as most clouds call them."""
KERNELS = ("aki", "ari")  # parts of an image, which no machine starts from


class ImageGone(InvalidOrder):
    """The image that machines are to start from is not there."""

    reason = "image"


def chosen(services: Services, name: str, pattern: str) -> Mapping[str, Any]:
    """The newest that fits. Raises ImageGone with what there is to do.

    `name`: the configured one, its name or id; `pattern`: what the cloud calls its stock images, where none is configured.
    """
    listed = services.every("image", "/images", "images", {"status": "active", "sort": "created_at:desc"})
    usable = [each for each in listed if each.get("disk_format") not in KERNELS and each.get("os_hidden") is not True]
    if name:
        fitting = [each for each in usable if name in (each["id"], each.get("name"))]
    else:
        # Whoever may share an image with a project could call theirs as the stock ones are called.
        stock = [each for each in usable if each.get("visibility") == "public"]
        fitting = [each for each in stock if re.fullmatch(pattern or USUAL, str(each.get("name") or ""))]
    if not fitting:
        raise ImageGone(_nothing(name))
    return max(fitting, key=lambda each: (str(each.get("created_at", "")), str(each["id"])))


def _nothing(name: str) -> str:
    if name:
        return (
            f"The cloud has no image called “{name}” any more, which machines start from here. "
            "Tell the people who run this broker to choose another (“image”)."
        )
    return (
        "The cloud has no stock image of Debian or Ubuntu that is known here. "
        "Tell the people who run this broker to choose one (“image”)."
    )
