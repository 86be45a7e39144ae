"""How long steps wait before they look again, where nobody nudges them."""

from __future__ import annotations

import datetime as dt

RETRY_SECONDS = 5  # when a cloud is out of reach
GONE_SECONDS = 0.25  # between two looks at something that is being ended
TEARDOWN = dt.timedelta(minutes=15)  # that a credential must be good for after the launch's deadline
LOOK_SECONDS = 2  # between two looks at an instance whose agent is expected to speak by itself
