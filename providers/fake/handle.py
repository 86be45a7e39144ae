"""A fake cloud in a process of its own, and all that a test may ask of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from providers import processes
from providers.fake.driver import FakeProvider
from providers.fake.wire import ask

STOP_SECONDS = 20


class FakeCloud:
    """Started by `FakeCloud.start()`, ended by `stop()` or at the end of `with`. Safe to use from several threads."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder, self._process = folder, process

    @classmethod
    def start(cls) -> Self:
        """A new one, that answers when this returns."""
        folder = Path(tempfile.mkdtemp(prefix="ab-fake-"))
        argv = [sys.executable, "-m", "providers.fake", "serve", "--socket", str(folder / "s"), "--state", str(folder)]
        root = Path(__file__).parent.parent.parent
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, cwd=root)
        cloud = cls(folder, process)
        if process.stdout is None or process.stdout.readline() != "ready\n":
            cloud.stop()
            raise RuntimeError("the fake cloud did not start")
        return cloud

    @property
    def configuration(self) -> dict[str, str]:
        """What a backend of this cloud is configured with."""
        return {"socket": str(self.folder / "s")}

    @property
    def pid(self) -> int:
        return self._process.pid

    def provider(self, **configuration: str) -> FakeProvider:
        """A driver for this cloud."""
        return FakeProvider({**self.configuration, **configuration})

    def fault(
        self, call: str, name: str, *, times: int | None = 1, where: dict[str, str] | None = None, **settings: Any
    ) -> int:
        """Have the next `times` matching calls (None: all) meet this fault of `faults.py`; its number, for `release`."""
        told = {"call": call, "name": name, "times": times, "where": where or {}, "settings": settings}
        return self._ask("fault", told)["id"]

    def faults(self) -> list[dict[str, Any]]:
        """All that are programmed, and how often each was `met`."""
        return self._ask("faults")["faults"]

    def clear(self) -> None:
        """Everything works again; what was held goes on."""
        self._ask("clear")

    def release(self, number: int | None = None) -> None:
        """Let go of the calls that the fault `hold` (or `slow`) holds: of one, or of all."""
        self._ask("release", {"id": number})

    def advance(self, seconds: float) -> float:
        """Jump ahead. What became due has happened when this returns. The cloud's time, as seconds since 1970."""
        return self._ask("clock", {"advance": seconds})["now"]

    def rate(self, rate: float) -> None:
        """Let its time run so many times as fast as ours; 0 stops it."""
        self._ask("clock", {"rate": rate})

    def now(self) -> float:
        return self.advance(0)

    def options(self, **options: Any) -> None:
        """Change how it behaves when nothing goes wrong: the fields of `cloud.Options`."""
        self._ask("options", options)

    def calls(self, call: str | None = None) -> list[dict[str, Any]]:
        """What it was asked, in order: call, order, status (`lost` where no answer went out), faults met."""
        return [entry for entry in self._ask("calls")["calls"] if call in (None, entry["call"])]

    def everything(self) -> list[dict[str, Any]]:
        """Machines and parts, also those that are gone."""
        return self._ask("instances")["instances"]

    def instances(self) -> list[dict[str, Any]]:
        """The machines that are there, whoever's they are."""
        return [thing for thing in self.everything() if thing["kind"] == "machine" and thing["state"] != "gone"]

    def untagged(self) -> list[str]:
        """What is there and carries no tag."""
        return [t["id"] for t in self.everything() if t["state"] != "gone" and "anybinder-order" not in t["labels"]]

    def bill(self, order: str | None = None) -> list[dict[str, Any]]:
        """Everything ever bought: id, kind, order, seconds billed, and whether it is `running` up still."""
        return [item for item in self._ask("bill")["bill"] if order in (None, item["order"])]

    def billed(self, order: str | None = None) -> list[str]:
        """What is being billed right now."""
        return [item["id"] for item in self.bill(order) if item["running"]]

    def die(self, instance_id: str, *, leaves: tuple[str, ...] = ()) -> None:
        """The machine dies by itself; the parts of these kinds (`disk`, `address`) stay and cost."""
        self._ask("die", {"id": instance_id, "leaves": leaves})

    def reset(self) -> None:
        """As new: machines killed, nothing bought, no fault, no call, real time, no options."""
        self._ask("reset", seconds=60)

    def stop(self) -> None:
        """End it with all its machines, also where it was killed and could not. Ending it twice is success."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        for process, mark in processes.everyone_marked():
            if processes.was_told(process, str(self.folder)):
                processes.kill(mark, process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _ask(self, name: str, told: dict[str, Any] | None = None, *, seconds: float = 20) -> dict[str, Any]:
        status, answer = ask(str(self.folder / "s"), f"/control/{name}", told or {}, seconds=seconds)
        if status != 200:
            raise ValueError(answer["message"])
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
