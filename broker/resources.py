"""How much a session needs: what the link, the person, the repository and the backend say, put together.

A repository says it in `.binder/resources.yaml` (or `binder/resources.yaml`):

    required: {memory: 4G, cpu: 2}
    recommended: {memory: 8G, disk: 20G, gpu: 1, hours: 3}

or as `hostRequirements` of a dev container, which are minimums. What a link or a person asks for goes before what a
repository recommends, and that before the backend's default; nothing goes below what a repository requires.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import yaml

from broker import errors
from broker.repos.errors import BadSpec
from providers.base import Resources
from providers.sentences import Listed, Sentence, counted, listed, say

FILES = (".binder/resources.yaml", "binder/resources.yaml", ".devcontainer/devcontainer.json", ".devcontainer.json")
"""Where a repository may say it; the first that there is counts."""

MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b?)", re.IGNORECASE)
MEGABYTES = {"": 1.0, "k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0 * 1024}
KEYS = ("cpu", "memory", "disk", "gpu", "hours")
UNITS = {"cpu": "processors", "memory_mb": "MB of memory", "disk_gb": "GB of disk", "gpu": "GPUs", "hours": "hours"}
STRING = r'("(?:\\.|[^"\\])*+(?:"|\\?\Z))'
"""In JSON. One without an end goes to the end of the text: were it none, each further quote would be looked behind as far."""
COMMENT = re.compile(rf"{STRING}|//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
"""A comment in JSON, or a string, which may hold what looks like one."""
TRAILING_COMMA = re.compile(rf"{STRING}|,(?=\s*[}}\]])", re.DOTALL)


NOTHING = Resources()


class Plain(yaml.SafeLoader):
    """YAML without references: a few hundred bytes of them name more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Raises YAMLError where one stands."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds a reference (“*”), which is not read here")
        return super().compose_node(parent, index)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a repository says of itself."""

    required: Resources = NOTHING
    recommended: Resources = NOTHING
    file: str = ""


UNASKED = Asked()


def asked_in(files: Mapping[str, bytes]) -> Asked:
    """What these files of a repository ask for. Raises BadSpec, with the file's name, where one cannot be understood."""
    name = next((name for name in FILES if name in files), None)
    if name is None:
        return Asked()
    text = files[name].decode("utf-8", "replace")
    read = _from_yaml if name.endswith(".yaml") else _from_devcontainer
    try:
        return replace(read(text), file=name)
    except (ValueError, TypeError, AttributeError, OverflowError, yaml.YAMLError, RecursionError) as fault:
        reason = str(fault).splitlines()[0][:200] if str(fault) else type(fault).__name__
        raise BadSpec(
            say(
                "%(name)s of this repository cannot be read: %(reason)s. Correct it, or remove it.",
                name=name,
                reason=reason,
            )
        ) from None


def settle(asked: Asked, *wishes: Resources) -> tuple[Resources, list[str]]:
    """One answer from these wishes, the strongest first, and a sentence for each wish that was raised to what is required.

    What the repository recommends comes before the last wish, which is the backend's default.
    """
    *strong, default = wishes
    chosen: dict[str, Any] = {}
    notes: list[str] = []
    for name in (field.name for field in fields(Resources)):
        values = [getattr(one, name) for one in (*strong, asked.recommended, default)]
        value = next((one for one in values if one is not None), None)
        least = getattr(asked.required, name)
        if least is not None and (value is None or value < least):
            if any(getattr(one, name) is not None for one in strong):
                notes.append(f"{asked.file} requires {least:g} {UNITS[name]}, so it gets that instead of {value:g}.")
            value = least
        chosen[name] = value
    return Resources(**chosen), notes


def within(chosen: Resources, most: Resources, asked: Asked) -> tuple[Resources, list[str]]:
    """The same with nothing above these limits, and a sentence for each that was lowered. Hours are not looked at.

    Raises NoBackend where the repository requires more.
    """
    lowered: dict[str, Any] = {}
    notes: list[str] = []
    for name in ("cpu", "memory_mb", "disk_gb", "gpu"):
        value, limit, least = (getattr(one, name) for one in (chosen, most, asked.required))
        if limit is None or value is None or value <= limit:
            continue
        if least is not None and least > limit:
            raise errors.NoBackend(
                say(
                    "%(file)s requires %(least)s; a session there has at most %(most)s. Choose another place.",
                    file=asked.file,
                    least=_exactly(name, least),
                    most=float(limit),
                )
            )
        lowered[name] = limit
        notes.append(
            say(
                "A session there has at most %(most)s, so it gets that instead of %(wanted)s.",
                most=_exactly(name, limit),
                wanted=float(value),
            )
        )
    return replace(chosen, **lowered), notes


def megabytes(text: str | float) -> int:
    """`4G`, `512MB`, `2048` (megabytes). Raises BadRequest."""
    found = MEMORY.fullmatch(str(text).strip())
    size = float(found[1]) * MEGABYTES[found[2].lower()] if found else 0.0
    if not 0.5 < size < 2**31 - 1:  # `inf` among them
        raise errors.BadRequest(
            say("“%(text)s” is no amount of memory. Write it like 4G or 512M.", text=str(text)[:40])
        )
    return round(size)


def gigabytes(text: str | float) -> int:
    """`20G`, `20` (gigabytes), `512M` (rounded up). Raises BadRequest."""
    text = str(text).strip()
    return -(-megabytes(f"{text}G" if text.replace(".", "", 1).isdigit() else text) // 1024)


def shown(resources: Resources) -> str:
    """In words: `2 processors, 4096 MB of memory`; empty where nothing is asked for."""
    named = [(name, getattr(resources, name)) for name in ("cpu", "memory_mb", "disk_gb", "gpu")]
    return ", ".join(f"{value:g} {UNITS[name]}" for name, value in named if value)


def plainly(resources: Resources) -> Listed:
    """The same as people say it: `2 processors, 4 GB of memory`."""
    named = [(name, getattr(resources, name)) for name in ("cpu", "memory_mb", "disk_gb", "gpu")]
    return listed(amount(name, value) for name, value in named if value)


def amount(name: str, value: float) -> Sentence:
    """One of them as people say it: `4 GB of memory`, `1 processor`."""
    if name == "memory_mb" and value >= 1024:
        return say("%(size)s GB of memory", size=round(value / 1024, 1))
    if name == "memory_mb":
        return say("%(size)s MB of memory", size=value)
    if name == "disk_gb":
        return say("%(size)s GB of disk", size=value)
    if name == "cpu":
        return counted("%(count)s processor", "%(count)s processors", value)
    if name == "gpu":
        return counted("%(count)s GPU", "%(count)s GPUs", value)
    return counted("%(count)s hour", "%(count)s hours", value)


def _exactly(name: str, value: float) -> str:
    """As somebody wrote it: `4096 MB of memory`."""
    if name == "memory_mb":
        return say("%(size)s MB of memory", size=float(value))
    return f"{value:g} {UNITS[name]}" if name == "hours" else amount(name, float(value))


def _from_yaml(text: str) -> Asked:
    found = yaml.load(text, Plain) or {}  # noqa: S506 -- a safe one
    if unknown := sorted(set(found) - {"required", "recommended"}):
        raise ValueError(f"it holds “{unknown[0]}”; it may hold “required” and “recommended”")
    parts = {name: _resources(found.get(name) or {}) for name in ("required", "recommended")}
    return Asked(**parts)


def _resources(told: Mapping[str, Any]) -> Resources:
    if unknown := sorted(set(map(str, told)) - set(KEYS)):
        raise ValueError(f"“{unknown[0]}” is none of {', '.join(KEYS)}")
    kinds: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "cpu": ("cpu", _positive),
        "memory": ("memory_mb", megabytes),
        "disk": ("disk_gb", gigabytes),
        "gpu": ("gpu", _count),
        "hours": ("hours", _positive),
    }
    return Resources(**{kinds[key][0]: _read(kinds[key][1], key, told[key]) for key in told if told[key] is not None})


def _read(kind: Callable[[Any], Any], key: str, value: Any) -> Any:
    try:
        return kind(value)
    except (errors.BadRequest, ValueError, TypeError, OverflowError):
        raise ValueError(f"{key} cannot be “{str(value)[:40]}”") from None


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < 100_000 or isinstance(value, bool):
        raise ValueError
    return number


def _count(value: Any) -> int:
    if isinstance(value, bool):
        return int(value)
    number = int(value)
    if not 0 <= number < 1000:
        raise ValueError
    return number


def _string(found: re.Match[str]) -> str:
    return found[1] or ""


def _from_devcontainer(text: str) -> Asked:
    """JSON with comments, as its specification allows. `gpu: optional` is a recommendation."""
    plain = TRAILING_COMMA.sub(_string, COMMENT.sub(_string, text))
    told = (json.loads(plain) or {}).get("hostRequirements") or {}
    gpu = told.get("gpu")
    required = Resources(
        cpu=_read(_positive, "cpus", told["cpus"]) if "cpus" in told else None,
        memory_mb=_read(megabytes, "memory", told["memory"]) if "memory" in told else None,
        disk_gb=_read(gigabytes, "storage", told["storage"]) if "storage" in told else None,
        gpu=1 if gpu is True or isinstance(gpu, dict) else None,
    )
    return Asked(required=required, recommended=Resources(gpu=1 if gpu == "optional" else None))
