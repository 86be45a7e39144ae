"""How much a session needs, from what everybody says."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import errors, resources
from broker.repos.errors import BadSpec
from providers.base import Resources


def asked(text: str, name: str = ".binder/resources.yaml") -> resources.Asked:
    return resources.asked_in({name: text.encode()})


def test_the_file_says_what_is_required_and_what_is_recommended() -> None:
    found = asked("required: {memory: 4G, cpu: 2}\nrecommended: {memory: 8G, disk: 20G, gpu: 1, hours: 3}\n")
    assert found.required == Resources(memory_mb=4096, cpu=2)
    assert found.recommended == Resources(memory_mb=8192, disk_gb=20, gpu=1, hours=3)


def test_a_dev_container_names_minimums() -> None:
    text = """{
      // comments are allowed here
      "image": "https://example.org/x", /* and here */
      "hostRequirements": {"cpus": 4, "memory": "8gb", "storage": "32gb", "gpu": "optional"},
    }"""
    found = asked(text, ".devcontainer/devcontainer.json")
    assert found.required == Resources(cpu=4, memory_mb=8192, disk_gb=32)
    assert found.recommended == Resources(gpu=1)


def test_the_own_file_goes_before_the_dev_container() -> None:
    files = {".devcontainer.json": b'{"hostRequirements": {"cpus": 8}}', "binder/resources.yaml": b"required: {cpu: 1}"}
    assert resources.asked_in(files).required == Resources(cpu=1)


def test_no_file_asks_for_nothing() -> None:
    assert resources.asked_in({}) == resources.Asked()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("required: {memory: lots}", "memory cannot be “lots”"),
        ("required: {ram: 4G}", "“ram” is none of"),
        ("memory: 4G", "it may hold “required” and “recommended”"),
        ("required: [1]", "cannot be read"),
        ("required: {cpu: -1}", "cpu cannot be “-1”"),
        ("required: {cpu: yes}", "cpu cannot be “True”"),
        ("- a", "cannot be read"),
        ("{", "cannot be read"),
        ("required: {gpu: 100000}", "gpu cannot be"),
    ],
)
def test_what_cannot_be_understood_is_said_with_the_name_of_the_file(text: str, said: str) -> None:
    with pytest.raises(BadSpec, match=said) as caught:
        asked(text)
    assert ".binder/resources.yaml" in str(caught.value)


@given(st.binary(max_size=200), st.sampled_from(resources.FILES))
def test_whatever_the_file_holds_it_is_read_or_refused(content: bytes, name: str) -> None:
    try:
        resources.asked_in({name: content})
    except BadSpec as refusal:
        assert name in str(refusal)


def bombs() -> dict[str, tuple[str, str]]:
    """Small files that cost who reads them carelessly minutes, or all memory."""
    lists = ["&a0 [x]", *(f"&a{at} [{', '.join([f'*a{at - 1}'] * 10)}]" for at in range(1, 12))]
    merged = ["&a0 {k: 1}", *(f"&a{at} {{<<: [{', '.join([f'*a{at - 1}'] * 10)}]}}" for at in range(1, 12))]
    own, other = ".binder/resources.yaml", ".devcontainer.json"
    return {
        "lists in lists": (own, f"required: {{memory: [{', '.join(lists)}]}}"),
        "merged mappings": (own, f"required: {{memory: [{', '.join(merged)}]}}"),
        "quotes without an end": (other, '\\"' * 32_000),
        "comments without an end": (other, "/* " * 21_000),
        "more than a number holds": (own, f"required: {{memory: '{'9' * 400}'}}"),
        "no end of them": (own, "required: {gpu: .inf}"),
    }


@pytest.mark.parametrize("kind", bombs())
def test_no_file_costs_more_than_its_size(kind: str) -> None:
    name, text = bombs()[kind]
    began = time.process_time()
    with pytest.raises(BadSpec, match=re.escape(name)):
        asked(text, name)
    assert time.process_time() - began < 2


def test_the_link_goes_before_the_repository_and_that_before_the_backend() -> None:
    repo = resources.Asked(recommended=Resources(cpu=2, memory_mb=2000), file="f")
    chosen, notes = resources.settle(repo, Resources(cpu=4), Resources(cpu=1, memory_mb=1000, disk_gb=5))
    assert chosen == Resources(cpu=4, memory_mb=2000, disk_gb=5)
    assert notes == []


def test_what_is_required_is_never_undercut_silently() -> None:
    repo = resources.Asked(required=Resources(memory_mb=4096), recommended=Resources(memory_mb=8192), file="f")
    chosen, notes = resources.settle(repo, Resources(memory_mb=1024), Resources())
    assert chosen.memory_mb == 4096
    assert notes == ["f requires 4096 MB of memory, so it gets that instead of 1024."]
    chosen, notes = resources.settle(repo, Resources(), Resources(memory_mb=512))
    assert (chosen.memory_mb, notes) == (8192, [])
    only = resources.Asked(required=Resources(cpu=2), file="f")
    assert resources.settle(only, Resources(), Resources(cpu=1)) == (Resources(cpu=2), [])


@pytest.mark.parametrize(
    ("text", "megabytes"), [("4G", 4096), ("4GiB", 4096), ("512m", 512), ("2048", 2048), ("1.5g", 1536), (300, 300)]
)
def test_memory_is_read_as_people_write_it(text: str | int, megabytes: int) -> None:
    assert resources.megabytes(text) == megabytes


@pytest.mark.parametrize("text", ["", "G", "4 gigs", "-1G", "0", "1e9G", "9999999T", "4G 5G"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(errors.BadRequest, match="Write it like 4G"):
        resources.megabytes(text)


def test_disk_is_counted_in_gigabytes() -> None:
    assert [resources.gigabytes(text) for text in ("20G", 20, "512M", "1T")] == [20, 20, 1, 1024]
