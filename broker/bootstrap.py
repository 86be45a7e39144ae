"""What a new instance is told at birth: where its broker is, and a token that enrols it once.

A machine is told it as cloud-init user data ([decision 20](../docs/decisions/0020-a-machine-ends-itself-first.md)); an agent
that a provider starts directly gets the same as its boot configuration.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from broker import parcels
from broker.models import Launch, Order
from broker.service import Service
from providers import base

AGENT = Path(__file__).with_name("agent.py")
BUILDER = Path(__file__).with_name("environments")
GRACE = dt.timedelta(
    minutes=2
)  # that the agent has after `until` to end all in good order, as the reaper grants it too
LINGER_SECONDS = 20  # a machine that has failed stays on for this long: some clouds show a console with a delay

USER_DATA = """\
#cloud-config
# A machine for one session of Anybinder, bought by order {order}. It goes off at {off:%Y-%m-%d %H:%M:%S} UTC at the latest.
bootcmd:
- |
  # The dead-man switch, before all else: it needs no broker. One that starts again has lost its session, and goes off.
  mkdir -p -m 711 /run/anybinder; date +%s >/run/anybinder/began
  if [ -e /var/lib/anybinder/born ]; then poweroff -f; fi
  if [ -d /run/systemd/system ]; then
    systemd-run --quiet --no-block --unit=anybinder-end --on-calendar=@{end} --on-active={longest} \\
      --timer-property=AccuracySec=1 --timer-property=DefaultDependencies=no --property=DefaultDependencies=no poweroff -f
  else
    setsid sh -c 'while [ $(date +%s) -lt {end} ]; do sleep 5; done; poweroff -f' </dev/null >/dev/null 2>&1 &
  fi
  echo "anybinder: [0 s] goes off at {off:%H:%M:%S} UTC at the latest; up for $(cut -d. -f1 /proc/uptime) s" >>/dev/console
- |
  # Begins once this stage of cloud-init is over, beside the others; however it ends, the machine goes off.
  [ ! -d /run/systemd/system ] || systemd-run --quiet --no-block --unit=anybinder --property=OOMScoreAdjust=-900 \\
    --property="After=cloud-init.service cloud-init-network.service" --property=TimeoutStopSec=30 --property=LimitCORE=0 \\
    --property='ExecStopPost=poweroff -f' sh /run/anybinder/boot
runcmd:
- '[ -d /run/systemd/system ] || setsid sh /run/anybinder/boot </dev/null >/dev/null 2>&1 &'
write_files:
- path: /run/anybinder/boot.json
  permissions: '0600'
  content: |
    {told}
- path: /run/anybinder/boot
  permissions: '0700'
  content: |
    cd /run/anybinder; mkdir -p -m 711 /var/lib/anybinder; touch /var/lib/anybinder/born
    exec >>/dev/console 2>&1
    if command -v python3 >/dev/null; then python3 -I boot.py; else echo "anybinder: failed: there is no python3"; sleep 20; fi
    poweroff -f
- path: /run/anybinder/boot.py
  permissions: '0700'
  content: |
    # Fetches the program of this machine from its broker, by digest, and becomes it.
    import hashlib, json, os, sys, time, urllib.request
    told = json.load(open("boot.json"))
    began, said = float(open("began").read()), ""
    def say(what):
        print("anybinder: [%d s] %s" % (time.time() - began, what), flush=True)
    say("asks its broker at " + told["broker"])
    while True:
        try:
            found = urllib.request.urlopen(told["broker"] + "/agent/files/" + told["files"]["machine.py"], timeout=20).read()
            why = "what the broker sent is not what was ordered: its digest is wrong"
            if hashlib.sha256(found).hexdigest() == told["files"]["machine.py"]:
                break
        except Exception as fault:
            why = "the broker is not reached: %s" % (fault if hasattr(fault, "code") else getattr(fault, "reason", fault))
        if why != said:
            say(why)
        said = why
        if time.time() > began + told["patience_seconds"]:
            say("failed: " + why)
            time.sleep(told["linger_seconds"])
            sys.exit(1)
        time.sleep(1)
    open("machine.py", "wb").write(found)
    os.execv(sys.executable, [sys.executable, "-I", "machine.py", "boot.json"])
"""


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
    """Boot data of this order; the same each time it is made, as long as this broker is not updated."""
    config = {
        "broker": service.agent_url.rstrip("/"),
        "order": order.id,
        "token": enrolment_token(service, order.id),
        "broker_key": service.keys.public,
        "until": order.until.isoformat(),
        "silence_seconds": service.settings.silence_minutes * 60,
    }
    return base.Boot(
        user_data=user_data(service, order, config),
        config=config,
        agent=str(AGENT),
        builder=(sys.executable, "-I", str(BUILDER)),
    )


def user_data(service: Service, order: Order, config: Mapping[str, Any]) -> str:
    """What cloud-init is told on a machine that knows nothing yet."""
    told = {
        "files": parcels.digests(),
        "patience_seconds": service.settings.boot_minutes * 60,
        "linger_seconds": LINGER_SECONDS,
        **config,
    }
    off = order.until + GRACE
    return USER_DATA.format(
        order=order.id,
        off=off,
        end=int(off.timestamp()),
        longest=int((off - order.created_at).total_seconds()),
        told=json.dumps(told),
    )
