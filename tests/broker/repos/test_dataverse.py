"""`dataverse`: data sets of whichever Dataverse their DOI leads to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker import repos
from broker.repos import errors
from tests.doubles.data_hosts import DataverseDouble, DoiDouble, md5

DOI = "10.7910/DVN/TJCLKP"


@pytest.fixture
def doi() -> Iterator[DoiDouble]:
    with DoiDouble() as double:
        yield double


@pytest.fixture
def dataverse(doi) -> Iterator[DataverseDouble]:
    with DataverseDouble() as double:
        doi.lead(DOI, f"{double.url}/citation?persistentId=doi:{DOI}")
        yield double


@pytest.fixture
def resolve(dataverse, doi, resolver):
    asking = resolver(hosts={"doi": {"url": doi.url}})
    return lambda text: asking.resolve(repos.RepoSpec.parse(text))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (f"dataverse/{DOI}", "2.1"),
        (f"dataverse/doi:{DOI}", "2.1"),
        (DOI, "2.1"),
        (f"https://doi.org/{DOI}", "2.1"),
        (f"https://dataverse.harvard.edu/dataset.xhtml?persistentId=doi:{DOI}", "2.1"),
        ("https://dataverse.harvard.edu/dataset.xhtml?persistentId=doi%3A10.7910%2FDVN%2FTJCLKP&version=1.0", "1.0"),
        (f"https://dataverse.harvard.edu/citation?persistentId=doi:{DOI}", "2.1"),
        (f"dataverse/{DOI}@1.0", "1.0"),
    ],
)
def test_every_way_to_write_a_data_set_leads_to_one_version_of_it(dataverse, resolve, text, version):
    dataverse.dataset(DOI, {"1.0": {"a.txt": b"one"}, "2.1": {"sub/a.txt": b"two!"}})
    found = resolve(text)
    assert (found.commit, found.spec_string) == (f"77.v{version}", f"dataverse/{DOI}@{version}")
    (file,) = found.content["files"]
    number, path, content = {"1.0": (100, "a.txt", b"one"), "2.1": (210, "sub/a.txt", b"two!")}[version]
    assert file == {
        "url": f"{dataverse.url}/api/access/datafile/{number}",
        "path": path,
        "size": len(content),
        "md5": md5(content),
    }
    assert f"@{version}" in found.lasting


def test_a_table_comes_as_it_was_uploaded_and_restricted_files_are_left_out_and_named(dataverse, resolve):
    dataverse.dataset(DOI, {"1.0": {"t.tab": b"1\t2", "secret.txt": b"x"}})
    found = resolve(DOI)
    address = f"{dataverse.url}/api/access/datafile/100?format=original"
    assert found.content["files"] == [{"url": address, "path": "t.csv", "size": None}]
    assert found.note == "One file is restricted and left out."


def test_the_doi_of_a_file_opens_its_data_set(dataverse, doi, resolve):
    doi.lead(f"{DOI}/3YRRYJ", f"{dataverse.url}/file.xhtml?persistentId=doi:{DOI}/3YRRYJ")
    dataverse.dataset(DOI, {"1.0": {"a.txt": b"one"}})
    dataverse.file(f"{DOI}/3YRRYJ", DOI)
    assert resolve(f"{DOI}/3YRRYJ").spec_string == f"dataverse/{DOI}@1.0"


def test_an_operators_own_dataverse_is_asked_without_asking_the_doi(dataverse, doi, resolver):
    dataverse.dataset(DOI, {"1.0": {"a.txt": b"one"}})
    asking = resolver(hosts={"dataverse": {"api": f"{dataverse.url}/api", "token": "t"}, "doi": {"url": doi.url}})
    assert asking.resolve(repos.RepoSpec.parse(DOI)).commit == "77.v1.0"
    assert doi.requests == []


@pytest.mark.parametrize(
    ("more", "words"), [({"versionState": "DEACCESSIONED"}, "withdrawn"), ({"files": []}, "no files")]
)
def test_a_data_set_that_was_withdrawn_or_is_empty_is_a_sentence(dataverse, resolve, more, words):
    dataverse.dataset(DOI, {"1.0": {"a": b"a"}}, **more)
    with pytest.raises(errors.NotFound, match=words):
        resolve(DOI)


def test_no_such_data_set_version_or_doi_is_a_sentence(dataverse, resolve):
    with pytest.raises(errors.NotFound, match="has no data set"):
        resolve(DOI)
    dataverse.dataset(DOI, {"1.0": {"a": b"a"}})
    with pytest.raises(errors.NotFound, match=r"version 7\.0"):
        resolve(f"{DOI}@7.0")
    with pytest.raises(errors.NotFound, match="no DOI"):
        resolve("10.7910/DVN/NOTHIN")


@pytest.mark.parametrize("told", [b"<html>", b"[]", b"{}", b'{"status": "OK"}', b'{"status": "OK", "data": {}}'])
def test_an_answer_of_another_form_is_the_hosts_fault(dataverse, resolve, told):
    dataverse.json[f"/api/datasets/:persistentId/?persistentId=doi:{DOI}"] = told
    with pytest.raises(errors.HostUnavailable, match="makes no sense"):
        resolve(DOI)


def test_a_doi_of_something_else_is_no_data_set(doi, resolve, dataverse):
    doi.lead("10.1000/182", f"{dataverse.url}/some/paper")
    with pytest.raises(errors.NotFound, match="where this DOI leads"):
        resolve("10.1000/182")
