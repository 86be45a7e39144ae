"""Tables of prices, the curated one of AWS, and AWS's public list."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from providers import prices
from providers.aws import AwsProvider, price_list, public_prices
from providers.aws.clients import Place
from providers.base import Price
from providers.errors import InvalidOrder, ProviderUnavailable
from tests.doubles.price_list import PriceList, listed, row, serving

HEAD = "region,machine,spot,price_per_hour,currency,source,as_of"


def price(machine: str = "m", cost: str = "0.1", as_of: str = "2026-11-01", source: str = "a list") -> Price:
    return Price(region="r", machine=machine, price_per_hour=Decimal(cost), source=source, as_of=as_of)


# --- tables ---------------------------------------------------------------------------------------------------------


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    some = [price(), price("n", "12.5", source='a list, "curated"')]
    prices.write(path, some)
    assert prices.read(path) == some
    assert [each.name for each in tmp_path.iterdir()] == ["table.csv"], "nothing else is left lying about"


@pytest.mark.parametrize(("first", "second", "wins"), [("01", "02", "b"), ("02", "01", "a"), ("01", "01", "b")])
def test_the_newest_wins_and_of_one_day_the_later_file(tmp_path: Path, first: str, second: str, wins: str) -> None:
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path, day in zip(paths, (first, second), strict=True):
        prices.write(path, [price(as_of=f"2026-11-{day}", source=path.stem)])
    assert prices.table(*paths)["r", "m", False].source == wins


def test_a_file_that_is_not_there_is_an_empty_table(tmp_path: Path) -> None:
    assert prices.table(tmp_path / "none.csv") == {}


@pytest.mark.parametrize(
    "line",
    [
        "r,m,no,0,USD,s,2026-11-01",
        "r,m,no,0.0,USD,s,2026-11-01",
        "r,m,no,-1,USD,s,2026-11-01",
        "r,m,no,NaN,USD,s,2026-11-01",
        "r,m,no,much,USD,s,2026-11-01",
        "r,m,maybe,1,USD,s,2026-11-01",
        "r,m,no,1,USD,s,yesterday",
        "r,m,no,1,USD,,2026-11-01",
        "r,m,no,1,USD,s,",
        "r,m,no,1,USD,s",
        "r,m,no,1,USD,s,2026-11-01,and more",
    ],
)
def test_a_malformed_row_is_refused_with_its_file_and_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"{HEAD}\nr,fine,no,1,USD,s,2026-11-01\n{line}\n")
    with pytest.raises(InvalidOrder, match=r"table\.csv, line 3: "):
        prices.read(path)


def test_other_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("machine,price\nm,1\n")
    with pytest.raises(InvalidOrder, match="line 1"):
        prices.read(path)


def test_a_table_that_has_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    prices.write(path, [price()])
    assert prices.table(path)["r", "m", False].price_per_hour == Decimal("0.1")
    prices.write(path, [price(cost="0.25")])
    assert prices.table(path)["r", "m", False].price_per_hour == Decimal("0.25")


# --- the curated table of AWS ---------------------------------------------------------------------------------------


def test_the_curated_table_is_what_its_program_makes(tmp_path: Path) -> None:
    fresh = tmp_path / "prices.csv"
    prices.write(fresh, price_list.curated())
    assert fresh.read_text() == price_list.TABLE.read_text()


def test_every_row_of_it_has_a_source_and_a_day() -> None:
    for each in prices.read(price_list.TABLE):
        assert each.source.startswith("libcloud"), each
        assert date.fromisoformat(each.as_of), each
        assert each.price_per_hour > 0, each


@pytest.mark.parametrize(
    ("region", "machine", "cost"),
    [
        ("us-east-1", "t3.large", "0.0832"),  # libcloud has the dedicated machine: 0.0882
        ("us-east-1", "t3.medium", "0.0416"),  # libcloud has 0
        ("eu-west-1", "r6i.2xlarge", "0.564"),  # libcloud has the dedicated machine in each of the small sizes
        ("eu-central-1", "m6i.4xlarge", "0.92"),
        ("us-west-2", "m7g.medium", "0.0408"),
    ],
)
def test_no_price_of_a_dedicated_machine_got_into_it(region: str, machine: str, cost: str) -> None:
    assert prices.table(price_list.TABLE)[region, machine, False].price_per_hour == Decimal(cost)


# --- AWS's public list ----------------------------------------------------------------------------------------------

WEST = Place(region="us-west-2")


@pytest.fixture
def public() -> Iterator[PriceList]:
    with serving() as server:
        yield server


def read(public: PriceList) -> dict[str, str]:
    return {each.machine: f"{each.price_per_hour:f}" for each in public_prices.read(WEST, host=public.url)}


def test_linux_by_the_hour_on_shared_hardware_is_what_is_read(public: PriceList) -> None:
    public.body = listed(
        row("m6i.large", "0.0960000000"),
        row("m6i.xlarge", "0.1920000000"),
        row("m6i.large", "0.1056000000", Tenancy="Dedicated"),
        row("m6i.large", "0.1880000000", Operating_System="Windows"),
        row("m6i.large", "0.5760000000", Pre_Installed_S_W="SQL Std"),
        row("m6i.large", "0.0604800000", TermType="Reserved", LeaseContractLength="1yr"),
        row("m6i.large", "500", TermType="Reserved", Unit="Quantity"),
        row("m6i.large", "0.0000000000", CapacityStatus="AllocatedCapacityReservation"),
        row("m6i.large", "0.0960000000", CapacityStatus="UnusedCapacityReservation"),
        row("c5.large", "0.0000000000"),
        row("t3.nano", "0.0068", Region_Code="us-west-2-lax-1"),
        row("", "0.08", Product_Family="Storage"),
    )
    assert read(public) == {"m6i.large": "0.0960000000", "m6i.xlarge": "0.1920000000"}
    assert public.asked == ["/offers/v1.0/aws/AmazonEC2/current/us-west-2/index.csv"]


def test_its_day_is_the_day_it_was_published(public: PriceList) -> None:
    public.body = listed(row("m6i.large", "0.0960000000"))
    (found,) = public_prices.read(WEST, host=public.url)
    assert (found.region, found.source, found.as_of) == ("us-west-2", "AWS public price list", "2026-11-27")


def test_of_two_prices_of_one_machine_the_dearer_one_is_promised(public: PriceList) -> None:
    public.body = listed(row("m6i.large", "0.096"), row("m6i.large", "0.1"), row("m6i.large", "0.097"))
    assert read(public) == {"m6i.large": "0.1"}


WHOLE = listed(*(row(f"m{number}.large", "0.1") for number in range(100)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Please sign in to the campus network</body></html>",
        b"\x1f\x8b\x08\x00 compressed, and nobody said so \xff\xfe",
        listed(),
        listed(row("m6i.large", "much")),
        listed(row("m6i.large", "0.096"), '"half a ro'),
        listed(row("m6i.large", "0.096"), '"too","few"'),
        WHOLE.replace(b'"Publication Date"', b'"Some Date"'),
        WHOLE.replace(b'"Tenancy"', b'"Tenure"'),
    ],
    ids=["empty", "a page", "compressed", "no machine", "no number", "half", "few cells", "no day", "no column"],
)
def test_what_is_no_list_is_refused(public: PriceList, body: bytes) -> None:
    public.body = body
    with pytest.raises(ProviderUnavailable):
        read(public)


def test_a_list_that_breaks_off_is_refused_also_at_the_end_of_a_line(public: PriceList) -> None:
    public.body = WHOLE
    public.breaks_off_after = WHOLE.index(b"\n", len(WHOLE) // 2) + 1
    with pytest.raises(ProviderUnavailable, match="could not be read"):
        read(public)


def test_a_refusal_is_said_with_its_status(public: PriceList) -> None:
    public.status = 403
    with pytest.raises(ProviderUnavailable, match="403"):
        read(public)


def test_a_list_that_does_not_end_is_left(public: PriceList, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_prices, "BYTES_MOST", 1000)
    public.body = WHOLE
    with pytest.raises(ProviderUnavailable, match="too long"):
        read(public)


def test_one_that_comes_too_slowly_is_left(public: PriceList, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_prices, "ALTOGETHER_SECONDS", -1)
    public.body = WHOLE
    with pytest.raises(ProviderUnavailable, match="too slowly"):
        read(public)


def test_one_that_falls_silent_is_left(public: PriceList, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_prices, "SILENCE_SECONDS", 0.2)
    public.body, public.holds_after = WHOLE, len(WHOLE) // 2
    with pytest.raises(ProviderUnavailable, match="could not be read"):
        read(public)


def test_a_host_that_does_not_answer_is_said_so() -> None:
    with serving() as gone:
        pass
    with pytest.raises(ProviderUnavailable, match="could not be read"):
        read(gone)


# --- the driver of AWS ----------------------------------------------------------------------------------------------


def test_the_driver_knows_its_region_and_what_was_read_goes_before_what_was_curated(tmp_path: Path) -> None:
    curated = AwsProvider({"region": "us-west-2"}).prices()
    assert {each.region for each in curated} == {"us-west-2"}
    fresh = Price(
        region="us-west-2", machine="t3.large", price_per_hour=Decimal("0.09"), source="today", as_of="2026-11-28"
    )
    prices.write(tmp_path / "aws.csv", [fresh])
    known = AwsProvider({"region": "us-west-2", "prices": str(tmp_path / "aws.csv")}).prices()
    assert len(known) == len(curated)
    assert fresh in known
