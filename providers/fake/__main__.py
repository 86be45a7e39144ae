"""`python -m providers.fake serve --socket PATH --state FOLDER`: run a fake cloud until it is told to end."""

import argparse
from pathlib import Path

from providers.fake.server import serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="providers.fake", description=__doc__)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("serve", help="answer on a unix socket until SIGTERM")
    verb.add_argument("--socket", required=True, help="unix socket to answer on")
    verb.add_argument("--state", required=True, type=Path, help="folder that machines live in; a short path")
    asked = parser.parse_args()
    serve(asked.socket, asked.state)


if __name__ == "__main__":
    main()
