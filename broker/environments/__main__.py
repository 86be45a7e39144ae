"""The builder as a process, and what belongs to a container.

python -I broker/environments SPEC.json           builds, and says how to serve; a `keyed` one reads what opens the
                                                  repository from standard input
python -I broker/environments --serve RUN.json    is a container's server, for as long as it lives
python -I broker/environments --image ORDER.json  is repo2docker, for one build
python -I broker/environments --sweep             removes the containers of the order that standard input names
python -I broker/environments --archive           packs the working folder of the session that standard input names
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a folder: Python then looks for modules inside it, and ours are named from above
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from broker.environments import cache, programs, session, unlocking


def main(arguments: list[str]) -> int:
    """The exit status of what these arguments ask for."""
    if arguments[0] == "--serve":
        return serve(Path(arguments[1]))
    if arguments[0] == "--sweep":
        return sweep()
    if arguments[0] == "--archive":
        return archive()
    if arguments[0] == "--image":
        return image(Path(arguments[1]))
    spec = json.loads(Path(arguments[0]).read_text())
    Path(arguments[0]).unlink()
    if spec.pop("keyed", False):
        spec["key"] = unlocking.Key.told(json.load(sys.stdin))
    try:
        if spec.get("engine"):
            return in_container(spec)
        place = cache.found(spec) or cache.build(spec)
        spec.pop("key", None)  # it has been of no use where the environment was found
        server = session.prepare(spec, place)
    except programs.Failed as failure:
        more = {"needs": "containers"} if isinstance(failure, programs.NeedsContainers) else {}
        programs.tell("failed", str(failure), **more)
        return 1
    programs.tell("built", "The environment is ready", server=server)
    return 0


def in_container(spec: dict[str, Any]) -> int:
    """Find or build the image, and say how it is served, unless the image is all that is wanted."""
    from broker.environments import container, images

    image = images.image_for(spec)
    spec.pop("key", None)
    server = {} if spec.get("build_only") else {"server": container.prepare(spec, image)}
    programs.tell("built", "The image is ready", image=image, **server)
    return 0


def serve(path: Path) -> int:
    from broker.environments import serving

    return serving.serve(path)


def image(path: Path) -> int:
    from broker.environments import buildpack

    return buildpack.main(path)


def sweep() -> int:
    from broker.environments import serving

    return serving.sweep(json.load(sys.stdin))


def archive() -> int:
    from broker.environments import archiving

    return archiving.serve(json.load(sys.stdin))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
