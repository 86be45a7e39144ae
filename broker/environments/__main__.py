"""`python -I broker/environments SPEC.json`: the builder as a process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

if not __package__:  # run as a folder: Python then looks for modules inside it, and ours are named from above
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from broker.environments import cache, programs, session


def main(arguments: list[str]) -> int:
    """Build what the spec says, or find it built, and say how to serve it."""
    spec = json.loads(Path(arguments[0]).read_text())
    Path(arguments[0]).unlink()
    try:
        place = cache.found(spec) or cache.build(spec)
        server = session.prepare(spec, place)
    except programs.Failed as failure:
        programs.tell("failed", str(failure))
        return 1
    programs.tell("built", "The environment is ready", server=server)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
