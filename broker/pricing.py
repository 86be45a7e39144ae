"""What backends cost an hour, as far as a table says: read anew from the clouds' public lists, and shown with its age."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from broker import backends, settings
from providers import base, prices

OLD = dt.timedelta(days=30)  # clouds change prices a few times a year


def refresh(chosen: settings.Settings, backend: backends.Backend) -> int:
    """Ask the cloud's public list, and keep what it says in place of what was kept; how many prices, 0 where it has no list.

    May take minutes. Raises ProviderUnavailable, and what was kept stays.
    """
    found = backend.provider.public_prices()
    if found:
        path = Path(backend.setting.configuration.get("prices") or backends.prices_file(chosen, backend.name))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        prices.write(path, found)
    return len(found)


def age(price: base.Price, now: dt.datetime) -> dt.timedelta:
    """How long ago it was read."""
    return now - dt.datetime.fromisoformat(price.as_of).replace(tzinfo=dt.UTC)


def is_old(price: base.Price, now: dt.datetime) -> bool:
    """Whether it should be read anew before one relies on it."""
    return age(price, now) > OLD
