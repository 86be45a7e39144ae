"""What a new instance is told at birth: where its broker is, and a token that enrols it once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from broker.models import Launch, Order
from broker.service import Service
from providers import base

AGENT = Path(__file__).with_name("agent.py")
BUILDER = Path(__file__).with_name("environments")


def enrolment_token(service: Service, order_id: str) -> str:
    """The one-time token of this order. Derived, not stored: a repeated creating call carries the same boot data."""
    return service.keys.token("enrolment", order_id)


def tag(service: Service, launch: Launch, order: Order) -> base.Tag:
    """What every resource of this order carries."""
    return base.Tag(broker=service.keys.broker_id, launch=launch.id, order=order.id, until=order.until)


def launch_tag(service: Service, launch: Launch) -> base.Tag:
    """The same of a launch that may order several times: what a credential for it is narrowed to."""
    return base.Tag(broker=service.keys.broker_id, launch=launch.id, order="", until=launch.deadline_at)


def boot(service: Service, order: Order) -> base.Boot:
    """Boot data of this order; the same each time it is made."""
    config = {
        "broker": service.agent_url,
        "order": order.id,
        "token": enrolment_token(service, order.id),
        "until": order.until.isoformat(),
        "silence_seconds": service.settings.silence_minutes * 60,
    }
    return base.Boot(
        user_data=json.dumps(config),
        config=config,
        agent=str(AGENT),
        builder=(sys.executable, "-I", str(BUILDER)),
    )
