"""An OpenStack to try things on: `python -m tests.servers.openstack`. It ends with Ctrl-C, and leaves nothing running."""

from __future__ import annotations

import contextlib
import signal

from tests.servers.openstack import bed, packages

SHOWN = """
Signed in as its operator, until this program ends:

  PATH={bin}:$PATH
  export OS_AUTH_URL={url} OS_IDENTITY_API_VERSION=3 OS_REGION_NAME=RegionOne
  export OS_USERNAME=admin OS_PASSWORD={password} OS_PROJECT_NAME=admin OS_USER_DOMAIN_ID=default OS_PROJECT_DOMAIN_ID=default
  openstack server list --all-projects
"""


def main() -> None:
    with bed.running() as cloud:
        words = {"bin": packages.FOLDER / "venv" / "bin", "url": cloud.url,
                 "password": (cloud.folder / "password").read_text()}  # fmt: skip
        for seconds, name in cloud.steps:
            print(f"{seconds:6.1f} s  {name}")
        print(SHOWN.format(**words), flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
