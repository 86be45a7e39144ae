"""What code of a session tries on its machine to get at what is not its own. All of it runs as the session's user."""

from __future__ import annotations

import re

from tests.doubles.machines import Machine, metadata

USER = "anybinder"
ASK = "curl --silent --max-time 3 --output /dev/null --write-out '%{http_code}'"
EC2 = f"http://{metadata.ADDRESS}/latest"
NOVA = f"http://{metadata.ADDRESS}/openstack/latest"
TRIES = {
    "EC2's metadata": f"{ASK} {EC2}/meta-data/",
    "EC2's user data": f"{ASK} {EC2}/user-data",
    "a token of EC2's": f"{ASK} -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {EC2}/api/token",
    "OpenStack's metadata": f"{ASK} {NOVA}/meta_data.json",
    "OpenStack's user data": f"{ASK} {NOVA}/user_data",
    "IPv6's way to EC2's": f"{ASK} 'http://[fd00:ec2::254]/latest/user-data'",
    "another spelling of the address": f"{ASK} http://[::ffff:169.254.169.254]/latest/user-data",
    "a port of its own": f"{ASK} --local-port 53 {EC2}/user-data",
}
"""Each prints what a web server answered: 000 where none was reached."""
FILES = (
    "/var/lib/cloud/instance/user-data.txt",
    "/var/lib/cloud/instance/user-data.txt.i",
    "/var/lib/cloud/instance/cloud-config.txt",
    "/var/lib/cloud/instance/obj.pkl",
    "/run/cloud-init/instance-data-sensitive.json",
    "/run/cloud-init/combined-cloud-config.json",
    "/run/anybinder/boot.json",
    "/var/lib/anybinder/agent/boot.json",
    "/proc/1/environ",
)
SEARCH = """\
exec 2>/dev/null
find / -xdev -type f -readable -size -4M -print0 | xargs -0 grep --files-with-matches --fixed-strings --file=/tmp/word
find /run /dev/shm /tmp -type f -readable -print0 | xargs -0 grep --files-with-matches --fixed-strings --file=/tmp/word
for each in /proc/[0-9]*; do cat $each/environ $each/cmdline | tr '\\0' '\\n'; done | grep --fixed-strings --file=/tmp/word
"""
"""Files that this user can read, and other processes' words; prints where the word is, and the file that holds the word."""


def enrolment_token(machine: Machine) -> str:
    """Which the machine was told at birth."""
    found = re.search(r'"token": "([^"]+)"', machine.service.user_data)
    assert found, machine.service.user_data
    return found[1]


def searched(machine: Machine, word: str) -> set[str]:
    """Where this user finds the word."""
    halves = f'"{word[:8]}""{word[8:]}"'  # so that the shell which writes it down is not found
    machine.inside(f"umask 022; printf %s {halves} >/tmp/word")
    found = machine.inside(SEARCH, user=USER, check=False, seconds=400).splitlines()
    assert "/tmp/word" in found, "the search finds nothing at all"
    return set(found) - {"/tmp/word"}
