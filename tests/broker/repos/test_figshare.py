"""`figshare`: articles, whose versions are fixed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker import repos
from broker.repos import errors
from tests.doubles.data_hosts import FigshareDouble, md5


@pytest.fixture
def figshare() -> Iterator[FigshareDouble]:
    with FigshareDouble() as double:
        yield double


@pytest.fixture
def resolve(figshare, resolver):
    asking = resolver(hosts={"figshare": {"api": figshare.api, "url": figshare.url}})
    return lambda text: asking.resolve(repos.RepoSpec.parse(text))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("figshare/10.6084/m9.figshare.9782777", 2),
        ("figshare/10.6084/m9.figshare.9782777.v1", 1),
        ("10.6084/M9.FIGSHARE.9782777.V1", 1),
        ("https://doi.org/10.6084/m9.figshare.9782777.v2", 2),
        ("figshare/9782777.v1", 1),
        ("figshare/9782777", 2),
        ("https://figshare.com/articles/binder-examples_requirements/9782777", 2),
        ("https://figshare.com/articles/dataset/a_title/9782777/1", 1),
        ("https://su.figshare.com/articles/code/a_title/9782777", 2),
        ("figshare/https%3A%2F%2Ffigshare.com%2Farticles%2Fdataset%2Fa%2F9782777%2F1", 1),
    ],
)
def test_every_way_to_write_an_article_leads_to_one_version_of_it(figshare, resolve, text, version):
    figshare.article(9782777, {1: {"a.zip": b"one"}, 2: {"a.zip": b"two!"}})
    found = resolve(text)
    number = f"9782777.v{version}"
    assert (found.commit, found.spec_string) == (number, f"figshare/10.6084/m9.figshare.{number}")
    assert found.web_url == f"https://figshare.com/articles/dataset/An_article/9782777/{version}"
    assert found.content["files"][0]["md5"] == md5([b"one", b"two!"][version - 1])
    assert (found.content["unpack"], found.lasting) == (True, "")


def test_an_institutions_doi_keeps_its_own_words(figshare, resolve):
    figshare.article(9782777, {3: {"a.txt": b"a"}})
    assert resolve("figshare/10.25384/sage.9782777").spec_string == "figshare/10.25384/sage.9782777.v3"


def test_more_files_than_an_article_tells_are_asked_for(figshare, resolve):
    figshare.article(9782777, {1: {f"{number}.txt": b"x" for number in range(1203)}})
    assert len(resolve("figshare/9782777").content["files"]) == 1203


def test_links_are_left_out_and_two_files_of_one_name_are_told_apart(figshare, resolve):
    figshare.article(9782777, {1: {"a.txt": b"a", "b.txt": b"b", "c.txt": b"c"}})
    rows = figshare.json["/v2/articles/9782777/versions/1"]["files"]
    rows[0]["is_link_only"], rows[1]["name"] = True, "c.txt"
    assert [row["path"] for row in resolve("figshare/9782777").content["files"]] == ["c.txt", "c-2.txt"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"is_embargoed": True, "embargo_date": "2030-01-01T00:00:00", "files": []}, "until 2030-01-01"),
        ({"is_confidential": True, "files": []}, "confidential"),
        ({"files": []}, "no files"),
    ],
)
def test_an_article_without_public_files_says_why(figshare, resolve, more, words):
    figshare.article(9782777, {1: {}}, **more)
    with pytest.raises(errors.NotFound, match=words):
        resolve("figshare/9782777")


def test_no_such_article_and_no_such_version_are_sentences(figshare, resolve):
    figshare.article(9782777, {1: {"a": b"a"}})
    for text in ("figshare/9782778", "figshare/9782777.v7"):
        with pytest.raises(errors.NotFound, match="has no article"):
            resolve(text)


@pytest.mark.parametrize("told", [b"<html>", b"[]", b"{}", b'[{"version": "x"}]'])
def test_an_answer_of_another_form_is_the_hosts_fault(figshare, resolve, told):
    figshare.json["/v2/articles/9782777/versions"] = told
    with pytest.raises(errors.HostUnavailable, match="makes no sense"):
        resolve("figshare/9782777")
