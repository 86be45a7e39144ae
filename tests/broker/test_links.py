"""Launch links as authors make them: the form, its snippets, the script they load, and oEmbed."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
from fastapi.testclient import TestClient

from broker import app, repos, settings
from broker.web import assets, builder, embed, links, v2, views
from tests.broker.conftest import Bench

HERE = "http://localhost:8000"
ODD = "o'(r)/na[me]*_`<x>"


@pytest.fixture
def anyone(bench: Bench) -> Iterator[TestClient]:
    """A browser in which nobody is signed in."""
    with browser(bench) as client:
        yield client


def browser(bench: Bench) -> TestClient:
    return TestClient(app.create(bench.at), base_url=HERE, headers={"accept": "text/html"}, follow_redirects=False)


def open_to(bench: Bench, *rules: str) -> None:
    """Let only these use the one place there is."""
    setting = settings.BackendSetting(name="desk", provider="fake", open_to=rules)
    bench.at.backends["desk"] = replace(bench.at.backends["desk"], setting=setting)


def snippets(page: str) -> dict[str, str]:
    """What can be copied from the builder page, by the id of its field."""
    return {
        name: html.unescape(text)
        for name, text in re.findall(r'<textarea id="(\w+)"[^>]*>(.*?)</textarea>', page, re.DOTALL)
    }


def made(client: TestClient, **typed: Any) -> dict[str, str]:
    answer = client.get("/link", params=typed)
    assert answer.status_code == 200, answer.text
    return snippets(answer.text)


def link(**typed: str) -> links.Link:
    return links.Link(hub="https://hub.example/", spec="gh/o/r/v1", ref="v1", title=ODD, filled=views.Filled(**typed))


# --- the link ---------------------------------------------------------------------------------------------------------


def test_a_link_says_what_was_typed(anyone: TestClient, bench: Bench) -> None:
    typed = {
        "repo": bench.repo,
        "ref": "main",
        "path": "a b/ü.ipynb",
        "backends": ["desk"],
        "memory": "2G",
        "hours": "3",
    }
    url = made(anyone, **typed)["url"]
    assert url.startswith(f"{HERE}/v2/git/{quote(bench.repo, safe='')}/main?")
    read = v2.understood(urlsplit(url).path, urlsplit(url).query).filled.typed
    assert {name: read[name] for name in typed} == {**typed, "backends": "desk"}


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/rstudio/", "urlpath=rstudio/"),
        ("a.ipynb", "labpath=a.ipynb"),
        ("/", ""),
        ("", ""),
        ("/lab?x=1", "urlpath=lab%3Fx%3D1"),
    ],
)
def test_what_it_opens_is_written_as_binder_has_it(path: str, query: str) -> None:
    assert link(path=path).url.partition("?")[2] == query


def test_it_can_be_pinned_to_what_it_means_now(anyone: TestClient, bench: Bench) -> None:
    moving = anyone.get("/link", params={"repo": bench.repo, "path": "a.ipynb"}).text
    assert "follows what its repository becomes" in moving
    (pin,) = (each for each in re.findall(r'href="(/link\?[^"]*)"', moving) if "lang=" not in each)
    pinned = anyone.get(html.unescape(pin)).text
    assert "This link is pinned" in pinned
    commit = bench.at.repos.resolve(bench.at.repos.parse(bench.repo)).commit
    assert urlsplit(snippets(pinned)["url"]).path.endswith(f"/{commit}")
    assert snippets(pinned)["url"].endswith("?labpath=a.ipynb")


def test_a_binder_link_is_taken_apart(anyone: TestClient, bench: Bench) -> None:
    given = f"https://mybinder.org/v2/git/{quote(bench.repo, safe='')}/main?urlpath=rstudio/&backends=desk"
    url = made(anyone, repo=given)["url"]
    assert urlsplit(url).path == urlsplit(given).path
    assert parse_qs(urlsplit(url).query) == {"urlpath": ["rstudio/"], "backends": ["desk"]}


def test_what_cannot_be_a_repository_is_said_beside_the_field(anyone: TestClient) -> None:
    answer = anyone.get("/link", params={"repo": "not a repository"})
    assert answer.status_code == 400
    assert 'id="repo-problem"' in answer.text
    assert snippets(answer.text) == {}


def test_a_figure_that_is_none_is_said_beside_the_figure(anyone: TestClient, bench: Bench) -> None:
    answer = anyone.get("/link", params={"repo": bench.repo, "memory": "much"})
    assert answer.status_code == 400
    assert 'id="memory-problem"' in answer.text


def test_what_is_not_there_is_said_and_the_link_made_all_the_same(anyone: TestClient, bench: Bench) -> None:
    page = anyone.get("/link", params={"repo": f"{bench.repo}-gone"})
    assert page.status_code == 200
    assert "opens nothing at the moment" in page.text
    assert snippets(page.text)["url"]


def test_a_visitor_has_only_so_much_looked_up(
    anyone: TestClient, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = anyone.app.state.link_looks  # type: ignore[attr-defined]
    for _ in range(builder.LOOKS):
        allowed.spend("testclient")
    page = anyone.get("/link", params={"repo": bench.repo}).text
    assert "It was not looked up" in page
    assert bench.at.subjects == {}


def test_places_for_some_are_offered_to_no_stranger(make_bench: Callable[..., Bench]) -> None:

    bench = make_bench()
    open_to(bench, "group staff")
    with browser(bench) as client:
        assert 'value="desk"' not in client.get("/link").text
        client.cookies.set("anybinder", client.app.state.door.cookie())  # type: ignore[attr-defined]
        assert 'value="desk"' in client.get("/link").text


# --- badges -----------------------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_html_is_a_picture_in_a_link() -> None:
    one = link(path="a.ipynb", backends="x,y")
    (_, anchor), (_, image) = Elements(one.html).found
    assert anchor == {"href": one.url}
    assert image == {"src": "https://hub.example/badge.svg", "alt": one.alt, "width": "100", "height": "20"}


def test_restructured_text_is_a_picture_in_a_link() -> None:
    one = link(path="a b.ipynb")
    assert one.restructured.split("\n") == [f".. image:: {one.badge}", f"   :target: {one.url}", f"   :alt: {one.alt}"]


def test_markdown_is_a_picture_in_a_link() -> None:
    one = link(path="a (b).ipynb")
    found = re.fullmatch(r"\[!\[((?:\\.|[^\\\]])*)\]\(([^\s()]+)\)\]\(([^\s()]+)\)", one.markdown)
    assert found is not None
    assert re.sub(r"\\(.)", r"\1", found[1]) == one.alt
    assert found.groups()[1:] == (one.badge, one.url)


def test_an_odd_spec_does_not_end_the_markdown_before_its_end() -> None:
    odd = links.Link(hub="https://h/", spec="gh/o/r/a(b)'c", title="o/r", filled=views.Filled())
    assert not set("()'*") & set(odd.url)
    assert unquote(urlsplit(odd.url).path) == "/v2/gh/o/r/a(b)'c"
    assert repos.RepoSpec.parse(odd.url) == repos.RepoSpec.parse("https://h/v2/gh/o/r/a(b)'c")


def test_the_badge_is_shown_by_pages_elsewhere(anyone: TestClient) -> None:
    answer = anyone.get("/badge.svg", headers={"origin": "https://journal.example"})
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert "<title>" in answer.text


# --- the choice inside of a page --------------------------------------------------------------------------------------


def test_the_element_says_what_the_link_says_and_holds_it() -> None:
    one = link(path="a.ipynb", backends="x,y", memory="2G")
    script, element, anchor, _image = Elements(one.element("https://hub.example/embed-1.js", "sha384-x")).found
    assert script[1] == {
        "type": "module",
        "src": "https://hub.example/embed-1.js",
        "integrity": "sha384-x",
        "crossorigin": "anonymous",
    }
    assert element[1] == {"repo": "gh/o/r", "ref": "v1", "path": "a.ipynb", "backends": "x,y", "memory": "2G"}
    assert anchor[1] == {"href": one.url}


def test_the_list_leads_visitors_straight_to_their_place_only() -> None:
    rows = Elements(link().listed({"open": "Open", "campus": "Campus & more"}, "open")).found
    hrefs = [attributes["href"] or "" for tag, attributes in rows if tag == "a"]
    assert [parse_qs(urlsplit(href).query) for href in hrefs] == [
        {"backend": ["open"]},
        {"backend": ["campus"], "choose": ["1"]},
    ]


@pytest.mark.parametrize("path", ["/embed.js", *(f"/{name}" for name in embed.VERSIONS)])
def test_the_script_is_what_its_digest_says_and_pages_may_load_it(anyone: TestClient, bench: Bench, path: str) -> None:
    answer = anyone.get(path, headers={"origin": "https://journal.example"})
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["access-control-allow-origin"] == "*"
    digest = base64.b64encode(hashlib.sha384(answer.content).digest()).decode()
    assert f"sha384-{digest}" in made(anyone, repo=bench.repo)["element"]


def test_the_script_is_small_and_makes_nothing_of_text() -> None:
    text = (assets.FOLDER / embed.NEWEST).read_text()
    assert len(text.encode()) < 10_000
    for word in ("innerHTML", "eval(", "new Function", "document.write", ".style.", "import "):
        assert word not in text


# --- oEmbed -----------------------------------------------------------------------------------------------------------


def asked(client: TestClient, url: str, **more: str) -> Any:
    return client.get("/oembed", params={"url": url, **more})


def test_a_link_of_ours_is_a_badge(anyone: TestClient) -> None:
    answer = asked(anyone, f"{HERE}/v2/gh/o/r/v1?labpath=a.ipynb&choose=1", format="json", maxwidth="600")
    assert answer.headers["access-control-allow-origin"] == "*"
    told = answer.json()
    assert {name: told[name] for name in ("version", "type", "width", "height", "provider_name")} == {
        "version": "1.0", "type": "rich", "width": 100, "height": 20, "provider_name": "Anybinder",
    }  # fmt: skip
    (_, anchor), (tag, _image) = Elements(told["html"]).found
    assert (anchor["href"], tag) == (f"{HERE}/v2/gh/o/r/v1?labpath=a.ipynb", "img")


def test_what_has_no_room_for_it_is_a_link(anyone: TestClient) -> None:
    told = asked(anyone, f"{HERE}/v2/gh/o/r/v1", maxwidth="80").json()
    assert told["type"] == "link"
    assert "html" not in told


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://mybinder.org/v2/gh/o/r/v1",
        f"{HERE}/",
        f"{HERE}/v2/nope/x",
        f"{HERE}/v2/gh/o",
        "http://[x",
        "/v2/gh/o/r/v1",
    ],
)
def test_anything_else_is_not_found(anyone: TestClient, url: str) -> None:
    assert asked(anyone, url).status_code == 404


def test_another_format_is_not_implemented(anyone: TestClient) -> None:
    assert asked(anyone, f"{HERE}/v2/gh/o/r/v1", format="xml").status_code == 501


def test_the_page_of_a_link_says_where_its_answer_is(anyone: TestClient) -> None:
    page = anyone.get("/v2/gh/o/r/v1?labpath=a.ipynb").text
    (found,) = re.findall(r'<link rel="alternate" type="application/json\+oembed" href="([^"]*)"', page)
    assert anyone.get(html.unescape(found)).json()["html"].startswith(f'<a href="{HERE}/v2/gh/o/r/v1?labpath=a.ipynb"')


def test_no_markup_comes_out_of_a_link(anyone: TestClient) -> None:
    told = asked(anyone, f"{HERE}/v2/gh/o/r/%22%3E%3Cscript%3E?labpath=%22%3E%3Cimg%20src=x%3E")
    if told.status_code == 200:
        assert [tag for tag, _ in Elements(told.json()["html"]).found] == ["a", "img"]


def test_everything_for_authors_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "links.md").read_text()
    for word in ("/go", "/link", "/oembed", *embed.VERSIONS, "<anybinder-launch", "script-src"):
        assert word in page
