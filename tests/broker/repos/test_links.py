"""Links that others make: each leads to the right repository, reference and file, or keeps its `urlpath` whole.

The expectations of sphinx-book-theme are those of its tests at 055af058303995447ee3ada036e9c88d701f51e5 (2026-06-02;
tests/test_build.py, `test_launch_button_url`, `test_header_launchbtns`, `test_repo_custombranch` and the four recorded
pages header__launch-buttons--*.html), for every repository they use and both interfaces. nbgitpuller has no tests of
the links it makes; those here are made as its generator makes them at f7dce435044a769dfab00ed1214a7851f0b60797
(2026-03-31; docs/_static/link_gen/link.js, the Binder tab), for each of its applications.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import quote, urlencode, urlsplit

import pytest

from broker import repos
from broker.repos import errors
from tests.broker.repos.malformed import refused_to_parse
from tests.doubles.git_server import GitServer, add_commit, make_repo

HUBS = ("https://mybinder.org", "https://hub.example/services/binder", "http://127.0.0.1:8585")
BOOK = "section1/ntbk.ipynb"
THEME = "gh/executablebooks/sphinx-book-theme"
GITLAB = "gl/gitlab-org%2Fgitlab"


# --- sphinx-book-theme ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize(
    ("link", "spec", "path"),
    [
        (f"{THEME}/foo?urlpath=tree/docs/section1/ntbk.ipynb", f"{THEME}/foo", "docs/section1/ntbk.ipynb"),
        (f"{THEME}/foo?urlpath=tree/docs/section1/ntbkmd.md", f"{THEME}/foo", "docs/section1/ntbkmd.md"),
        (f"{THEME}/foo?urlpath=tree/section1/ntbk.ipynb", f"{THEME}/foo", "section1/ntbk.ipynb"),
        (f"{THEME}/master?urlpath=lab/tree/TESTPATH/{BOOK}", f"{THEME}/master", f"TESTPATH/{BOOK}"),
        (f"{GITLAB}/foo?urlpath=tree/docs/section1/ntbk.ipynb", f"{GITLAB}/foo", "docs/section1/ntbk.ipynb"),
        (f"{GITLAB}/foo?urlpath=tree/docs/section1/ntbkmd.md", f"{GITLAB}/foo", "docs/section1/ntbkmd.md"),
    ],
)
def test_the_buttons_of_a_book_open_its_page(hub, link, spec, path):
    found = repos.RepoSpec.parse(f"{hub}/v2/{link}")
    assert (str(found), found.path, found.urlpath, found.located) == (spec, path, "", True)


@pytest.mark.parametrize(
    "place",
    ["bitbucket/scm/u3d/3dutilities", "gitlab/gitlab-org/gitlab", "executablebooks/sphinx-book-theme", "deep.git"],
)
@pytest.mark.parametrize("branch", ["foo", "release/1.0", "a/b/c"])
@pytest.mark.parametrize("page", [f"tree/docs/{BOOK}", f"lab/tree/docs/{BOOK}", "tree/docs/section1/ntbkmd.md"])
def test_the_button_of_a_book_elsewhere_opens_the_repository_that_is_there(tmp_path, resolver, place, branch, page):
    """Its generic form keeps the slashes of the address: `/v2/git/https%3A//host/org/repo/branch`."""
    commit = add_commit_after(tmp_path, place, branch)
    with GitServer(tmp_path) as server:
        link = f"https://mybinder.org/v2/git/{quote(f'{server.url}/{place}')}/{branch}?urlpath={page}"
        found = resolver().resolve(repos.RepoSpec.parse(link))
    assert (found.repo_url, found.ref, found.commit) == (f"{server.url}/{place}", branch, commit)
    assert found.path == page.removeprefix("lab/").removeprefix("tree/")
    assert found.spec_string == f"git/{quote(found.repo_url, safe='')}/{commit}"


def add_commit_after(root, place: str, branch: str) -> str:
    make_repo(root, place, {f"docs/{BOOK}": "{}"})
    return add_commit(root / place, {"docs/x": "x"}, branch=branch)


@pytest.mark.parametrize(
    "shape", ["{quoted}/{ref}", "{escaped}/{ref}", "{escaped}/{escaped_ref}", "{plain}/{ref}", "{one}/{ref}"]
)
@pytest.mark.parametrize("ref", ["foo", "release/1.0"])
def test_however_much_of_the_address_was_encoded_it_means_the_same(tmp_path, resolver, shape, ref):
    """As the theme has it, as BinderHub wants it, as a proxy that decodes it leaves it, and with slashes made one."""
    commit = add_commit_after(tmp_path, "org/repo", ref)
    with GitServer(tmp_path) as server:
        url = f"{server.url}/org/repo"
        spec = shape.format(
            quoted=quote(url),
            escaped=quote(url, safe=""),
            plain=url,
            one=url.replace("//", "/"),
            ref=ref,
            escaped_ref=quote(ref, safe=""),
        )
        for text in (f"git/{spec}", f"https://mybinder.org/v2/git/{spec}"):
            found = resolver().resolve(repos.RepoSpec.parse(text))
            assert (found.repo_url, found.ref, found.commit) == (url, ref, commit)


def test_a_commit_in_such_a_link_is_looked_for(tmp_path, resolver):
    commit = add_commit_after(tmp_path, "a/b/c", "foo")
    with GitServer(tmp_path) as server:
        spec = repos.RepoSpec.parse(f"git/{quote(server.url)}/a/b/c/{commit}")
        assert resolver().resolve(spec).commit == commit
        with pytest.raises(errors.RefNotFound):
            resolver().resolve(repos.RepoSpec.parse(f"git/{quote(server.url)}/a/b/c/{'0' * 40}"))


def test_such_a_link_without_a_branch_opens_the_default_one(tmp_path, resolver):
    make_repo(tmp_path, "a/b", {"x": "x"})
    with GitServer(tmp_path) as server:
        found = resolver().resolve(repos.RepoSpec.parse(f"git/{quote(f'{server.url}/a/b')}"))
    assert (found.repo_url, found.ref) == (f"{server.url}/a/b", "HEAD")


def test_a_branch_that_is_not_there_is_said_of_the_repository_that_is(tmp_path, resolver):
    make_repo(tmp_path, "a/b", {"x": "x"})
    with GitServer(tmp_path) as server:
        with pytest.raises(errors.RefNotFound, match="“no/such”"):
            resolver().resolve(repos.RepoSpec.parse(f"git/{quote(f'{server.url}/a/b')}/no/such"))
        with pytest.raises(errors.NotFound, match="no such repository"):
            resolver().resolve(repos.RepoSpec.parse(f"git/{quote(f'{server.url}/a/c')}/main"))


def test_a_branch_named_beside_such_a_link_says_where_the_address_ends(tmp_path, resolver):
    commit = add_commit_after(tmp_path, "a/b", "x/y")
    with GitServer(tmp_path) as server:
        spec = repos.RepoSpec.parse(f"git/{quote(f'{server.url}/a/b')}/x/y", ref="x/y")
        assert (spec.repo, spec.ref, spec.located) == (f"{server.url}/a/b", "x/y", True)
        assert resolver().resolve(spec).commit == commit


def test_a_served_broker_looks_for_the_end_of_an_address_only_where_it_may(tmp_path, resolver):
    commit = add_commit_after(tmp_path, "a/b", "x/y")
    served = {"public_url": "https://hub.example", "session_domain": "s.example"}
    with GitServer(tmp_path) as server:
        spec = repos.RepoSpec.parse(f"git/{quote(f'{server.url}/a/b')}/x/y")
        assert resolver(**served, allowed=(ipaddress.ip_network("127.0.0.1/32"),)).resolve(spec).commit == commit
        before = len(server.requests)
        with pytest.raises(errors.NotAllowed):
            resolver(**served).resolve(spec)
        assert len(server.requests) == before


# --- nbgitpuller ----------------------------------------------------------------------------------------------------

APPS = {
    "classic": "tree/{}",
    "retrolab": "retro/tree/{}",
    "jupyterlab": "lab/tree/{}",
    "shiny": "shiny/{}/",
    "rstudio": "rstudio/",
    "custom": "proxy/8000/?a=1&b=ä b#c",
    "none": "",
}


def generated(hub: str, environment: str, content: dict[str, str]) -> str:
    """As a browser's URL and URLSearchParams write it: whatever path the hub had is overwritten."""
    inner = "git-pull?" + urlencode({name: value for name, value in content.items() if value})
    parts = urlsplit(hub)
    return f"{parts.scheme}://{parts.netloc}/v2/gh/{environment}?{urlencode({'urlpath': inner})}"


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize(
    ("environment", "content", "branch", "target"),
    [
        ("jupyterhub/repo2docker/main", "https://github.com/data-8/materials-fa17", "main", ""),
        ("ada/env/release/1.0", "https://git.example/a%20b/c.git", "feature/x", "folder/deep"),
        ("ada/env/HEAD", "https://github.com/o/r?x=1&y=2", "", "å&="),
    ],
)
def test_a_link_of_nbgitpullers_opens_its_environment_and_keeps_what_it_pulls_whole(
    app, hub, environment, content, branch, target
):
    pulled = {"repo": content, "urlpath": APPS[app].format("r/a b&c.ipynb"), "branch": branch, "targetPath": target}
    found = repos.RepoSpec.parse(generated(hub, environment, pulled))
    assert (str(found), found.path, found.located) == (f"gh/{environment}", "", True)
    assert found.urlpath == "git-pull?" + urlencode({name: value for name, value in pulled.items() if value})


@pytest.mark.parametrize(
    ("app", "path", "urlpath"),
    [
        ("classic", "a b&c.ipynb", ""),
        ("jupyterlab", "a b&c.ipynb", ""),
        ("retrolab", "", "retro/tree/a b&c.ipynb"),
        ("shiny", "", "shiny/a b&c.ipynb/"),
        ("rstudio", "", "rstudio/"),
        ("none", "", ""),
    ],
)
@pytest.mark.parametrize("canvas", [False, True])
@pytest.mark.parametrize("server", ["", "/named"])
def test_its_links_to_a_jupyterhub_may_be_pasted_here(app, path, urlpath, canvas, server):
    """There the repository is a folder in somebody's home; here it is all there is, so its name goes from the path."""
    pulled = {"repo": "https://github.com/o/r.git", "urlpath": APPS[app].format("r/a b&c.ipynb"), "branch": "feature/x"}
    link = f"/hub/user-redirect{server}/git-pull?{urlencode({name: value for name, value in pulled.items() if value})}"
    if canvas:
        link = f"/hub/lti/launch?{urlencode({'next': link})}"
    found = repos.RepoSpec.parse(f"https://hub.example/prefix{link}")
    assert (str(found), found.path, found.urlpath) == ("gh/o/r/feature/x", path, urlpath)


@pytest.mark.parametrize(
    "link",
    [
        "https://hub.example/hub/user-redirect/git-pull?repo=nothing",
        "https://hub.example/hub/user-redirect/git-pull?repo=https://user:secret@github.com/o/r",
        "https://hub.example/hub/user-redirect/git-pull?repo=https://github.com/o/r&branch=a..b",
        "https://hub.example/hub/user-redirect/git-pull?repo=https://github.com/o/r&urlpath=tree/r/../../x",
        "https://deepnote.com/launch?url=x",
    ],
)
def test_such_links_with_less_in_them_are_refused_with_what_to_do(link):
    refused_to_parse(link)


def test_the_example_in_its_own_words():
    found = repos.RepoSpec.parse(
        "https://mybinder.org/v2/gh/u/r/main?urlpath=git-pull%3Frepo%3Dhttps%253A%252F%252Fgithub.com%252Fo%252Fc"
        "%26urlpath%3Dlab%252Ftree%252Fc%252Findex.ipynb%26branch%3Dmain"
    )
    assert (
        found.urlpath
        == "git-pull?repo=https%3A%2F%2Fgithub.com%2Fo%2Fc&urlpath=lab%2Ftree%2Fc%2Findex.ipynb&branch=main"
    )


# --- what a page elsewhere calls -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "path", "urlpath"),
    [
        ("labpath=a/b.ipynb&filepath=c.ipynb&urlpath=rstudio", "a/b.ipynb", ""),
        ("filepath=c.ipynb&urlpath=rstudio", "c.ipynb", ""),
        ("urlpath=lab%2Ftree%2Fa%20b.ipynb", "a b.ipynb", ""),
        ("urlpath=/doc/tree/a.ipynb", "a.ipynb", ""),
        ("urlpath=notebooks/a.ipynb", "a.ipynb", ""),
        ("urlpath=retro/tree/a.ipynb", "", "retro/tree/a.ipynb"),
        ("urlpath=lab/tree/a.ipynb%3Freset", "", "lab/tree/a.ipynb?reset"),
        ("urlpath=lab", "", "lab"),
        ("urlpath=voila/render/a.ipynb", "", "voila/render/a.ipynb"),
        ("labpath=&urlpath=lab", "", "lab"),
    ],
)
def test_of_several_things_to_open_the_first_in_binderhubs_order_counts(query, path, urlpath):
    found = repos.RepoSpec.parse(f"https://mybinder.org/v2/gh/o/r/main?{query}")
    assert (found.path, found.urlpath) == (path, urlpath)
