"""What a container engine says while it builds: lines for the person, and at a failure one sentence."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from broker.environments import installing

OURS = "anybinder: "  # what our own build steps put before a sentence for the person
KEPT = 40  # lines of each step, which hold a resolver's whole account
NOISE = re.compile(
    r"DONE \d|CACHED|CANCELED|sha256:|transferring |extracting |naming to |resolve |\.\.\.$|writing image"
)
HEADER = re.compile(r"\[ *(?:[\w.-]+ +)?(\d+)/(\d+)\] (.*)")
PODMAN_HEADER = re.compile(r"STEP (\d+)/(\d+): (.*)")
STATUS = re.compile(r"exit (?:code|status):? (\d+)")
REPO2DOCKER = re.compile(r"Picked \w+ content provider|Using (\w+ builder|local repo)|Python version unspecified")
PODMAN_NOISE = re.compile(r"--> |COMMIT |Successfully tagged |[0-9a-f]{64}$")
PROGRESS = re.compile(r"\(Reading database \.\.\. ?\d*%?$")  # apt's, twenty lines a time


class Step:
    """One instruction of the recipe."""

    def __init__(self) -> None:
        self.command = ""
        self.lines: deque[str] = deque(maxlen=KEPT)


class Transcript:
    """Fed line by line with `--progress plain`; shows what a person wants to read."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._steps: dict[str, Step] = {}
        self._current = Step()
        self._failed: Step | None = None
        self._reason = ""
        self._sentence = ""

    def __call__(self, line: str) -> None:
        """Take one line."""
        if told := re.match(r"#(\d+) (.*)", line):
            self._of_step(self._steps.setdefault(told[1], Step()), told[2])
        elif header := PODMAN_HEADER.match(line):
            self._current = Step()
            self._begin(self._current, header)
        else:
            self._loose(line)

    def _of_step(self, step: Step, text: str) -> None:
        if header := HEADER.match(text):
            self._begin(step, header)
        elif output := re.match(r"\d+\.\d+ (.*)", text):
            self._say(step, output[1])
        elif text.startswith("ERROR: ") and self._failed is None:
            self._failed, self._reason = step, text.removeprefix("ERROR: ")
        elif text.startswith("exporting to image") and not step.command:
            step.command = text
            self._show("Writing the image")
        elif NOISE.match(text) or text.startswith("["):
            return

    def _begin(self, step: Step, header: re.Match[str]) -> None:
        if step.command:  # said again after others have spoken
            return
        step.command = re.sub(r"\s+", " ", header[3]).strip()
        self._show(f"[{header[1]}/{header[2]}] {step.command[:150]}")

    def _say(self, step: Step, text: str) -> None:
        if text.startswith(OURS):
            self._sentence = text.removeprefix(OURS)
        elif text.strip() and not PROGRESS.match(text):
            step.lines.append(text)
            self._show(text)

    def _loose(self, line: str) -> None:
        """What belongs to no numbered step: the recipe's maker, another engine, and the last word of a failed build."""
        if line.startswith(OURS):
            self._sentence = line.removeprefix(OURS)
        elif line.lower().startswith("error: "):
            self._reason = self._reason or line[7:]
            self._failed = self._failed or (self._current if self._current.command else None)
        elif self._failed is None and not self._reason and not (REPO2DOCKER.match(line) or PODMAN_NOISE.match(line)):
            self._say(self._current, line)

    def sentence(self) -> str:
        """Why it failed, and what to look at."""
        if self._sentence:
            return self._sentence
        found = STATUS.search(self._reason)
        if self._failed is None or found is None:
            reason = re.sub(r"^(failed to build|failed to solve|building at STEP .*?): ", "", self._reason)
            reason = re.sub(r"^failed to solve: ", "", reason) or "the engine did not say why."
            return f"The image could not be built: {reason[:1000]}"
        return why(self._failed.command, int(found[1]), list(self._failed.lines))


def why(command: str, status: int, lines: list[str]) -> str:
    """Which of the repository's files is behind the step that failed, and what was wrong with it."""
    said = [line.strip() for line in lines if line.strip()]
    ended = "was killed, perhaps for want of memory" if status == 137 else f"failed (exit status {status})"
    last = f"Its last lines: {' / '.join(said[-8:])[-1500:]}" if said else "It said nothing."
    if re.search(r"^RUN \./(\S+/)?postBuild$", command):
        return f"postBuild {ended}. {last}"
    if "pip install" in command or "pipenv" in command:
        errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
        return f"The packages cannot be installed: {' '.join(errors)[:1500] or installing.explanation(said)}"
    if "apt-get" in command:
        errors = [line.removeprefix("E: ") for line in said if line.startswith("E: ")]
        return f"The system packages cannot be installed: {' '.join(errors)[:1500] or last}"
    return f"{command[:150]} {ended}. {last}"
