"""DOIs: how people write them, and where they lead. The operator's `hosts.doi.url` is the resolver, else doi.org."""

from __future__ import annotations

import re
from urllib.parse import quote

from broker.repos import errors, listing, urls
from broker.repos.asking import Asking
from providers.sentences import say

DOI = re.compile(r"10\.[0-9]{4,9}(\.[0-9]+)*/[^\s?#<>\"\\]+", re.ASCII)
HOSTS = ("doi.org", "www.doi.org", "dx.doi.org")
RESOLVER = "https://doi.org"
LONGEST = 300  # the longest registered ones have some 200 characters


def plain(text: str, example: str) -> str:
    """The DOI in `10.…/…`, `doi:10.…/…`, or an address of doi.org, decoded. Raises BadSpec, which shows this example."""
    plain = re.sub(r"^(https?:/{1,2}(dx\.|www\.)?doi\.org/|doi:)", "", text.strip(), flags=re.IGNORECASE).rstrip("/")
    if not good(plain):
        raise errors.BadSpec(
            say(
                "“%(text)s” is not a DOI. Write it as the page of the data set does, such as %(example)s.",
                text=text[:80],
                example=example,
            )
        )
    return plain


def good(text: str) -> bool:
    """Whether this is a DOI, and nothing that a path could be led astray by."""
    return bool(DOI.fullmatch(text)) and len(text) <= LONGEST and not {".", ".."} & set(text.split("/"))


def in_address(url: urls.Url) -> str | None:
    """The DOI of an address of doi.org; None for any other address, and for one without a DOI."""
    plain = "/".join(url.segments)
    return plain if url.host in HOSTS and good(plain) else None


def target(doi: str, asking: Asking) -> urls.Url:
    """Where this DOI leads, as its registrar says. Raises NotFound where nobody has registered it.

    By the resolver's own interface (`/api/handles/`), which answers without sending us on.
    """
    resolver = (asking.settings.repo_host("doi").url or RESOLVER).rstrip("/")
    answer = asking.http.ask_api(f"{resolver}/api/handles/{quote(doi, safe='/')}", accept="application/json")
    if answer.status == 404:
        raise errors.NotFound(say("There is no DOI %(doi)s. Check it; a new one takes a day to be known.", doi=doi))
    with listing.sense("The resolver of DOIs"):
        rows = listing.json_of(answer, "The resolver of DOIs", doi)["values"]
        addresses = [str(row["data"]["value"]) for row in rows if row["type"] == "URL"]
    if not addresses:
        raise errors.NotFound(
            say("The DOI %(doi)s leads nowhere. Ask whoever published it, or paste the address of its page.", doi=doi)
        )
    return urls.split(addresses[0])
