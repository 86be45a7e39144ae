"""Makes docs/reference/ from the code: `.venv/bin/python docs/generate.py`. tests/test_docs.py says when to."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

CLONE = Path(__file__).resolve().parent.parent
REFERENCE = CLONE / "docs" / "reference"
MADE = "<!-- Made by docs/generate.py: change the code, then run it again. -->"
PLACES = {"default_home": "the operating system's place for application data"}
TABLES = {
    "BackendSetting": "A backend, in `backends`",
    "ResourceSetting": "Its `resources` and `most`",
    "SizeSetting": "A plain size, in `sizes`; with the figures of `resources`",
    "Policy": "What may run, for a backend as for a host",
    "HostSetting": "A host of repositories, in `hosts`",
    "IdentitySetting": "A provider that people sign in with, in `identities`",
    "PeerSetting": "Another hub, in `peers`",
}
"""The classes of `broker.settings` whose fields stand in tables of config.toml, and what each is called."""


# --- settings -------------------------------------------------------------------------------------------------------


def settings() -> Iterator[str]:
    """The fields of `broker.settings.Settings`, read without running it."""
    yield from (
        "# Settings",
        "",
        "Each is an environment variable; or, without `ANYBINDER_` and in lower case, a name in `config.toml` in the",
        "state folder; the environment wins. Lists and tables are JSON in the environment.",
        "",
        "| variable | default | means |",
        "|---|---|---|",
    )
    for name, default, meaning in fields("Settings"):
        yield f"| `ANYBINDER_{name.upper()}` | {default} | {meaning} |"
    for class_name, title in TABLES.items():
        yield from ("", f"## {title}", "", "| field | default | means |", "|---|---|---|")
        for name, default, meaning in fields(class_name):
            yield f"| `{name}` | {default} | {meaning} |"


def fields(class_name: str) -> Iterator[tuple[str, str, str]]:
    trees = [ast.parse((CLONE / "broker" / name).read_text()) for name in ("settings.py", "sizes.py")]
    nodes = [node for tree in trees for node in tree.body]
    body = next(node.body for node in nodes if isinstance(node, ast.ClassDef) and node.name == class_name)
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, shown_default(node), sentence_after(after) or choices(node.annotation)


def shown_default(node: ast.AnnAssign) -> str:
    if node.value is None:
        return "must be given"
    given = node.value
    if isinstance(given, ast.Call) and ast.unparse(given.func) == "Field":
        factory = next((word.value for word in given.keywords if word.arg == "default_factory"), None)
        if factory or not given.args:
            return PLACES[ast.unparse(factory)] if factory else "must be given"
        given = given.args[0]
    elif isinstance(given, ast.Call) and not given.args:
        return "empty"
    value = ast.unparse(given)
    return {"''": "empty", "SecretStr('')": "empty", "None": "none"}.get(value, f"`{value}`")


def sentence_after(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split()).replace("|", "\\|")
    return ""


def choices(annotation: ast.expr) -> str:
    words = [node.value for node in ast.walk(annotation) if isinstance(node, ast.Constant) and node.value]
    return "One of " + ", ".join(f"`{word}`" for word in words) + "." if words else ""


# --- errors ---------------------------------------------------------------------------------------------------------


def errors() -> Iterator[str]:
    """The trees of errors, as people, metrics and HTTP meet them."""
    import broker.errors
    import broker.repos.errors
    import providers.errors

    yield from ("# Errors", "", "`reason` is the word in metrics and in the answer's JSON.", "")
    for title, module in (
        ("The broker", broker.errors),
        ("Repositories", broker.repos.errors),
        ("Clouds", providers.errors),
    ):
        yield from (f"## {title}", "", "| error | HTTP | reason | says, where it has nothing better to say |")
        yield "|---|---|---|---|"
        yield from sorted(error_row(each) for each in errors_in(module))
        yield ""


def errors_in(module: ModuleType) -> list[type[Exception]]:
    found = (each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == module.__name__)
    return [each for each in found if issubclass(each, Exception)]


def error_row(each: type[Exception]) -> str:
    paragraph = " ".join((each.__doc__ or "").split("\n\n")[0].split())
    return f"| `{each.__name__}` | {getattr(each, 'status_code', '')} | `{getattr(each, 'reason', '')}` | {paragraph} |"


# --- providers ------------------------------------------------------------------------------------------------------


def providers() -> Iterator[str]:
    """What can be configured of each kind of compute, from its class."""
    yield from ("# Providers", "")
    for entry in sorted(importlib.metadata.entry_points(group="anybinder.providers"), key=lambda each: each.name):
        provider = entry.load()
        yield from (f"## `{entry.name}`: {provider.title}", "", first_paragraph(provider), "")
        yield from ("| setting | default | means |", "|---|---|---|")
        for each in provider.settings:
            default = "must be given" if each.required else f"`{each.default}`" if each.default else "empty"
            yield f"| `{each.name}` | {default} | {each.help} |"
        yield ""


def first_paragraph(thing: object) -> str:
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


# --- commands -------------------------------------------------------------------------------------------------------


def commands() -> Iterator[str]:
    """The command line, from the commands themselves."""
    import typer

    from broker.cli import app

    yield from ("# Commands", "")
    for name, command in each_command(typer.main.get_command(app)):
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        usage = " ".join(["anybinder", name, *(str(each.metavar or each.name).upper() for each in arguments)])
        yield from (f"## `{usage}`", "", inspect.cleandoc(command.help or ""), "")
        for each in command.params:
            if getattr(each, "help", None) and not getattr(each, "hidden", False):
                said = each.opts if each not in arguments else [str(each.metavar or each.name).upper()]
                yield f"- `{' '.join(said)}`: {each.help}"
        yield ""


def each_command(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Those that are shown, each group followed by its own."""
    for name, command in group.commands.items():
        if not command.hidden:
            yield before + name, command
            if hasattr(command, "commands"):
                yield from each_command(command, f"{before}{name} ")


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "settings.md": settings,
    "errors.md": errors,
    "providers.md": providers,
    "commands.md": commands,
}


def page(name: str) -> str:
    """The text of this page as the code would have it now."""
    return "\n".join([MADE, "", *PAGES[name]()]).rstrip() + "\n"


def main(names: list[str]) -> None:
    """Write the named pages; all when none is named."""
    REFERENCE.mkdir(exist_ok=True)
    for name in names or PAGES:
        (REFERENCE / name).write_text(page(name))


if __name__ == "__main__":
    sys.path.insert(0, str(CLONE))
    main(sys.argv[1:])
