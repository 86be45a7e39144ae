"""The tiny builder of the fake cloud's machines: says a few phases, and that the tiny session is built.

Runs on the machine as a program of its own: `build.py [--kind=app] [--fail=MESSAGE] SPEC.json`.
"""

import json
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    options = dict(argument.lstrip("-").split("=", 1) for argument in arguments[:-1])
    say("fetching", "Fetching nothing from nowhere.")
    say("building", "Building what takes no time.")
    if options.get("fail"):
        return say("failed", options["fail"])
    session = str(Path(__file__).resolve().with_name("session.py"))
    argv = [sys.executable, "-I", "-S", session, options.get("kind", "jupyter")]
    return say("built", "Built.", server={"argv": argv, "env": {}, "cwd": str(Path(arguments[-1]).parent)})


def say(phase: str, message: str, **more: object) -> None:
    sys.stdout.write(json.dumps({"phase": phase, "message": message, **more}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
