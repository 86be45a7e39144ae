"""A builder for images that are there already: `tiny_builder.py IMAGE SPEC.json`; and the sweep, as our own has it."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from broker.environments import container, programs, serving

image, what = sys.argv[1:]
if what == "--sweep":
    sys.exit(serving.sweep(json.load(sys.stdin)))
try:
    server = container.prepare(json.loads(Path(what).read_text()), image)
except programs.Failed as failure:
    programs.tell("failed", str(failure))
    sys.exit(1)
programs.tell("built", "The image is there", image=image, server=server)
